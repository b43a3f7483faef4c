"""Which webhooks are taken, and what they are signed with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import httpx2

from contract import invalid_field
from web.callers.caller import DEFAULT_CALLER
from web.setting_values import allowed_host, signing_key
from web.webhooks.addresses import is_public

if TYPE_CHECKING:  # see web.rest.upstream
    from web.callers.key_file import KeyFile
    from web.settings import Settings

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Target:
    """An address that is allowed, in its parts: what was checked is what is connected to."""

    url: httpx2.URL
    host: str
    """Name, of other letters than ASCII's in punycode, or IP address; in lower case and without brackets."""
    port: int
    is_address: bool
    """Whether the host is an IP address, and so needs no name server."""


class WebhookPolicy:
    """`key_file` has the secrets of callers; where nobody is told apart, the settings have one."""

    def __init__(self, settings: Settings, key_file: KeyFile | None = None) -> None:
        self._hosts = [allowed_host(text) for text in settings.webhook_hosts]
        self._secret = settings.webhook_secret
        self._key_file = key_file

    def check(self, url: str, caller: str) -> None:
        """Raise INVALID_FIELD where the address is not allowed, or there is nothing to sign with for this caller."""
        if not self._hosts:
            raise invalid_field("webhook", "is not taken here: WEBHOOK_HOSTS, the hosts that it may be on, is empty")
        try:
            self.target(url)
        except ValueError as error:
            raise invalid_field("webhook", str(error)) from None
        if self.signing_key(caller) is None:
            raise invalid_field("webhook", "needs a webhook_secret of the caller in CALLERS_FILE, to be signed with")

    def target(self, url: str) -> Target:
        """The parts of an address. Raises a ValueError that says what is allowed."""
        if not re.fullmatch(r"[!-\[\]-~]+", url):
            raise ValueError("must be a URL of visible ASCII characters without a backslash")
        if "@" in re.split("[/?#]", url.partition("//")[2])[0]:
            raise ValueError("must not hold a user name or password")
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            parsed = httpx2.URL("")
        default_port = _PORTS.get(parsed.scheme)
        if default_port is None or not parsed.raw_host or "#" in url:
            raise ValueError("must be a URL such as https://example.com/path, without a fragment")
        host = parsed.raw_host.decode().lower()
        port = default_port if parsed.port is None else parsed.port
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        else:
            host = str(address)
        if not any(entry.allows(host, port, default_port) for entry in self._hosts):
            raise ValueError("must be on a host of WEBHOOK_HOSTS, which whoever runs this server sets")
        if parsed.scheme != "https" and (address is None or is_public(address)):
            raise ValueError("must begin with https://: plain HTTP is for private addresses only")
        return Target(parsed, host, port, address is not None)

    def signing_key(self, caller: str) -> bytes | None:
        """What webhooks of this caller are signed with, if there is anything."""
        if caller != DEFAULT_CALLER:
            return None if self._key_file is None else self._key_file.signing_key(caller)
        return None if self._secret is None else signing_key(self._secret.get_secret_value())
