"""The OpenAPI document: it is true, down to its examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator, ValidationError

from contract import GenerationRequest, Problem, RequestLimits
from web.openapi.document import describe

Web = Callable[..., httpx2.AsyncClient]
Events = Callable[[str], list[tuple[str, Any]]]

DOCUMENT = describe("1.2.3", {"poet": "text", "painter": "image"}, RequestLimits())
GENERATE = DOCUMENT["paths"]["/generate"]["post"]
REQUESTS = GENERATE["requestBody"]["content"]["application/json"]
SCHEMAS = DOCUMENT["components"]["schemas"]
TEXT = {
    "model": "poet",
    "text": "春",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    "timing": {"queue_s": None, "first_token_s": 0.1, "total_s": 0.2},
}
REFUSALS = {status: answer for status, answer in GENERATE["responses"].items() if int(status) >= 400}
PROBLEMS = [
    (int(status), name, example["value"])
    for status, answer in REFUSALS.items()
    for name, example in answer["content"]["application/problem+json"]["examples"].items()
]


def validate(instance: object, schema: dict[str, Any]) -> None:
    """Against a schema of the document, with the document's components in reach."""
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(instance)


async def test_it_is_served(web: Web) -> None:
    document = (await web().get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert document["paths"] == DOCUMENT["paths"]
    assert document["components"] == DOCUMENT["components"]


@pytest.mark.parametrize(
    "path", [path for path, item in DOCUMENT["paths"].items() if "get" in item and "{" not in path]
)
async def test_every_documented_path_answers(web: Web, path: str) -> None:
    gateway = {"callers": "header", "trusted_hops": ["127.0.0.0/8"], "callers_secret": "a secret of the tests"}
    response = await web(**gateway).get(path, headers={"X-Forwarded-User": "alice"})
    assert response.status_code == 200
    content = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    validate(response.json(), content["schema"])
    assert content.get("example", response.json()) == response.json()


def test_every_reference_leads_somewhere() -> None:
    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    for reference in references(DOCUMENT):
        _, kind, name = reference.removeprefix("#/").split("/")
        assert name in DOCUMENT["components"][kind], reference


def test_the_schemas_are_schemas() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def operations() -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: operation
        for item in DOCUMENT["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_operations_have_a_declared_tag_and_links_lead_to_them() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    links = [
        link
        for operation in operations().values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert all(set(operation["tags"]) <= tags for operation in operations().values())
    assert {link["operationId"] for link in links} == {"generation", "cancel"} <= set(operations())


def test_requests_are_closed_and_answers_are_open_to_later_members() -> None:
    closed = {name for name, schema in SCHEMAS.items() if schema.get("additionalProperties") is False}
    asked = {"ChatRequest", "CompletionRequest", "ImagesRequest", "EditRequest"}
    assert closed == {"GenerationRequest", "ModelChoice"} | asked
    validate({"id": "a", "kind": "text", "of_the_future": 1, **TEXT}, {"$ref": "#/components/schemas/Result"})


def test_unions_are_told_apart_by_a_member_that_is_always_there() -> None:
    unions = {name: schema["discriminator"] for name, schema in SCHEMAS.items() if "discriminator" in schema}
    assert set(unions) == {"Result", "GenerationEvent"}
    for union in unions.values():
        for value, reference in union["mapping"].items():
            schema = SCHEMAS[reference.rpartition("/")[2]]
            assert schema["properties"][union["propertyName"]]["const"] == value
            assert union["propertyName"] in schema["required"]


@pytest.mark.parametrize("event", [{}, {"specversion": "1.0", "id": "1", "source": "/x", "type": "somebody.else"}])
def test_an_event_that_is_refused_does_not_fit_the_schema(event: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        validate(event, {"$ref": "#/components/schemas/GenerationEvent"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("X-Request-Timeout", value) for value in ("", "0", "-1", "soon", "0.5", "10", "2.5")),
        *(("Idempotency-Key", value) for value in ("", '""', '"', "a b", "order-1", '"order-1"', "x" * 255, "x" * 256)),
    ],
)
async def test_a_header_is_taken_where_it_fits_its_schema(web: Web, name: str, value: str) -> None:
    [schema] = [each["schema"] for each in GENERATE["parameters"] if each["name"] == name]
    answer = await web().post("/generate", json={"prompt": "x"}, headers={name: value, "Prefer": "respond-async"})
    assert (answer.status_code != 400) == Draft202012Validator(schema).is_valid(value) or value == '"', answer.text


@pytest.mark.parametrize("example", REQUESTS["examples"].values(), ids=REQUESTS["examples"].keys())
async def test_request_examples_work(web: Web, events: Events, example: dict[str, Any]) -> None:
    GenerationRequest.model_validate(example["value"])
    validate(example["value"], REQUESTS["schema"])
    response = await web().post("/generate", json=example["value"])
    documented = GENERATE["responses"]["200"]["content"]
    if example["value"].get("stream"):
        assert response.headers["content-type"].startswith("text/event-stream")
        validate_events(events(response.text))
    else:
        validate(response.json(), documented["application/json"]["schema"])


def validate_events(found: list[tuple[str, Any]]) -> None:
    assert found[-1][0] in ("result", "error")
    for name, data in found:
        validate({"event": name, "data": data}, {"$ref": "#/components/schemas/ServerSentEvent"})


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_answer_examples_are_true(events: Events, kind: str) -> None:
    documented = GENERATE["responses"]["200"]["content"]
    result = documented["application/json"]["examples"][kind]["value"]
    validate(result, documented["application/json"]["schema"])
    found = events(documented["text/event-stream"]["examples"][kind]["value"])
    validate_events(found)
    assert found[-1][1] == result
    if kind == "text":
        assert result["text"] == "".join(data["text"] for name, data in found if name == "token")


@pytest.mark.parametrize("form", ["image/png", "image/jpeg", "image/webp", "multipart/mixed"])
async def test_the_other_forms_are_what_is_answered(web: Web, form: str) -> None:
    client = web(caller_requests_per_minute=60)
    response = await client.post("/generate", json={"prompt": "x"}, headers={"Accept": form})
    documented = GENERATE["responses"]["200"]
    assert response.headers["content-type"].partition(";")[0] == form
    assert form in documented["content"]
    always = {"content-type", "content-length", "cache-control", "x-content-type-options"}
    expected = {*always, *map(str.lower, documented["headers"])}
    of_a_part = {"etag", "content-disposition", "x-seed"} if form == "multipart/mixed" else set()
    assert set(response.headers) == expected - of_a_part


@pytest.mark.parametrize(("status", "name", "example"), PROBLEMS)
def test_problem_examples_are_problems(status: int, name: str, example: dict[str, Any]) -> None:
    problem = Problem.model_validate(example)
    assert (problem.status, problem.type) == (status, f"urn:shangcai:problem:{name}")
    validate(example, REFUSALS[str(status)]["content"]["application/problem+json"]["schema"])


@pytest.mark.parametrize(
    ("kind", "content", "headers"),
    [
        ("malformed-body", b"{", {"Content-Type": "application/json"}),
        ("invalid-field", b'{"prompt": "x", "max_tokens": 0}', {"Content-Type": "application/json"}),
        ("unsupported-media-type", b"x", {"Content-Type": "text/plain"}),
        ("not-acceptable", b'{"prompt": "x"}', {"Content-Type": "application/json", "Accept": "text/html"}),
        ("body-too-large", b" " * 1_048_577, {}),
    ],
)
async def test_problem_examples_are_what_is_answered(
    web: Web, kind: str, content: bytes, headers: dict[str, str]
) -> None:
    """Of a server without pictures, whose bodies are larger."""
    client = web(models={"poet": "http://poet.test"})
    documented = next(example for _, name, example in PROBLEMS if name == kind)
    name = documented["instance"].rpartition(":")[2]
    response = await client.post("/generate", content=content, headers=headers | {"X-Request-Id": name})
    assert response.json() == documented


def test_the_sampling_limits_are_documented() -> None:
    stop = DOCUMENT["components"]["schemas"]["GenerationRequest"]["properties"]["stop"]
    assert {"type": "array", "maxItems": 4, "items": {"type": "string", "minLength": 1, "maxLength": 256}} in stop[
        "anyOf"
    ]


def test_a_stream_may_say_that_nothing_is_heard_yet() -> None:
    states = DOCUMENT["components"]["schemas"]["StatusEvent"]["properties"]["state"]["enum"]
    assert set(states) == {"pending", "asleep", "waking", "queued", "running"}
    assert "pending" in DOCUMENT["components"]["schemas"]["ModelStatus"]["properties"]["state"]["enum"]
