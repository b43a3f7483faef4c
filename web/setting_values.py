"""Values of settings: what they may be, checked at the start and not at the first request."""

from __future__ import annotations

import base64
import os
import re
import ssl
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Annotated, get_args

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    TypeAdapter,
)
from pydantic_core import SchemaError, SchemaValidator, core_schema

from contract import Kind
from contract.models.description import ModelDescription
from wire.cloudevents import overrides
from wire.shared_store.address import parse_address

_HTTP_URL = TypeAdapter(AnyHttpUrl)

MATCHED_CHARS = 2_000
"""Of a prompt, in which a model's `match` is looked for."""


def _base_url(text: str) -> str:
    url = _HTTP_URL.validate_python(text)
    if url.query is not None or url.fragment is not None:
        raise ValueError("must end with its host or path: paths are appended to it")
    if url.username is not None or url.password is not None:
        raise ValueError("must not hold a user name or password: it is written to the log")
    return str(url).rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]


def _bearer_token(secret: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]+", secret.get_secret_value()):
        raise ValueError("must be visible ASCII characters without spaces or line ends: it is sent in a header")
    return secret


BearerToken = Annotated[SecretStr, AfterValidator(_bearer_token)]


def _matcher(expression: str) -> SchemaValidator:
    """Finds it in a text, case ignored, in a time linear in the text's length, which Python's re does not promise: this
    is Rust's regex, which pydantic brings. Raises a SchemaError where it is none, or compiles to more than 10 MB."""
    return SchemaValidator(core_schema.str_schema(pattern=f"(?i){expression}", regex_engine="rust-regex"))


def _expression(text: str) -> str:
    try:
        _matcher(text)
    except SchemaError as error:
        why = str(error).splitlines()[-1].rpartition("rror: ")[2]
        raise ValueError(f"must be a regular expression in the syntax of Rust's regex: {why}") from None
    return text


Expression = Annotated[str, Field(min_length=1), AfterValidator(_expression)]


class ServedModel(BaseModel):
    """Where a model is served, and what it makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: BaseUrl | None = None
    kind: Kind = "text"
    path: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = "/openai/v1"
    """Between the URL and OpenAI's routes: KServe's is the default, vLLM's is `/v1`."""
    api_key: BearerToken | None = None
    upstream_model: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """The name that its server knows it by, where that is another one."""
    match: Expression | None = None
    """In which prompts of requests that name no model: see web.api.model_choice."""
    description: ModelDescription | None = None
    """What is stated of it, in place of what it says of itself."""

    @property
    def address(self) -> str:
        """The base URL, which every model has where `dispatch` is rest."""
        assert self.url is not None
        return self.url

    def matches(self, prompt: str) -> bool:
        """Whether its `match` is found at the beginning of the prompt."""
        return self.match is not None and self._matcher.isinstance_python(prompt[:MATCHED_CHARS])

    @cached_property
    def _matcher(self) -> SchemaValidator:
        assert self.match is not None
        return _matcher(self.match)


def _served_model(value: object) -> object:
    """A plain URL is a text model's."""
    if isinstance(value, str):
        return {"url": value}
    if not isinstance(value, dict | ServedModel):
        kinds = " or ".join(f'"{kind}"' for kind in get_args(Kind))
        raise ValueError(
            f'must be a base URL, or {{"url": a base URL, "kind": {kinds}}}, with "path", "api_key" and '
            '"upstream_model" where its server needs them, "match" and "description"'
        )
    return value


def in_pod() -> bool:
    """Kubernetes sets the variable there."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def none_if_empty(value: object) -> object:
    """For what other objects of a deployment give: an empty variable is one that they have not given."""
    return None if value == "" else value


def _checked_overrides(text: str) -> str:
    overrides(text)
    return text


def _authorities(text: str) -> str:
    try:
        trust(text)
    except ssl.SSLError:
        raise ValueError("must be certificates in PEM") from None
    return text


def trust(authorities: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authorities)
    return context


@dataclass(frozen=True)
class AllowedHost:
    """An entry of webhook_hosts. With `subdomains` it is for all names below `host`, but not for itself."""

    host: str
    port: int | None
    subdomains: bool

    def allows(self, host: str, port: int, default_port: int) -> bool:
        """Whether it is for a host, which is in lower case. Where it names no port it is for the scheme's own."""
        found = host.endswith(f".{self.host}") if self.subdomains else host == self.host
        return found and port == (self.port or default_port)


def allowed_host(text: str) -> AllowedHost:
    """Raises a ValueError that says what an entry looks like."""
    form = (
        "must be host, host:port, or *.example.com for all names below it; an IPv6 address stands in brackets, a name "
        "with other letters as punycode, such as xn--mnchen-3ya.example"
    )
    entry = re.fullmatch(r"(\*\.)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", text)
    if entry is None:
        raise ValueError(form)
    subdomains, host, port = bool(entry[1]), entry[2].lower(), int(entry[3]) if entry[3] else None
    if (port is not None and not 1 <= port <= 65535) or (subdomains and not re.fullmatch(r"[^.]+(\.[^.]+)+", host)):
        raise ValueError(form)
    try:
        host = str(ip_address(host.strip("[]")))
    except ValueError:
        if host.startswith("["):
            raise ValueError(form) from None
    else:
        if subdomains:
            raise ValueError(form)
    return AllowedHost(host, port, subdomains)


def _checked_host(text: str) -> str:
    allowed_host(text)
    return text


def signing_key(secret: str) -> bytes:
    """The key in a secret of the Standard Webhooks specification. Raises a ValueError, which does not show it."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and then 24 to 64 random bytes in base64")
    return key


def _signing_secret(secret: SecretStr) -> SecretStr:
    signing_key(secret.get_secret_value())
    return secret


def _store_url(url: SecretStr) -> SecretStr:
    parse_address(url.get_secret_value())
    return url


RootPath = Annotated[str, Field(pattern="^(/[A-Za-z0-9._~-]+)*$")]
ModelName = Annotated[str, Field(min_length=1, max_length=128)]
ModelAddress = Annotated[ServedModel, BeforeValidator(_served_model)]
Overrides = Annotated[str, AfterValidator(_checked_overrides)]
Authorities = Annotated[str, AfterValidator(_authorities)]
WebhookHost = Annotated[str, AfterValidator(_checked_host)]
SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]
StoreUrl = Annotated[SecretStr, AfterValidator(_store_url)]
