"""One attempt: where it goes, and what becomes of it."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ssl
import warnings
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from tests.support.waiting import SECONDS
from tests.support.web.webhook_receiver import SECRET, Receiver, answer, hang_up, silence
from web.settings import Settings
from web.webhooks import sender as module
from web.webhooks.policy import WebhookPolicy
from web.webhooks.sender import ANSWER_BYTES, NotAnswered, WebhookSender

Receive = Callable[..., Awaitable[Receiver]]

NAME = "hooks.example.com"
PUNYCODE = "xn--mnchen-3ya.example"


def sender_of(
    *hosts: str, seconds: float = SECONDS, finds: list[str] | None = None, trust: Path | None = None
) -> WebhookSender:
    """With a name server that finds these addresses, one after the other for each time that it is asked."""
    settings = Settings(models={"poet": "http://poet.test"}, webhook_hosts=list(hosts), webhook_secret=SECRET)
    left = list(finds or [])

    async def resolve(_host: str, _port: int) -> list[IPv4Address | IPv6Address]:
        if not left:
            raise OSError("unknown")
        return [ip_address(address) for address in left.pop(0).split()]

    context = ssl.create_default_context(cafile=str(trust)) if trust else None
    return WebhookSender(WebhookPolicy(settings), seconds, resolve, context)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of NAME, signed by itself, with its key in the same file."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME), x509.DNSName(PUNYCODE)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "hooks.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + secret)
    return path


def served(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_it_is_posted_as_it_is(receiver: Receive) -> None:
    there = await receiver()
    assert await sender_of(there.host).post(there.url, {"webhook-id": "a"}, b"body") == 204
    [received] = there.received
    assert received.line == "POST /hook?of=test HTTP/1.1"
    assert received.body == b"body"
    assert received.headers["webhook-id"] == "a"
    assert received.headers["host"] == there.host


@pytest.mark.parametrize("status", [200, 301, 307, 308, 404, 410, 500])
async def test_redirects_are_not_followed(receiver: Receive, status: int) -> None:
    private = await receiver()
    there = await receiver(answer(status, Location=private.url))
    assert await sender_of(there.host, private.host).post(there.url, {}, b"") == status
    assert private.received == []


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver of these tests has no other address."""
    monkeypatch.setattr(module, "is_public", lambda address: str(address) == "127.0.0.1")


async def test_a_name_in_punycode_is_its_certificates(
    receiver: Receive, certificate: Path, loopback_is_public: None
) -> None:
    there = await receiver(trust=served(certificate))
    sender = sender_of(f"{PUNYCODE}:{there.port}", finds=["127.0.0.1"], trust=certificate)
    assert await sender.post(f"https://{PUNYCODE}:{there.port}/", {}, b"") == 204
    assert there.received[0].headers["host"] == f"{PUNYCODE}:{there.port}"


async def test_the_certificate_is_that_of_the_name(
    receiver: Receive, certificate: Path, loopback_is_public: None
) -> None:
    there = await receiver(trust=served(certificate))
    sender = sender_of(f"*.example.com:{there.port}", finds=["127.0.0.1"] * 2, trust=certificate)
    assert await sender.post(f"https://{NAME}:{there.port}/x", {}, b"body") == 204
    assert there.received[0].headers["host"] == f"{NAME}:{there.port}"
    with pytest.raises(NotAnswered, match="its certificate is not good"):
        await sender.post(f"https://other.example.com:{there.port}/x", {}, b"body")
    with pytest.raises(NotAnswered, match="its certificate is not good"):
        await sender_of(f"127.0.0.1:{there.port}", trust=certificate).post(f"https://127.0.0.1:{there.port}", {}, b"")


async def test_a_name_server_that_changes_its_mind_leads_nowhere_else(
    receiver: Receive, certificate: Path, loopback_is_public: None
) -> None:
    """The first answer is what is checked and connected to; there is no second question."""
    there = await receiver(trust=served(certificate))
    sender = sender_of(f"{NAME}:{there.port}", finds=["127.0.0.1", "10.0.0.1", "127.0.0.1 10.0.0.1"], trust=certificate)
    url = f"https://{NAME}:{there.port}/"
    assert await sender.post(url, {}, b"") == 204
    for _ in range(2):
        with pytest.raises(NotAnswered, match="an address that is not public"):
            await sender.post(url, {}, b"")
    assert len(there.received) == 1


