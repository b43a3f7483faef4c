"""Problems over gRPC: each has the status that gRPC's clients act on."""

from __future__ import annotations

from typing import Any

import pytest
from grpc import StatusCode
from grpc_interceptor.exceptions import GrpcException
from kserve import InferInput, InferRequest

from contract import problems
from contract.problems import PROBLEM_TYPES, ProblemError, ProblemType
from predictor.protocols.grpc_status import CODES, grpc_error

RETRIED = {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.INTERNAL}
"""What clients that retry take for a failure of the moment."""


def test_every_status_of_a_problem_has_a_code_and_no_other_has() -> None:
    assert {kind.status for kind in PROBLEM_TYPES} == set(CODES)


@pytest.mark.parametrize("kind", PROBLEM_TYPES, ids=lambda kind: kind.slug)
def test_the_code_says_whether_to_try_again(kind: ProblemType) -> None:
    error = grpc_error(ProblemError(kind, "why"))

    assert error.details == "why"
    if kind in (problems.QUOTA_EXCEEDED, problems.REFUSED_UPSTREAM):
        return  # problems of web, which speaks no gRPC
    if kind.transient:
        assert error.status_code in RETRIED
    elif kind.status != 504:
        assert error.status_code not in RETRIED


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (problems.INVALID_FIELD, StatusCode.INVALID_ARGUMENT),
        (problems.OUT_OF_MEMORY, StatusCode.RESOURCE_EXHAUSTED),
        (problems.NOT_IMPLEMENTED, StatusCode.UNIMPLEMENTED),
        (problems.OVERLOADED, StatusCode.UNAVAILABLE),
        (problems.TOO_LATE, StatusCode.DEADLINE_EXCEEDED),
    ],
    ids=lambda value: getattr(value, "slug", None) or value.name,
)
async def test_a_request_over_grpc_ends_with_the_code(
    server: Any, engine: Any, kind: ProblemType, code: StatusCode
) -> None:
    engine.refuse(ProblemError(kind, "why"))
    tensor = InferInput("prompt", [1], "BYTES", data=["moon"])
    request = InferRequest("poet", [tensor], from_grpc=True)

    with pytest.raises(GrpcException) as refused:
        await server.model.predict(request)

    assert (refused.value.status_code, refused.value.details) == (code, "why")
