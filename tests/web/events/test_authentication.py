"""Only senders with a token or the secret may deliver events."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from contract.cloudevents import COMPLETED, CloudEvent
from web.callers import issuer_keys
from wire.cloudevents import write_event

Web = Callable[..., httpx2.AsyncClient]
Slug = Callable[[httpx2.Response], str]

ISSUER = "https://issuer.test"
AUDIENCE = "web in the tests"
SECRET = "a secret of the tests"
KEY = generate_private_key(public_exponent=65_537, key_size=2_048)
OTHER = generate_private_key(public_exponent=65_537, key_size=2_048)


class Issuer:
    """Publishes its keys, and counts how often it was asked for them."""

    def __init__(self) -> None:
        self.keys: dict[str, RSAPrivateKey] = {"first": KEY}
        self.asked = 0
        self.down = False
        self.nonsense: dict[str, Any] = {}

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0.01)
        if self.down:
            return httpx2.Response(500)
        if request.url.path in self.nonsense:
            return httpx2.Response(200, json=self.nonsense[request.url.path])
        if request.url.path == "/.well-known/openid-configuration":
            return httpx2.Response(200, json={"issuer": ISSUER, "jwks_uri": ISSUER + "/keys"})
        self.asked += 1
        algorithm = jwt.algorithms.RSAAlgorithm
        keys = [algorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid} for kid, key in self.keys.items()]
        return httpx2.Response(200, json={"keys": keys})


def token(key: Any = KEY, *, kid: str = "first", algorithm: str = "RS256", **changes: Any) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "broker", "exp": time.time() + 60, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})


async def deliver(client: httpx2.AsyncClient, authorization: str | None = None) -> httpx2.Response:
    event = CloudEvent(id="1", source="urn:test", type=COMPLETED, subject="nobody's job")
    headers, body = write_event(event)
    if authorization is not None:
        headers["Authorization"] = authorization
    return await client.post("/events", headers=headers, content=body)


@pytest.fixture(autouse=True)
def on_a_single_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def checked(web: Web, issuer: Issuer) -> httpx2.AsyncClient:
    """A web that asks for tokens of the issuer."""
    return web(issuer, events_audience=AUDIENCE, events_issuer=ISSUER)


async def test_on_a_single_machine_everybody_may(web: Web) -> None:
    assert (await deliver(web())).status_code == 204


@pytest.mark.usefixtures("on_a_cluster")
async def test_on_a_cluster_nobody_may_until_somebody_is_named(web: Web, slug: Slug) -> None:
    answer = await deliver(web(callers="off"))
    assert slug(answer) == "unauthorized"
    assert "events_audience" in answer.json()["detail"]
    assert (await deliver(web(callers="off", events_open=True))).status_code == 204


async def test_open_is_not_open_where_a_secret_is_set(web: Web) -> None:
    assert (await deliver(web(events_open=True, events_secret=SECRET))).status_code == 401


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"broker:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {SECRET}", 204),
        (f"bearer  {SECRET}", 204),
        (basic(SECRET), 204),
        (None, 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        (f"Digest {SECRET}", 401),
        (basic("wrong"), 401),
        (basic(""), 401),
        ("Basic !", 401),
        ("Basic /w==", 401),
    ],
)
async def test_the_secret(web: Web, authorization: str | None, status: int) -> None:
    answer = await deliver(web(events_secret=SECRET), authorization)
    assert answer.status_code == status
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert SECRET not in answer.text


async def test_a_token_of_the_issuer_for_this_audience(checked: httpx2.AsyncClient, issuer: Issuer) -> None:
    for _ in range(3):
        assert (await deliver(checked, f"Bearer {token()}")).status_code == 204
    assert issuer.asked == 1, "keys are kept"


@pytest.mark.parametrize(
    ("subject", "status"),
    [
        ("system:serviceaccount:shangcai:trigger", 204),
        ("system:serviceaccount:other:trigger", 401),
        ("system:serviceaccount:shangcai-too:trigger", 401),
        ("broker", 204),
        (None, 401),
    ],
)
async def test_only_tokens_of_named_subjects(web: Web, issuer: Issuer, subject: str | None, status: int) -> None:
    client = web(
        issuer,
        events_audience=AUDIENCE,
        events_issuer=ISSUER,
        events_subjects=["system:serviceaccount:shangcai:*", "broker"],
    )
    assert (await deliver(client, f"Bearer {token(sub=subject)}")).status_code == status


def unsigned() -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60}
    return jwt.encode(claims, "", algorithm="none", headers={"kid": "first"})


def signed_with_the_public_key() -> str:
    """The old trick: HMAC with what everybody knows."""
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head, body, _ = token().split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"first"}').rstrip(b"=").decode()
    signature = hmac.digest(public, f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "forged",
    [
        lambda: token(aud="somebody else"),
        lambda: token(aud=None),
        lambda: token(iss="https://elsewhere.test"),
        lambda: token(exp=time.time() - 60),
        lambda: token(exp=None),
        lambda: token(OTHER),
        lambda: token(OTHER, kid="unknown"),
        lambda: token()[:-4],
        lambda: "no token at all",
        unsigned,
        signed_with_the_public_key,
    ],
)
async def test_anything_else_is_refused(checked: httpx2.AsyncClient, slug: Slug, forged: Callable[[], str]) -> None:
    assert slug(await deliver(checked, f"Bearer {forged()}")) == "unauthorized"


async def test_a_new_key_is_looked_for_but_not_too_often(
    checked: httpx2.AsyncClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await deliver(checked, f"Bearer {token()}")).status_code == 204
    issuer.keys = {"second": OTHER}
    fresh = f"Bearer {token(OTHER, kid='second')}"
    assert (await deliver(checked, fresh)).status_code == 401, "it was asked a moment ago"
    assert issuer.asked == 1
    monkeypatch.setattr(issuer_keys, "REFETCH_SECONDS", 0.0)
    assert (await deliver(checked, fresh)).status_code == 204
    assert (await deliver(checked, f"Bearer {token()}")).status_code == 401, "the old key is no key any more"


async def test_without_the_issuer_it_is_to_be_tried_again(
    checked: httpx2.AsyncClient, issuer: Issuer, slug: Slug, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.down = True
    answer = await deliver(checked, f"Bearer {token()}")
    assert slug(answer) == "unavailable"
    issuer.down = False
    monkeypatch.setattr(issuer_keys, "REFETCH_SECONDS", 0.0)
    assert (await deliver(checked, f"Bearer {token()}")).status_code == 204
    issuer.down = True
    assert (await deliver(checked, f"Bearer {token()}")).status_code == 204, "keys that are known go on being good"


async def test_nobody_is_refused_while_the_keys_are_being_fetched(checked: httpx2.AsyncClient, issuer: Issuer) -> None:
    """A broker does not deliver again what was refused."""
    answers = await asyncio.gather(*(deliver(checked, f"Bearer {token()}") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {204}
    assert issuer.asked == 1


async def test_as_long_as_there_are_no_keys_everything_is_to_be_tried_again(
    checked: httpx2.AsyncClient, issuer: Issuer
) -> None:
    issuer.down = True
    for _ in range(3):
        answer = await deliver(checked, f"Bearer {token()}")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
    assert (await deliver(checked, "Bearer no-token-at-all")).status_code == 401


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys"])
@pytest.mark.parametrize("nonsense", [[], {}, "x", 3, {"keys": []}, {"keys": [{"kty": "?"}]}, {"jwks_uri": 3}])
async def test_an_issuer_that_talks_nonsense_is_as_good_as_none(
    checked: httpx2.AsyncClient, issuer: Issuer, slug: Slug, path: str, nonsense: Any
) -> None:
    issuer.nonsense[path] = nonsense
    assert slug(await deliver(checked, f"Bearer {token()}")) == "unavailable"


async def test_the_secret_goes_beside_tokens(web: Web, issuer: Issuer) -> None:
    client = web(issuer, events_audience=AUDIENCE, events_issuer=ISSUER, events_secret=SECRET)
    assert (await deliver(client, f"Bearer {SECRET}")).status_code == 204
    assert (await deliver(client, f"Bearer {token()}")).status_code == 204
