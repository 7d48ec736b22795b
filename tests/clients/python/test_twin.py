"""Decart's own verifier, which knows a signed token by the published keys alone."""

import asyncio
import base64
import json
import os
import subprocess
import time
import urllib.request

import pytest
from conftest import BINARY, DEADLINE, Gateway, listening
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from decart import DecartClient
from decart.errors import TokenVerifyError
from decart.tokens import verify_client_token
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

KEY = "sk_test_for_twins"


def create(gateway, **options):
    """Asks for a token as a customer's backend does."""

    async def ask():
        async with DecartClient(api_key=gateway.key, base_url=f"http://{gateway.host}") as client:
            return await client.tokens.create(**options)

    return asyncio.run(ask())


def verify(gateway, token, **options):
    """Verifies it by the gateway's keys, as one of its tokens, to the second."""
    url = f"http://{gateway.host}"
    options = {"issuer": url, "audience": url, "leeway": 0, **options}
    return asyncio.run(verify_client_token(token, jwks_url=jwks_url(gateway.host), **options))


def jwks_url(host):
    return f"http://{host}/.well-known/jwks.json"


def jwks(host):
    with urllib.request.urlopen(jwks_url(host), timeout=DEADLINE) as response:
        assert response.headers["content-type"] == "application/json"
        assert response.headers["cache-control"] == "public, max-age=300"
        return json.load(response)


def connected(gateway, key):
    """Whether a session begins with this key."""
    with connect(f"{gateway.realtime}?api_key={key}") as socket:
        event = json.loads(socket.recv(timeout=DEADLINE))
        if event["type"] == "session.created":
            return True
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=DEADLINE)
    assert closed.value.rcvd.code == 4001
    return False


@pytest.fixture(scope="module")
def elsewhere():
    """Another gateway, which takes the same secret key and signs with a key of its own."""
    with listening(BINARY, "--key", KEY) as host:
        yield Gateway(host, KEY)


def test_a_fresh_token_is_verified_and_connects(gateway):
    before = time.time()
    created = create(gateway, expires_in=120)
    verified = verify(gateway, created.token)
    assert verified.user_id == "demo"
    assert verified.api_key_id.startswith("key_") and verified.api_key_id != verified.claims["jti"]
    assert 120 <= verified.expires_at.timestamp() - before <= 120 + DEADLINE
    assert (verified.allowed_models, verified.allowed_origins, verified.constraints) == (None,) * 3
    assert created.api_key.startswith("ek_")
    for key in [created.token, created.api_key]:
        assert connected(gateway, key)


def test_what_it_may_do_is_signed(gateway):
    constraints = {"realtime": {"maxSessionDuration": 120}}
    created = create(
        gateway,
        metadata={"role": "viewer"},
        allowed_models=["lucy-2.1", "demo"],
        allowed_origins=["https://app.example"],
        constraints=constraints,
    )
    verified = verify(gateway, created.token)
    assert verified.allowed_models == created.permissions["models"] == ["lucy-2.1", "demo"]
    assert verified.allowed_origins == created.permissions["origins"] == ["https://app.example"]
    assert verified.constraints == created.constraints == constraints
    # What was noted of the key is for the server alone.
    assert "metadata" not in verified.claims


def test_an_expired_token_is_refused_by_both(gateway):
    created = create(gateway, expires_in=1)
    expires_at = verify(gateway, created.token).expires_at.timestamp()
    time.sleep(max(0, expires_at + 0.01 - time.time()))
    with pytest.raises(TokenVerifyError, match="expired"):
        verify(gateway, created.token)
    assert not connected(gateway, created.token)


def test_a_foreign_token_is_refused_by_both(gateway, elsewhere):
    foreign = create(elsewhere).token
    assert connected(elsewhere, foreign)
    with pytest.raises(TokenVerifyError, match="signing key"):
        verify(gateway, foreign)
    assert not connected(gateway, foreign)


def test_a_token_that_was_changed_is_refused_by_both(gateway):
    head, claims, signature = create(gateway).token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    said["exp"] += 3600
    claims = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    changed = f"{head}.{claims}.{signature}"
    with pytest.raises(TokenVerifyError, match="Signature"):
        verify(gateway, changed)
    assert not connected(gateway, changed)


@pytest.mark.parametrize("claim", ["issuer", "audience"])
def test_a_token_for_somebody_else_is_refused(gateway, claim):
    with pytest.raises(TokenVerifyError, match=f"(?i){claim}"):
        verify(gateway, create(gateway).token, **{claim: "https://else.example"})


def test_a_key_of_ones_own_outlives_the_gateway(tmp_path):
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file = tmp_path / "key.pem"
    file.write_text(pem)
    named = ["--issuer", "https://a.example", "--audience", "https://b.example"]
    with listening(BINARY, "--key", KEY, "--signing-key", str(file), *named) as host:
        token = create(Gateway(host, KEY)).token
        published = jwks(host)
    with listening(BINARY, *named, SIGNING_KEY=pem) as host:
        assert jwks(host) == published
        names = {"issuer": "https://a.example", "audience": "https://b.example"}
        assert verify(Gateway(host, KEY), token, **names).user_id == "demo"


def test_a_signing_key_is_never_shown():
    secret = "c2VjcmV0IGtleSB0aGF0IG5vYm9keSBzZWVz"
    pem = f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"
    for arguments in [["--help"], ["--listen", "127.0.0.1:0"]]:
        ran = subprocess.run(
            [BINARY, *arguments],
            env={**os.environ, "SIGNING_KEY": pem},
            capture_output=True,
            timeout=DEADLINE,
            text=True,
        )
        shown = ran.stdout + ran.stderr
        assert "signing-key" in shown and secret not in shown
        assert (ran.returncode == 0) == (arguments == ["--help"])
