"""Callers with tokens of an issuer, and to whom the pod's own token is shown when its keys are fetched."""

from __future__ import annotations

import asyncio
import base64
import datetime
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from web.callers import issuer_keys, service_account
from web.callers.issuer_keys import IssuerKeys
from web.callers.service_account import trusted_authorities

Web = Callable[..., httpx2.AsyncClient]
Slug = Callable[[httpx2.Response], str]

AUDIENCE = "web in the tests"
SECRET = "a secret of the tests"
LIMIT = 10.0  # seconds after which a test that waits has failed
KEY = generate_private_key(SECP256R1())
POD_TOKEN = "the token of the pod"
API_SERVER = "https://kubernetes.default.svc"


class Issuer:
    """Publishes its keys at another host, or where Kubernetes does, and keeps what it was sent."""

    def __init__(self, address: str, keys_address: str) -> None:
        self.address, self.keys_address = address, keys_address
        self.seen: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        if request.url.path.endswith("/.well-known/openid-configuration"):
            return httpx2.Response(200, json={"issuer": self.address, "jwks_uri": self.keys_address})
        key = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "first"}
        return httpx2.Response(200, json={"keys": [key]})

    @property
    def shown(self) -> dict[str, str | None]:
        """The Authorization header that each host got."""
        return {request.url.host: request.headers.get("authorization") for request in self.seen}


def token(address: str, key: EllipticCurvePrivateKey = KEY, **changes: Any) -> str:
    claims = {"iss": address, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 60, **changes}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "first"})


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a service account's credentials."""
    (tmp_path / "token").write_text(POD_TOKEN + "\n")
    monkeypatch.setattr(service_account, "ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return tmp_path


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize(
    "address",
    [
        "https://issuer.test",
        "https://kubernetes.default.svc.evil.test",
        "https://kubernetes.default.svc:8443",
        "http://kubernetes.default.svc",
        "https://10.96.0.1:6443",
        "https://issuer.test/kubernetes.default.svc",
    ],
)
async def test_an_issuer_elsewhere_never_gets_the_pods_token(address: str) -> None:
    issuer = Issuer(address, "https://keys.test/keys")
    keys = IssuerKeys(address, httpx2.MockTransport(issuer))
    assert await keys.claims(token(address), AUDIENCE)
    assert set(issuer.shown.values()) == {None}
    assert "keys.test" in issuer.shown


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("address", [API_SERVER, "https://10.96.0.1", "https://10.96.0.1:443/"])
async def test_the_api_server_gets_it_and_the_host_of_its_jwks_uri_does_not(address: str) -> None:
    """It names an address for the world outside, or whatever --service-account-jwks-uri says."""
    issuer = Issuer(API_SERVER, "https://172.18.0.2:6443/openid/v1/jwks")
    keys = IssuerKeys(address, httpx2.MockTransport(issuer))
    assert await keys.claims(token(API_SERVER), AUDIENCE)
    assert issuer.shown == {httpx2.URL(address).host: f"Bearer {POD_TOKEN}"}
    assert [request.url.path for request in issuer.seen] == ["/.well-known/openid-configuration", "/openid/v1/jwks"]


async def test_outside_of_a_pod_there_is_nothing_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_account, "ACCOUNT", tmp_path)
    issuer = Issuer(API_SERVER, "https://keys.test/keys")
    assert await IssuerKeys(API_SERVER, httpx2.MockTransport(issuer)).claims(token(API_SERVER), AUDIENCE)
    assert set(issuer.shown.values()) == {None}


def test_public_authorities_stay_trusted_beside_the_clusters(pod: Path) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster")])
    now = datetime.datetime.now(datetime.UTC)
    authority = (
        x509.CertificateBuilder(name, name, KEY.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    public = trusted_authorities().cert_store_stats()["x509_ca"]
    (pod / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    assert trusted_authorities().cert_store_stats()["x509_ca"] == public + 1 > 10


# Callers with tokens


@pytest.fixture
def tokened(web: Web) -> Callable[..., httpx2.AsyncClient]:
    """A client of an application that wants tokens of the issuer."""

    def make(**settings: Any) -> httpx2.AsyncClient:
        issuer = Issuer("https://issuer.test", "https://issuer.test/keys")
        return web(
            issuer,
            callers="jwt",
            callers_secret="a secret of the tests",
            callers_issuer=issuer.address,
            callers_audience=AUDIENCE,
            **settings,
        )

    return make


@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["without an end", "a byte at a time"])
async def test_an_issuer_that_never_stops_is_given_up(
    web: Web, slug: Slug, monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    monkeypatch.setattr(issuer_keys, "FETCH_SECONDS", 0.3 if pause else LIMIT)

    async def drip() -> AsyncGenerator[bytes]:
        while True:
            yield b" " * (1 if pause else 65_536)
            await asyncio.sleep(pause)

    settings = {"callers_issuer": "https://issuer.test", "callers_audience": AUDIENCE, "callers_secret": SECRET}
    client = web(lambda _: httpx2.Response(200, content=drip()), callers="jwt", **settings)
    async with asyncio.timeout(LIMIT):
        assert slug(await status(client)) == "unavailable"


def nested() -> str:
    """A token whose header is as deep as a header of HTTP has room for."""
    header = base64.urlsafe_b64encode(b"[" * 9_000).decode().rstrip("=")
    return f"{header}.e30.AAAA"


@pytest.mark.parametrize("forged", [nested(), "a.b.c", "..", ".", "é.é.é", '{"alg":"ES256"}..'])
async def test_what_is_no_token_is_refused(
    tokened: Web, slug: Slug, caplog: pytest.LogCaptureFixture, forged: str
) -> None:
    headers = {"Authorization": f"Bearer {forged}".encode()}
    answer = await tokened().get("/status", headers=headers)  # type: ignore[arg-type]
    assert slug(answer) == "unauthorized"
    assert "Traceback" not in caplog.text


async def status(client: httpx2.AsyncClient, **changes: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token('https://issuer.test', **changes)}"}
    return await client.get("/status", headers=headers)


async def test_a_token_names_its_caller(tokened: Web) -> None:
    client = tokened()
    assert (await status(client)).status_code == 200
    assert (await status(client, sub="system:serviceaccount:team:robot")).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "somebody else"},
        {"exp": time.time() - 60},
        {"iss": "https://elsewhere.test"},
        {"key": generate_private_key(SECP256R1())},
        {"sub": None},
        {"sub": "alice and bob"},
        {"sub": "default"},
        {"sub": "events"},
        {"sub": "a" * 129},
    ],
)
async def test_any_other_token_names_nobody(tokened: Web, slug: Slug, changes: dict[str, Any]) -> None:
    answer = await status(tokened(), **changes)
    assert slug(answer) == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("email", "code"), [("alice@example.com", 200), (["alice@example.com"], 401), (7, 401)])
async def test_another_claim_may_be_the_name(tokened: Web, email: Any, code: int) -> None:
    client = tokened(callers_claim="email")
    assert (await status(client, email=email)).status_code == code
    assert (await status(client)).status_code == 401


async def test_without_the_issuer_it_is_to_be_tried_again(web: Web, slug: Slug) -> None:
    settings = {"callers_issuer": "https://issuer.test", "callers_audience": AUDIENCE}
    answer = await status(
        web(lambda _: httpx2.Response(500), callers="jwt", callers_secret="a secret of the tests", **settings)
    )
    assert slug(answer) == "unavailable"
