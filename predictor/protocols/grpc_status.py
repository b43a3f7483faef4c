"""Problems as gRPC's statuses."""

from __future__ import annotations

from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException

from contract.problems import ProblemError

CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    405: StatusCode.UNIMPLEMENTED,
    406: StatusCode.INVALID_ARGUMENT,
    408: StatusCode.DEADLINE_EXCEEDED,
    410: StatusCode.CANCELLED,
    413: StatusCode.RESOURCE_EXHAUSTED,  # as gRPC itself says of a message that is too large
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    431: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    501: StatusCode.UNIMPLEMENTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
"""The code of each HTTP status that a problem has."""


def grpc_error(error: ProblemError) -> GrpcException:
    """What KServe's interceptor answers a gRPC request with."""
    return GrpcException(status_code=CODES[error.kind.status], details=error.problem.detail)
