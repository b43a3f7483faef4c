"""KServe's V2 protocol over gRPC."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from grpc import aio
from kserve.constants.constants import MAX_GRPC_MESSAGE_LENGTH
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor, LoggingInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer

from predictor.server.data_plane import FixedModelRepository, ModelDataPlane


async def start_grpc_server(host: str, port: int, data_plane: ModelDataPlane, threads: int) -> aio.Server:
    """Serve on `host` only; the gRPC server of KServe 0.21 listens on every address."""
    server = aio.server(
        ThreadPoolExecutor(threads, "grpc"),
        interceptors=(LoggingInterceptor(), ExceptionToStatusInterceptor()),
        options=[
            ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_LENGTH),
            ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_LENGTH),
            ("grpc.so_reuseport", 0),  # or a second server on this port would get a part of the requests
        ],
    )
    servicer = InferenceServicer(data_plane, FixedModelRepository(data_plane.model_registry))
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    await server.start()
    return server
