"""One attempt to deliver: a POST to an address that was checked, and what has become of it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

import anyio
import httpx2

from web.webhooks.addresses import Resolver, is_public
from web.webhooks.policy import Target, WebhookPolicy

Resolve = Callable[[str, int], Awaitable[Sequence[IPv4Address | IPv6Address]]]
"""All addresses of a host. Raises an OSError where there is none."""

ANSWER_BYTES = 16_384
"""Most bytes that are read of an answer's body, which says nothing: so that its sender need not see a broken pipe."""

ANSWER_SECONDS = 1.0
"""Longest that is waited for them."""

MOST_ADDRESSES = 3
"""Most addresses of a name that are tried, where no connection can be made."""


class NotAnswered(Exception):
    """There is no answer; the message says why, for the caller."""


class WebhookSender:
    """A name is looked up once for each attempt, and the connection goes to an address that was found, each of which
    must be public: a name server that changes its mind leads nowhere else. Redirects are not followed. `resolve` and
    `trust` take the place of the network and of the authorities in tests."""

    def __init__(
        self,
        policy: WebhookPolicy,
        seconds: float,
        resolve: Resolve | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._seconds = seconds
        self._resolve = resolve or Resolver()
        self._trust = trust or httpx2.create_ssl_context(trust_env=False)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        """The status of the answer. Raises NotAnswered where there is none within the time, or the address is not
        allowed."""
        try:
            target = self._policy.target(url)
        except ValueError as error:
            raise NotAnswered(f"not allowed: it {error}") from None
        with anyio.move_on_after(self._seconds):
            return await self._post(target, headers, body)
        raise NotAnswered(f"no answer within {self._seconds:g} s")

    async def _post(self, target: Target, headers: dict[str, str], body: bytes) -> int:
        addresses = [target.host] if target.is_address else await self._public_addresses(target)
        why = "no connection"
        tried = addresses[:MOST_ADDRESSES]
        for address in tried:
            try:
                return await self._exchange(target, address, self._seconds / len(tried), headers, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                if _is_about_certificates(error):
                    why = "its certificate is not good"
            except httpx2.HTTPError:
                raise NotAnswered("the connection broke") from None
        raise NotAnswered(why)

    async def _public_addresses(self, target: Target) -> list[str]:
        try:
            found = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError):
            raise NotAnswered("its name is not found") from None
        if not found or not all(map(is_public, found)):
            raise NotAnswered("not allowed: its name leads to an address that is not public")
        return [str(address) for address in found]

    async def _exchange(
        self, target: Target, address: str, connect_seconds: float, headers: dict[str, str], body: bytes
    ) -> int:
        # A client of its own, so that no connection that was made for one host is used for another one behind the
        # same address.
        timeout = httpx2.Timeout(self._seconds, connect=connect_seconds)
        async with httpx2.AsyncClient(verify=self._trust, timeout=timeout, trust_env=False) as client:
            request = client.build_request(
                "POST",
                target.url.copy_with(host=address),
                content=body,
                headers={
                    "Host": target.url.netloc.decode(),
                    "User-Agent": "shangcai-web",
                    "Accept-Encoding": "identity",
                    **headers,
                },
                extensions={} if target.is_address else {"sni_hostname": target.host},
            )
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                await _read_a_little(response)
            finally:
                await response.aclose()
            return response.status_code


async def _read_a_little(response: httpx2.Response) -> None:
    size = 0
    with anyio.move_on_after(ANSWER_SECONDS):
        try:
            async for part in response.aiter_raw():
                size += len(part)
                if size >= ANSWER_BYTES:
                    return
        except httpx2.HTTPError:
            return  # the status has come, and that is what counts


def _is_about_certificates(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
