"""A little OpenID provider: a real process on loopback with real keys, and a list of misdeeds.

`python -m support.oidc_provider PORT` serves; POST /admin changes what the next tokens say and how
they are signed. It checks what a provider has to: the code counts once, and only with the verifier
of its challenge, the client's secret and the address it was made for.
"""

import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from support.orthanc import free_port

CLIENT, SECRET = "bedside-box", "s3cret of the box"
USER = {
    "sub": "user-1",
    "preferred_username": "anna",
    "family_name": "Muster",
    "given_name": "Anna",
    "groups": ["radiology", "everyone"],
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class State:
    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.new_keys()
        self.codes: dict[str, dict[str, str]] = {}
        self.config: dict = {}
        self.calls: dict[str, int] = {}

    def new_keys(self) -> None:
        self.generation = secrets.token_hex(4)
        self.keys = {
            "RS256": RSAKey.generate_key(2048, {"kid": f"rsa-{self.generation}", "use": "sig"}),
            "ES256": ECKey.generate_key("P-256", {"kid": f"ec-{self.generation}", "use": "sig"}),
            "EdDSA": OKPKey.generate_key("Ed25519", {"kid": f"ed-{self.generation}"}),
        }

    def token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": nonce}
        claims |= USER | self.config.get("claims", {})
        claims = {name: value for name, value in claims.items() if value is not None}
        return self.signed(claims, self.config.get("sign", "RS256"))

    def signed(self, claims: dict, how: str) -> str:
        payload = b64(json.dumps(claims).encode())
        if how == "none":
            return b64(b'{"alg":"none"}') + "." + payload + "."
        if how == "hmac-with-public-key":  # key confusion: the public key as shared secret
            head = {"alg": "HS256", "kid": self.keys["RS256"].kid}
            signing = b64(json.dumps(head).encode()) + "." + payload
            secret = self.keys["RS256"].as_pem(private=False)
            return signing + "." + b64(hmac.digest(secret, signing.encode(), "sha256"))
        if how == "hmac-with-client-secret":
            return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))
        if how == "stranger":  # the right kid, another key
            key = RSAKey.generate_key(2048)
            return jwt.encode({"alg": "RS256", "kid": self.keys["RS256"].kid}, claims, key)
        if how == "own-jwk":  # brings its own key along
            key = RSAKey.generate_key(2048)
            head = {"alg": "RS256", "jwk": key.as_dict(private=False)}
            return jwt.encode(head, claims, key, registry=_anything())
        if how == "tampered":
            head, _, mark = self.signed(claims, "RS256").split(".")
            return ".".join((head, b64(json.dumps(claims | {"sub": "admin"}).encode()), mark))
        key = self.keys[how]
        head = {"alg": how, "kid": key.kid}
        return jwt.encode(head, claims, key, algorithms=[how])


def _anything():
    from joserfc.jws import JWSRegistry

    return JWSRegistry(strict_check_header=False)


class Handler(BaseHTTPRequestHandler):
    state: State

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        state = self.state
        state.calls[path] = state.calls.get(path, 0) + 1
        if path == "/.well-known/openid-configuration":
            issuer = state.issuer
            found = {
                "issuer": issuer,
                "authorization_endpoint": issuer + "/authorize",
                "token_endpoint": issuer + "/token",
                "jwks_uri": issuer + "/jwks",
            }
            self._json(found | state.config.get("metadata", {}))
        elif path == "/jwks":
            self._json({"keys": [key.as_dict(private=False) for key in state.keys.values()]})
        elif path == "/calls":
            self._json(state.calls)
        elif path == "/authorize":  # the person logs in at once and agrees
            asked = {name: values[0] for name, values in query.items()}
            assert asked["response_type"] == "code"
            assert asked["client_id"] == CLIENT
            assert asked["code_challenge_method"] == "S256"
            code = secrets.token_urlsafe(16)
            state.codes[code] = asked
            back = urlencode({"code": code, "state": asked["state"], "iss": state.issuer})
            self.send_response(302)
            self.send_header("Location", f"{asked['redirect_uri']}?{back}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._json({"error": "not found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        state = self.state
        if self.path == "/admin":
            wanted = json.loads(body)
            if wanted.pop("new_keys", False):
                state.new_keys()
            state.config = wanted
            self._json({})
            return
        fields = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        asked = state.codes.pop(fields.get("code", ""), None)
        verifier = hashlib.sha256(fields.get("code_verifier", "").encode()).digest()
        basic = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if (
            asked is None
            or asked["code_challenge"] != b64(verifier)
            or asked["redirect_uri"] != fields.get("redirect_uri")
            or self.headers.get("Authorization") != basic
        ):
            self._json({"error": "invalid_grant"}, 400)
        elif "answer" in state.config:
            self._json(state.config["answer"])
        else:
            self._json({"access_token": "x", "id_token": state.token(asked["nonce"])})

    def _json(self, found: object, status: int = 200) -> None:
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class OidcProvider:
    """The process; `says` sets what it does next."""

    def __init__(self, port: int) -> None:
        self.port, self.issuer = port, f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.issuer, timeout=10)

    def start(self) -> None:
        folder = Path(__file__).parents[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.oidc_provider", str(self.port)], cwd=folder
        )
        until = time.monotonic() + 20
        while True:
            try:
                self.http.get("/jwks")
            except httpx.HTTPError:
                assert time.monotonic() < until, "the provider did not start"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def says(self, **wanted: object) -> None:
        self.http.post("/admin", json=wanted).raise_for_status()

    def calls(self, path: str) -> int:
        return int(self.http.get("/calls").json().get(path, 0))


@contextmanager
def oidc_provider():
    """Run one; whatever happens, no process is left."""
    running = OidcProvider(free_port())
    try:
        running.start()
        yield running
    finally:
        running.stop()
        running.http.close()


if __name__ == "__main__":
    port = int(sys.argv[1])
    Handler.state = State(f"http://127.0.0.1:{port}")
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
