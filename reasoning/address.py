"""Which server: a base URL, a key and a proxy as people write them, and what is wrong with them.

Pure, but for the environment's proxies. No word of it tells a key or a password.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from reasoning.errors import BadAddress, KeyRefused, StepwiseError

_NO_HEADER = re.compile(r"[^!-~]")  # what no HTTP header can hold of a key
_NO_URL = re.compile(r"[\x00-\x20\x7f]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.I)


def find_fault(base_url: str, api_key: str) -> StepwiseError | None:
    """What keeps the server from being asked at all; None where nothing is to be seen."""
    if why := _wrong_with(base_url):
        return BadAddress(
            f"OPENAI_BASE_URL is {shown(base_url)!r}: {why}.",
            "Expected something like http://127.0.0.1:8000/v1.",
        )
    if found := _NO_HEADER.search(api_key):
        at = f"character {found.start() + 1} of {len(api_key)}"
        return KeyRefused(
            f"The key in OPENAI_API_KEY cannot be sent: {at} is {_kind(found.group())}.",
            "Set it to the key alone, on one line.",
        )
    proxy = proxy_of(base_url)
    return bad_proxy(base_url) if proxy and not _is_proxy(proxy[1]) else None


def shown(base_url: str) -> str:
    """The URL without a name and password that may stand in it."""
    return re.sub(r"(?<=//)[^/@]*@", "", base_url)[:200]


def is_this_machine(base_url: str) -> bool:
    """Whether what the URL names cannot be anywhere else, however that is written."""
    host = (_split(base_url) or urlsplit("")).hostname or ""
    host = host.removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return _is_short_loopback(host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address.is_loopback or address.is_unspecified


def _is_short_loopback(host: str) -> bool:
    """127.1, and what else the C library reads as an address of four numbers."""
    try:
        address = ip_address(socket.inet_aton(host))
    except OSError:
        return False
    return address.is_loopback or address.is_unspecified


def proxy_of(base_url: str) -> tuple[str, str] | None:
    """The variable that names a proxy for the URL, and where that is; None for none."""
    url = _split(base_url)
    if url is None or is_this_machine(base_url) or proxy_bypass(url.netloc):
        return None
    proxies = getproxies_environment()
    for scheme in (url.scheme, "all"):
        if scheme in proxies:
            return f"{scheme.upper()}_PROXY", shown(proxies[scheme])
    return None


def bad_proxy(base_url: str) -> BadAddress:
    """What is said of a proxy that no connection can be made by."""
    variable, where = proxy_of(base_url) or ("A proxy's variable", "")
    return BadAddress(
        f"{variable} names a proxy that cannot be used: {where!r}.",
        "Expected something like http://proxy:3128; unset it, or name the server in NO_PROXY.",
    )


# -- what is wrong


def _is_proxy(where: str) -> bool:
    url = _split(where if "://" in where else f"http://{where}")
    return url is not None and not _wrong_with_host(url.hostname or "")


def _wrong_with(base_url: str) -> str:
    """Why the URL names no server, in a few words; "" where it does."""
    url = _split(base_url)
    if found := _NO_URL.search(base_url):
        return f"it has {_kind(found.group())} in it"
    if url is None:
        return "its host or its port cannot be read"
    if url.scheme not in ("http", "https"):
        return "it does not begin with http:// or https://"
    return _wrong_with_host(url.hostname or "")


def _wrong_with_host(host: str) -> str:
    if not host:
        return "it names no host"
    if ":" in host or _is_name(host):
        return ""
    return f"{host[:60]!r} is no name of a host"


def _is_name(host: str) -> bool:
    try:
        name = host.encode("idna").decode().removesuffix(".")
    except UnicodeError:
        return False
    return all(_LABEL.fullmatch(label) for label in name.split("."))


def _split(base_url: str) -> SplitResult | None:
    """The URL's parts; None where brackets do not match or the port is none."""
    try:
        url = urlsplit(base_url)
        return None if url.port == 0 else url
    except ValueError:
        return None


def _kind(character: str) -> str:
    names = {"\n": "a line break", "\r": "a line break", " ": "a space", "\0": "NUL"}
    if character in names:
        return names[character]
    return "a control character" if ord(character) < 32 or character == "\x7f" else "no ASCII"
