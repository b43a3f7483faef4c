"""KServe's V2 protocol over gRPC."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from grpc_interceptor.exceptions import GrpcException
from kserve.constants.constants import MAX_GRPC_MESSAGE_LENGTH
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.interceptors import LoggingInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer

from contract import problems
from contract.limits import BODY_BYTES
from contract.problems import ProblemError
from predictor.protocols.error_documents import as_problem
from predictor.protocols.grpc_status import grpc_error
from predictor.server.data_plane import FixedModelRepository, ModelDataPlane

log = logging.getLogger(__name__)


async def start_grpc_server(
    host: str, port: int, data_plane: ModelDataPlane, threads: int, message_bytes: int = BODY_BYTES
) -> aio.Server:
    """Serve on `host` only; the gRPC server of KServe 0.21 listens on every address. Messages of clients have at most
    `message_bytes`."""
    server = aio.server(
        ThreadPoolExecutor(threads, "grpc"),
        interceptors=(LoggingInterceptor(), StatusInterceptor()),
        options=[
            ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_LENGTH),
            ("grpc.max_receive_message_length", message_bytes),
            ("grpc.so_reuseport", 0),  # or a second server on this port would get a part of the requests
        ],
    )
    servicer = InferenceServicer(data_plane, FixedModelRepository(data_plane.model_registry))
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    await server.start()
    return server


class StatusInterceptor(aio.ServerInterceptor):  # type: ignore[misc]  # grpc is not typed
    """Ends a call that fails with the status of its problem, and with a line in the log.

    That of KServe 0.21 logs a traceback for every mistake of a client, and fails itself where a method is not
    implemented. A message that is no protobuf would not come this far: so it is read here.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        if handler is None:  # an unknown method, which gRPC itself refuses
            return None

        async def answer(message: bytes, context: aio.ServicerContext) -> Any:
            try:
                return await handler.unary_unary(handler.request_deserializer(message), context)
            except Exception as error:
                status = _status(error, details.method)
                log.info("%s -> %s", details.method, status.status_code.name)
                log.debug("%s: %s", details.method, status.details)  # may quote what was sent
                await context.abort(status.status_code, status.details)

        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)


def _status(error: Exception, method: str) -> GrpcException:
    if isinstance(error, GrpcException):
        return error
    if isinstance(error, DecodeError):
        return grpc_error(ProblemError(problems.MALFORMED_BODY, str(error)))
    try:
        return grpc_error(as_problem(error))
    except Exception:
        log.exception("%s failed", method)
        return grpc_error(problems.internal())
