"""A base URL, a key or a proxy that names no server is named in one line, and tells no secret."""

import pytest

from reasoning.address import find_fault, is_this_machine, proxy_of, shown
from reasoning.errors import BadAddress, KeyRefused


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://[::1/v1", "its host or its port cannot be read"),
        ("http://h:abc/v1", "its host or its port cannot be read"),
        ("http://h:99999/v1", "its host or its port cannot be read"),
        ("http://h:0/v1", "its host or its port cannot be read"),
        (":abc", "it does not begin with http"),
        ("localhost:8000/v1", "it does not begin with http"),
        ("ftp://h/v1", "it does not begin with http"),
        ("http:///v1", "it names no host"),
        ("http://a\0b/v1", "it has NUL in it"),
        ("http://a\nb/v1", "it has a line break in it"),
        ("http://a b/v1", "it has a space in it"),
        ("http://-a-/v1", "'-a-' is no name of a host"),
        ("http://a..b/v1", "'a..b' is no name of a host"),
        (f"http://{'a' * 70}/v1", "is no name of a host"),
        ("http://a_b!/v1", "'a_b!' is no name of a host"),
    ],
)
def test_what_names_no_server_is_named_with_why(url: str, why: str) -> None:
    fault = find_fault(url, "")
    assert isinstance(fault, BadAddress)
    assert why in fault.message
    assert "\n" not in str(fault)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "https://api.openai.com/v1",
        "http://[::1]:8000/v1",
        "http://127.1/v1",
        "http://my_gpu.local.:8000/v1",
        "http://münchen.example/v1",
        "http://name:p@ss@h/v1",
    ],
)
def test_what_names_a_server_has_no_fault(url: str) -> None:
    assert find_fault(url, "sk-1_aB.c~") is None


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("secret\n", "character 7 of 7 is a line break"),
        ("secret\r\nX: y", "character 7 of 12 is a line break"),
        ("sécret", "character 2 of 6 is no ASCII"),
        (" ", "character 1 of 1 is a space"),
        ("secret\0", "character 7 of 7 is NUL"),
    ],
)
def test_a_key_that_no_header_can_hold_is_named_but_not_told(key: str, why: str) -> None:
    fault = find_fault("http://h/v1", key)
    assert isinstance(fault, KeyRefused)
    assert why in fault.message
    assert "cret" not in str(fault)


HERE = ("127.0.0.1", "127.0.0.2", "127.1", "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]")
HERE_BY_NAME = ("localhost", "localhost.", "LOCALHOST", "a.localhost")


@pytest.mark.parametrize("host", [*HERE, *HERE_BY_NAME])
def test_this_machine_has_many_names(host: str) -> None:
    assert is_this_machine(f"http://{host}:8000/v1")


@pytest.mark.parametrize("host", ["10.0.0.1", "example.com", "localhost.com", "[fe80::1]", "128.1"])
def test_another_machine_is_none_of_them(host: str) -> None:
    assert not is_this_machine(f"http://{host}:8000/v1")


def test_the_proxy_is_the_schemes_own_else_everybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://name:password@one:1")
    monkeypatch.setenv("ALL_PROXY", "http://two:2")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxy_of("https://h/v1") == ("HTTPS_PROXY", "http://one:1")
    assert proxy_of("http://h/v1") == ("ALL_PROXY", "http://two:2")
    assert proxy_of("http://inside.example/v1") is None
    assert proxy_of("http://127.0.0.2/v1") is None


def test_a_password_in_an_address_is_not_shown() -> None:
    assert shown("http://name:password@h:1/v1") == "http://h:1/v1"
