"""Bodies of KServe's protocols: V1 instances, and V2 tensors with their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from kserve.protocol.infer_type import InferRequest, to_http_parameters
from pydantic import BaseModel, ValidationError

from contract import problems
from contract.limits import INSTANCES
from contract.problems import ProblemError, invalid_field, invalid_fields
from contract.request import PicturePrompt

Body = TypeVar("Body", bound=BaseModel)
Parameters = TypeVar("Parameters", bound=BaseModel)


def read_v1_body(payload: Any, shape: type[Body]) -> Body:
    """A V1 request of the given shape. Raises a ProblemError that names the fields which are wrong."""
    if isinstance(payload, bytes):  # KServe 0.21 parses a body only if its content type is exactly application/json
        try:
            payload = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise ProblemError(problems.MALFORMED_BODY, f"The body is not valid JSON: {error}.") from None
    try:
        return shape.model_validate(payload)
    except ValidationError as error:
        raise invalid_fields(error, shape) from None


def read_v2_tensors(
    infer_request: InferRequest, shape: type[Parameters], outputs: Mapping[str, str]
) -> tuple[list[str], Parameters]:
    """The prompts and the parameters of a V2 request, whose outputs must be among `outputs` (names to datatypes).

    Raises a ProblemError that names what is wrong.
    """
    if [tensor.name for tensor in infer_request.inputs] != ["prompt"] or infer_request.inputs[0].datatype != "BYTES":
        raise invalid_field("inputs", 'must be one tensor: name "prompt", datatype "BYTES", shape [number of prompts]')
    for output in infer_request.request_outputs or ():
        if output.name not in outputs:
            raise invalid_field("outputs", f"there is no output {output.name[:64]!r}; there are {', '.join(outputs)}")
    # KServe 0.21 does not check the parameters that come with binary tensors.
    if not isinstance(infer_request.parameters or {}, Mapping):
        raise invalid_field("parameters", "must be an object")
    try:
        values = infer_request.inputs[0].as_numpy().reshape(-1).tolist()
        texts = [value.decode() if isinstance(value, bytes) else value for value in values]
    except Exception as error:  # KServe lets through whatever numpy and struct raise for a malformed tensor
        raise invalid_field("inputs.prompt", f"cannot be read as a BYTES tensor: {error}") from None
    if not 1 <= len(texts) <= INSTANCES:
        raise invalid_field("inputs.prompt", f"must hold 1 to {INSTANCES} prompts, not {len(texts)}")
    try:
        # gRPC has no parameter type for fractions, so numbers may come as strings: not strict.
        fields = to_http_parameters(infer_request.parameters or {})
        fields.pop("binary_data_output", None)
        parameters = shape.model_validate(fields, strict=False)
        prompts = [PicturePrompt.model_validate({"prompt": text}).prompt for text in texts]
    except ValidationError as error:
        raise invalid_fields(error, shape) from None
    return prompts, parameters
