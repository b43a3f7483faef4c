"""The flags of scripts/top: which are refused, and in which words."""

from __future__ import annotations

import sys

import pytest

from scripts.local.top.__main__ import parse
from scripts.local.top.address import complete


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--url", "ftp://x", "'ftp://x' is no address; http://127.0.0.1:8080 would be one"),
        ("--url", "foo:bar", "'foo:bar' is no address"),
        ("--url", "''", """"''" is no address"""),
        ("--url", "http://[::1", "'http://[::1' is no address"),
        ("--url", "http://x/a b", "'http://x/a b' is no address"),
        ("--metrics-url", "http://", "'http://' is no address"),
        ("--url", "http://x/?key=SECRET", "no ?query, #fragment or user:password@ is taken"),
        ("--url", "x/#SECRET", "no ?query, #fragment or user:password@ is taken"),
        ("--metrics-url", "ftp://me:SECRET@x", "no ?query, #fragment or user:password@ is taken"),
        ("--every", "0", "0 is not from 0.1 to 3600 seconds"),
        ("--every", "-3", "-3 is not from 0.1 to 3600 seconds"),
        ("--every", "nan", "nan is not from 0.1 to 3600 seconds"),
        ("--every", "1e300", "1e+300 is not from 0.1 to 3600 seconds"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line_without_a_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str, value: str, said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts/top", flag, value])
    with pytest.raises(SystemExit) as ended:
        parse()
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"scripts/top: error: {flag}: {said}")
    assert "SECRET" not in line


@pytest.mark.parametrize("url", ["localhost", "http://[::1]:8080", "https://web.example/x/", "http://my_web:80"])
def test_an_address_is_taken(url: str) -> None:
    assert complete(url).endswith(url)
