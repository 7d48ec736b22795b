"""Wrong keys are limited by where they come from, if the gateway is told how to know that."""

import itertools
import json
import secrets
import subprocess
import time
from collections.abc import Callable

import httpx
import pytest
from conftest import BINARY, DEADLINE, listening
from openai import OpenAI, RateLimitError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

KEY = f"sk_test_{secrets.token_hex(12)}"
LIMIT = 5
LIMITED = ["--key", KEY, "--wrong-keys-per-minute", str(LIMIT), "--client-address"]
WRONG = [f"wrong_{number}" for number in range(4 * LIMIT)]
# Addresses of this machine and of nobody's, each for one attempt.
LOCAL = (f"127.0.0.{number}" for number in itertools.count(2))
REMOTE = (f"192.0.2.{number}" for number in itertools.count(2))


def mint(host: str, key: str, *forwarded: str, local: str | None = None) -> httpx.Response:
    """Asks for a token, from this local address and with these lines of a proxy."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=local)) as client:
        return client.post(
            f"http://{host}/v1/realtime/client_secrets",
            headers=[
                ("Authorization", f"Bearer {key}"),
                *(("X-Forwarded-For", line) for line in forwarded),
            ],
            json={"session": {"type": "realtime"}},
            timeout=DEADLINE,
        )


def within_a_minute(attempt: Callable):
    """What comes of an attempt during which no minute ends, and with it the count."""
    for _ in range(3):
        minute = time.time() // 60
        result = attempt()
        if time.time() // 60 == minute:
            return result
    pytest.fail("an attempt takes no minute")


def assert_limited(answers: list[httpx.Response]):
    assert [answer.status_code for answer in answers] == [401] * LIMIT + [429] * 3 * LIMIT
    for answer in answers[LIMIT:]:
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "too_many_failures")


def test_a_connection_has_one_address_whatever_it_claims():
    with listening(BINARY, *LIMITED, "connection") as host:

        def attempt():
            local = next(LOCAL)
            answers = [
                mint(host, key, f"192.0.2.{number}", local=local)
                for number, key in enumerate(WRONG)
            ]
            return local, answers

        guesser, answers = within_a_minute(attempt)
        assert_limited(answers)
        assert mint(host, KEY, local=guesser).status_code == 200
        assert mint(host, KEY, local=next(LOCAL)).status_code == 200
        assert mint(host, WRONG[0], local=next(LOCAL)).status_code == 401


def test_a_proxy_says_where_a_client_is():
    with listening(BINARY, *LIMITED, "forwarded:2") as host:

        def attempt():
            peer = next(REMOTE)
            lines = [
                (f"{peer}:4000, 10.0.0.1",),
                (f"198.51.100.7, {peer}", "10.0.0.2"),
                ("forged", "198.51.100.7,", peer, "10.0.0.1"),
            ]
            tries = zip(WRONG, itertools.cycle(lines))
            return peer, [mint(host, key, *forwarded) for key, forwarded in tries]

        guesser, answers = within_a_minute(attempt)
        assert_limited(answers)
        assert mint(host, KEY, f"{guesser}, 10.0.0.1").status_code == 200
        assert mint(host, WRONG[0], f"{guesser}, {next(REMOTE)}, 10.0.0.1").status_code == 401


def test_clients_are_told():
    flags = ["--key", KEY, "--wrong-keys-per-minute", "0", "--client-address", "connection"]
    with listening(BINARY, *flags) as host:
        base = f"http://{host}/v1"
        with OpenAI(api_key=WRONG[0], base_url=base, max_retries=0, timeout=DEADLINE) as client:
            with pytest.raises(RateLimitError) as refused:
                client.realtime.client_secrets.create()
        assert refused.value.code == "too_many_failures"

        def session(key: str):
            protocols = ["realtime", f"openai-insecure-api-key.{key}"]
            return connect(f"ws://{host}/v1/realtime?model=m", subprotocols=protocols)

        with session(WRONG[0]) as socket:
            event = json.loads(socket.recv(timeout=DEADLINE))
            assert event["error"]["code"] == "too_many_failures"
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=DEADLINE)
        assert closed.value.rcvd.code == 4029
        with session(KEY) as socket:
            assert json.loads(socket.recv(timeout=DEADLINE))["type"] == "session.created"


def test_nothing_is_limited_unless_asked_for():
    with listening(BINARY, "--key", KEY) as host:
        assert {mint(host, key).status_code for key in 10 * WRONG} == {401}


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--wrong-keys-per-minute", "5"], "--client-address <WHERE>"),
        (["--client-address", "connection"], "--wrong-keys-per-minute <N>"),
        (LIMITED[2:] + ["forwarded:0"], "use connection, or forwarded:N with N from 1"),
        (LIMITED[2:] + ["forwarded"], "use connection, or forwarded:N with N from 1"),
        (["--wrong-keys-per-minute", "-1"], "error:"),
    ],
)
def test_where_addresses_stand_must_be_said(flags, hint):
    command = [BINARY, "--listen", "127.0.0.1:0", "--store", "memory", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (2, "")
    assert hint in done.stderr, done.stderr