@pytest.mark.parametrize("found", ["127.0.0.1", "8.8.8.8 127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"])
async def test_names_that_lead_to_private_addresses(receiver: Receive, found: str) -> None:
    there = await receiver()
    with pytest.raises(NotAnswered, match="an address that is not public"):
        await sender_of(f"{NAME}:{there.port}", finds=[found]).post(f"https://{NAME}:{there.port}/", {}, b"")
    assert there.received == []


async def test_the_next_address_is_tried_where_nobody_listens(
    receiver: Receive, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_public", lambda _: True)
    there = await receiver(trust=served(certificate))
    sender = sender_of(f"{NAME}:{there.port}", finds=["127.0.0.2 ::1 127.0.0.1"], trust=certificate)
    assert await sender.post(f"https://{NAME}:{there.port}/", {}, b"") == 204


async def test_what_is_not_allowed_any_more(receiver: Receive) -> None:
    there = await receiver()
    with pytest.raises(NotAnswered, match="not allowed: it must be on a host of WEBHOOK_HOSTS"):
        await sender_of("hooks.example.com").post(there.url, {}, b"")
    assert there.received == []


async def test_a_name_that_is_not_found() -> None:
    with pytest.raises(NotAnswered, match="its name is not found"):
        await sender_of(NAME).post(f"https://{NAME}/", {}, b"")


async def test_nobody_listens(closed_port: int) -> None:
    with pytest.raises(NotAnswered, match="no connection"):
        await sender_of(f"127.0.0.1:{closed_port}").post(f"http://127.0.0.1:{closed_port}/", {}, b"")


async def test_a_receiver_that_hangs_up(receiver: Receive) -> None:
    there = await receiver(hang_up)
    with pytest.raises(NotAnswered, match="the connection broke"):
        await sender_of(there.host).post(there.url, {}, b"")


async def test_a_receiver_that_is_silent(receiver: Receive) -> None:
    there = await receiver(silence)
    with pytest.raises(NotAnswered, match=r"no answer within 0\.2 s"):
        await sender_of(there.host, seconds=0.2).post(there.url, {}, b"")


@pytest.fixture
def collected() -> Iterator[None]:
    """httpcore leaves a connection whose TLS does not begin in time to the garbage collector."""
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@pytest.mark.usefixtures("collected")
async def test_an_address_alone_has_all_of_the_time(receiver: Receive) -> None:
    """Also until there is a connection, as here, where nobody begins with TLS."""
    there = await receiver(silence)
    with pytest.raises(NotAnswered, match=r"no answer within 0\.2 s"):
        await sender_of(there.host, seconds=0.2).post(f"https://{there.host}/", {}, b"")


@pytest.mark.usefixtures("collected", "loopback_is_public")
async def test_silence_says_nothing_of_a_certificate(receiver: Receive) -> None:
    there = await receiver(silence)
    sender = sender_of(f"{NAME}:{there.port}", seconds=0.2, finds=["127.0.0.1 127.0.0.1"])
    with pytest.raises(NotAnswered, match=r"no connection|no answer within"):
        await sender.post(f"https://{NAME}:{there.port}/", {}, b"")


async def test_a_receiver_that_trickles_its_header(receiver: Receive) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Filler: x\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    there = await receiver(trickle)
    with pytest.raises(NotAnswered, match="no answer within"):
        await sender_of(there.host, seconds=0.3).post(there.url, {}, b"")


async def test_a_body_is_read_in_part_and_decides_nothing(receiver: Receive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
        while True:
            writer.write(65_536 * b"x")
            await writer.drain()
            sent += 65_536

    async def cut_off(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        await writer.drain()

    async def never_ends(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        await silence(writer)

    for way in (endless, cut_off, never_ends):
        there = await receiver(way)
        assert await sender_of(there.host).post(there.url, {}, b"") == 200
    assert ANSWER_BYTES < 65_536
    assert sent < 33_554_432  # what sockets hold
