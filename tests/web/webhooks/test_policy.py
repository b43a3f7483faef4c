"""Which addresses are allowed, and what they are signed with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contract import ProblemError
from tests.support.web.webhook_receiver import OTHER_SECRET, SECRET
from web.callers.caller import DEFAULT_CALLER
from web.callers.key_file import KeyFile, KeyFileError
from web.settings import Settings
from web.webhooks.policy import WebhookPolicy

HOSTS = [
    "hooks.example.com",
    "*.partner.example",
    "api.example.com:8443",
    "127.0.0.1:9000",
    "[fd00::1]:9000",
    "8.8.8.8",
    "xn--mnchen-3ya.example",
    "*.XN--FIQS8S.example",
]


def policy_of(*hosts: str, key_file: KeyFile | None = None, **settings: Any) -> WebhookPolicy:
    settings = {"models": {"poet": "http://poet.test"}, "webhook_secret": SECRET, **settings}
    return WebhookPolicy(Settings(webhook_hosts=list(hosts), **settings), key_file)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://hooks.example.com", "hooks.example.com", 443),
        ("https://HOOKS.example.com:443/a?b=c", "hooks.example.com", 443),
        ("https://a.partner.example/x", "a.partner.example", 443),
        ("https://a.b.partner.example/x", "a.b.partner.example", 443),
        ("https://api.example.com:8443/", "api.example.com", 8443),
        ("http://127.0.0.1:9000/hook", "127.0.0.1", 9000),
        ("https://127.0.0.1:9000/hook", "127.0.0.1", 9000),
        ("http://[fd00::1]:9000/", "fd00::1", 9000),
        ("http://[FD00:0::1]:9000/", "fd00::1", 9000),
        ("https://8.8.8.8/", "8.8.8.8", 443),
        ("https://xn--mnchen-3ya.example/", "xn--mnchen-3ya.example", 443),
        ("https://Hooks.XN--fiqs8s.example/", "hooks.xn--fiqs8s.example", 443),
    ],
)
def test_addresses_that_are_allowed(url: str, host: str, port: int) -> None:
    target = policy_of(*HOSTS).target(url)
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://other.example.com/", "must be on a host of WEBHOOK_HOSTS"),
        ("https://hooks.example.com:8443/", "must be on a host"),
        ("https://hooks.example.com./", "must be on a host"),
        ("https://hooks.example.com.evil.test/", "must be on a host"),
        ("https://partner.example/", "must be on a host"),
        ("https://evilpartner.example/", "must be on a host"),
        ("https://api.example.com/", "must be on a host"),
        ("http://127.0.0.1/", "must be on a host"),
        ("http://127.0.0.1:9001/", "must be on a host"),
        ("http://127.0.0.2:9000/", "must be on a host"),
        ("http://2130706433:9000/", "must be on a host"),
        ("http://127.1:9000/", "must be on a host"),
        ("http://0x7f000001:9000/", "must be on a host"),
        ("http://localhost:9000/", "must be on a host"),
        ("http://[::1]:9000/", "must be on a host"),
        ("http://[::ffff:127.0.0.1]:9000/", "must be on a host"),
        ("https://169.254.169.254/latest/meta-data", "must be on a host"),
        ("http://hooks.example.com:443/", "must be on a host"),
        ("http://api.example.com:8443/", "must begin with https://"),
        ("http://a.partner.example/", "must begin with https://"),
        ("http://8.8.8.8/", "must begin with https://"),
        ("https://ann:secret@hooks.example.com/", "must not hold a user name"),
        ("https://@hooks.example.com/", "must not hold a user name"),
        ("https://hooks.example.com@127.0.0.1:9000/", "must not hold a user name"),
        ("https://hooks.example.com/#there", "without a fragment"),
        ("https://hooks.example.com\\@127.0.0.1:9000/", "without a backslash"),
        ("https://hooks.example.com/a b", "visible ASCII"),
        ("https://hooks.example.com/\r\nHost: x", "visible ASCII"),
        ("https://höoks.example.com/", "visible ASCII"),
        ("https://xn--0.example/", "must be on a host"),
        ("ftp://hooks.example.com/", "must be a URL such as"),
        ("file:///etc/passwd", "must be a URL such as"),
        ("hooks.example.com", "must be a URL such as"),
        ("//hooks.example.com/", "must be a URL such as"),
        ("https://", "must be a URL such as"),
        ("https:///path", "must be a URL such as"),
        ("https://hooks.example.com:99999/", "must be"),
        ("https://hooks.example.com:0/", "must be"),
        ("https://[::1/", "must be a URL such as"),
    ],
)
def test_addresses_that_are_not(url: str, why: str) -> None:
    with pytest.raises(ProblemError) as refused:
        policy_of(*HOSTS).check(url, DEFAULT_CALLER)
    [error] = refused.value.problem.errors or []
    assert error.field == "webhook"
    assert why in error.detail


def test_without_hosts_none_is_taken() -> None:
    with pytest.raises(ProblemError, match="WEBHOOK_HOSTS"):
        policy_of().check("https://hooks.example.com/", DEFAULT_CALLER)


def test_a_problem_tells_no_caller_the_hosts_of_others() -> None:
    with pytest.raises(ValueError, match="must be on a host of WEBHOOK_HOSTS, which") as refused:
        policy_of("hooks.internal.example.com").target("https://example.com/")
    assert "internal" not in str(refused.value)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*",
        "*.com",
        "*.127.0.0.1",
        "https://example.com",
        "example.com/",
        "example.com:0",
        "example.com:99999",
        "::1",
    ],
)
def test_entries_that_are_none(entry: str) -> None:
    with pytest.raises(ValidationError, match=r"must be host, host:port, or \*\.example\.com"):
        policy_of(entry)


@pytest.mark.parametrize("entry", ["münchen.example", "*.中国.example"])
def test_an_entry_with_other_letters_is_told_to_be_punycode(entry: str) -> None:
    with pytest.raises(ValidationError, match=r"with other letters as punycode, such as xn--mnchen-3ya\.example"):
        policy_of(entry)


@pytest.mark.parametrize(
    "secret",
    ["c2hhbmdjYWkgdGVzdHMgc2lnbiB3aXRoIHRoaXMga2V5", "whsec_c2hvcnQ=", "whsec_" + "YWFh" * 22, "whsec_ä", "whsec_"],
)
def test_secrets_that_are_none_are_not_shown(secret: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="must be whsec_ and then 24 to 64 random bytes") as refused:
        policy_of("hooks.example.com", webhook_secret=secret)
    shown = str(refused.value.errors(include_input=False, include_context=False))  # as a start shows it
    assert secret[6:] == "" or secret not in shown
    path = tmp_path / "callers"
    path.write_text(f"ann webhook_secret={secret or '-'}\n")
    with pytest.raises(KeyFileError, match="line 1: webhook_secret must be whsec_") as raised:
        KeyFile(path)
    assert secret[6:] == "" or secret not in str(raised.value)


@pytest.mark.parametrize("settings", [{"webhook_attempts": 33}, {"webhook_retry_seconds": 301}, {"webhook_seconds": 0}])
def test_attempts_and_their_times_have_bounds(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy_of("hooks.example.com", **settings)


def test_a_secret_is_needed_where_callers_are_off() -> None:
    with pytest.raises(ValidationError, match="webhook_secret: is required"):
        policy_of("hooks.example.com", webhook_secret=None)


def test_each_caller_has_a_secret_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "callers"
    path.write_text(
        f"ann sha256:{64 * '0'} webhook_secret={SECRET} concurrency=2\n"
        f"ann sha256:{64 * '1'}\nann webhook_secret={SECRET}\n"
        f"bob sha256:{64 * '2'} concurrency=2\ncy webhook_secret={OTHER_SECRET}\n"
    )
    policy = policy_of("hooks.example.com", key_file=KeyFile(path), callers="keys", callers_file=path)
    policy.check("https://hooks.example.com/", "ann")
    assert policy.signing_key("ann") != policy.signing_key("cy")
    with pytest.raises(ProblemError, match="webhook_secret"):
        policy.check("https://hooks.example.com/", "bob")


def test_a_caller_has_one_secret(tmp_path: Path) -> None:
    path = tmp_path / "callers"
    path.write_text(f"ann webhook_secret={SECRET}\nann webhook_secret={OTHER_SECRET}\n")
    with pytest.raises(KeyFileError, match="line 2: the caller has another webhook_secret"):
        KeyFile(path)
