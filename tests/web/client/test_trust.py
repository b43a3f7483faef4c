"""A sink behind TLS, whose authority only K_CA_CERTS knows."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from starlette.types import ASGIApp

from tests.support.waiting import eventually
from web.app import create_app
from web.settings import Settings

LIMIT = 10.0


class Sink:
    """Takes every event; `heard` holds the request lines."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        self.heard.put_nowait(head.partition(b"\r\n")[0])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of localhost, signed by itself, with its key in the same file."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.fixture
async def sink(certificate: Path) -> AsyncGenerator[tuple[Sink, str]]:
    identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity.load_cert_chain(certificate)
    sink = Sink()
    async with await asyncio.start_server(sink.serve, "localhost", 0, ssl=identity) as server:
        yield sink, f"https://localhost:{server.sockets[0].getsockname()[1]}/default"


def app(sink: str, authority: Path | None = None) -> ASGIApp:
    models: Any = {"poet": {"kind": "text"}}
    authorities = authority.read_text() if authority else None
    return create_app(Settings(models=models, dispatch="events", k_sink=sink, k_ca_certs=authorities, grace_seconds=1))


async def ask(base: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{base}/generate", json={"prompt": "x"}, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202


async def test_the_sinks_own_authority_is_trusted(serve: Any, sink: tuple[Sink, str], certificate: Path) -> None:
    reached, address = sink
    await ask(await serve(app(address, certificate)))
    assert await asyncio.wait_for(reached.heard.get(), LIMIT) == b"POST /default HTTP/1.1"


async def test_it_is_not_trusted_unasked(serve: Any, sink: tuple[Sink, str], caplog: pytest.LogCaptureFixture) -> None:
    reached, address = sink
    await ask(await serve(app(address)))
    await eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
    assert reached.heard.empty()


def test_what_is_no_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="must be certificates in PEM"):
        Settings(models={"poet": "http://poet.test"}, k_ca_certs="nonsense")


def test_an_empty_variable_names_no_authorities() -> None:
    assert Settings(models={"poet": "http://poet.test"}, k_ca_certs="").trust is True
