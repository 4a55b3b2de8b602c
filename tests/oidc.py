"""An OpenID Connect provider on loopback, that takes whoever comes for whom he says he is.

Its page offers the people it knows, a link each. It holds what the flow asks of it and no more:
discovery, a code, a signed ID token, its key, an end of the session.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

CLIENT, SECRET = "stepwise", "a-client-secret-of-the-test"


class Provider:
    """What the provider knows: its people, and which of them each code stands for."""

    def __init__(self, issuer: str, people: Sequence[str]) -> None:
        self.issuer, self.people = issuer, people
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._codes: dict[str, tuple[str, str]] = {}  # a person and a nonce

    @property
    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "end_session_endpoint": f"{self.issuer}/end",
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    @property
    def keys(self) -> dict[str, Any]:
        public = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [{**public, "kid": "1", "use": "sig", "alg": "RS256"}]}

    def door(self, asked: dict[str, str]) -> str:
        """A page with a link for each person, back to who asked."""
        links = []
        for person in self.people:
            code = secrets.token_urlsafe(8)
            self._codes[code] = (person, asked.get("nonce", ""))
            back = urlencode({"code": code, "state": asked["state"]})
            links.append(f'<a href="{asked["redirect_uri"]}?{back}">{person}</a>')
        return " ".join(links)

    def token(self, asked: dict[str, str]) -> dict[str, Any]:
        person, nonce = self._codes.pop(asked["code"])
        now = int(time.time())
        claims: dict[str, Any] = {"iss": self.issuer, "sub": f"id-of-{person}", "name": person}
        claims |= {"aud": CLIENT, "iat": now, "exp": now + 600, "nonce": nonce}
        signed = jwt.encode(claims, self._key, "RS256", {"kid": "1"})
        return {"access_token": "unused", "token_type": "Bearer", "id_token": signed}


@contextmanager
def provider(*people: str) -> Iterator[Provider]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known = Provider(f"http://127.0.0.1:{server.server_address[1]}", people)
    Handler.known = known
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class Handler(BaseHTTPRequestHandler):
    known: Provider

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked = dict(parse_qsl(address.query))
        if address.path == "/.well-known/openid-configuration":
            self._say(json.dumps(self.known.metadata), "application/json")
        elif address.path == "/keys":
            self._say(json.dumps(self.known.keys), "application/json")
        elif address.path == "/authorize":
            self._say(self.known.door(asked), "text/html")
        else:
            self._say("Logged out.", "text/html")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._say(json.dumps(self.known.token(dict(parse_qsl(body)))), "application/json")

    def _say(self, text: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *words: Any) -> None:
        """Nothing."""
