"""An issuer of OIDC tokens behind a real socket on loopback: it rotates its keys, fails, hangs, recovers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/oauth/discovery/keys"
AUDIENCE = "https://shop.test/api/test"

_numbers = count(1)
#: RSA keys take long to make: the first ones are everybody's.
_made: list[rsa.RSAPrivateKey] = []


def rsa_key(number: int) -> rsa.RSAPrivateKey:
    while len(_made) <= number:
        _made.append(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    return _made[number]


class Issuer:
    """What it signs with and how it behaves; `url` is its name and its address."""

    def __init__(self) -> None:
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.issuer = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.key_id, self.key = "key-0", rsa_key(0)
        #: Public keys as they are handed out, by id.
        self.published: dict[str, dict[str, Any]] = {}
        self.publish(self.key_id, self.key)
        #: Paths in the order in which they were asked for.
        self.asked: list[str] = []
        #: What to answer with under a path, in the place of what is right there: (status, headers, body).
        self.instead: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.hanging = False
        self.dripping = False
        self.released = threading.Event()
        self.document: dict[str, Any] = {"issuer": self.url, "jwks_uri": self.url + KEYS}

    def __enter__(self) -> Issuer:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.recover()
        self.server.shutdown()
        self.server.server_close()

    def publish(self, key_id: str, key: Any, **also: Any) -> None:
        kind: Any = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
        public = kind.to_jwk(key.public_key(), as_dict=True)
        self.published[key_id] = {**public, "kid": key_id, "use": "sig", **also}

    def rotate(self, number: int = 1) -> None:
        """Sign with another key from now on; the one before is withdrawn."""
        self.key_id, self.key = f"key-{number}", rsa_key(number)
        self.published.clear()
        self.publish(self.key_id, self.key)

    def recover(self) -> None:
        self.instead.clear()
        self.hanging = self.dripping = False
        self.released.set()
        self.released = threading.Event()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """A job's claims as GitHub has them; a change to None leaves the claim out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:octo-org/shop:environment:e2e",
            "jti": f"token-{next(_numbers)}",
            "iat": now,
            "nbf": now - 5,
            "exp": now + 300,
            "repository": "octo-org/shop",
            "repository_id": "456789",
            "environment": "e2e",
            "ref": "refs/heads/main",
            "runner_id": 7,
            "protected": True,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self,
        *,
        algorithm: str = "RS256",
        key: Any = None,
        headers: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        return jwt.encode(
            self.claims(**changes),
            key or self.key,
            algorithm=algorithm,
            headers={"kid": self.key_id} if headers is None else headers,
        )

    def trust(self, **changes: Any) -> dict[str, Any]:
        """An entry of OIDC_TRUST that trusts this issuer's job; a change to None leaves the option out."""
        entry = {
            "name": "shop",
            "issuer": self.url,
            "audience": AUDIENCE,
            "claims": {"repository": "octo-org/shop", "environment": "e2e"},
            **changes,
        }
        return {name: value for name, value in entry.items() if value is not None}


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        issuer: Issuer = self.server.issuer
        issuer.asked.append(self.path)
        released = issuer.released
        if issuer.hanging:
            released.wait(30)
            self.close_connection = True
            return
        status, headers, body = issuer.instead.get(self.path) or self._right(issuer)
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if not issuer.dripping:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            write: Callable[[bytes], Any] = self.wfile.write
            if issuer.dripping:
                while not released.wait(0.05):
                    write(b" ")
            write(body)
        except OSError:
            pass  # the client has hung up

    def _right(self, issuer: Issuer) -> tuple[int, dict[str, str], bytes]:
        if self.path == DISCOVERY:
            return 200, {}, json.dumps(issuer.document).encode()
        if self.path == KEYS:
            return 200, {}, json.dumps({"keys": list(issuer.published.values())}).encode()
        return 404, {}, b"{}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    issuer: Issuer

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client has hung up
