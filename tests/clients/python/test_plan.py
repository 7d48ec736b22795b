"""A plan that the command line changes holds at once, at every gateway that has the file open."""

from contextlib import ExitStack

import httpx
import pytest
from conftest import BINARY, DEADLINE, listening
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

IN, LIMITED = 101, 429
ENOUGH = 1_000


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def two(keys):
    """The addresses of two gateways on one file."""
    flags = ["--store", keys.store, "--profile", "svara"]
    with ExitStack() as stack:
        yield [stack.enter_context(listening(BINARY, *flags)) for _ in range(2)]


def mint(host, key):
    url = f"http://{host}/v1/realtime/client_secrets"
    return httpx.post(url, headers=bearer(key), timeout=DEADLINE)


def signs_in(host, key):
    """The status of a connect with this key."""
    try:
        with connect(f"ws://{host}/v1/realtime", additional_headers=bearer(key)):
            return IN
    except InvalidStatus as refusal:
        return refusal.response.status_code


def told(response):
    """The status of an answer, the limit, and what is left of it."""
    names = ["X-RateLimit-Limit", "X-RateLimit-Remaining"]
    return response.status_code, *(response.headers.get(name) for name in names)


def test_a_key_at_its_limit_gets_through_once_the_limit_is_raised(keys, two):
    key = keys.create("acme", "--requests-per-minute", "2")
    for host in two:
        # Whenever a minute begins: five requests are of two of them at most.
        answers = [told(mint(host, key["key"])) for _ in range(5)]
        assert answers[0] == (200, "2", "1")
        assert (LIMITED, "2", "0") in answers
    keys.ask("plan", key["id"], "--requests-per-minute", str(ENOUGH))
    for host in two:
        status, limit, remaining = told(mint(host, key["key"]))
        assert (status, limit) == (200, str(ENOUGH))
        # As many less as were let through in this minute, none to four, and this one.
        assert int(remaining) in range(ENOUGH - 5, ENOUGH)


def test_a_lower_limit_holds_for_the_key_and_for_the_tokens_that_it_minted(keys, two):
    key = keys.create("acme", "--requests-per-minute", str(ENOUGH))
    other = keys.create("acme")
    tokens = [mint(host, key["key"]).json()["value"] for host in two]
    credentials = [key["key"], *tokens]
    assert [signs_in(host, text) for host in two for text in credentials] == 6 * [IN]

    keys.ask("plan", key["id"], "--requests-per-minute", "0")
    assert [told(mint(host, key["key"])) for host in two] == 2 * [(LIMITED, "0", "0")]
    assert [signs_in(host, text) for host in two for text in credentials] == 6 * [LIMITED]
    assert [told(mint(host, other["key"])) for host in two] == 2 * [(200, None, None)]

    keys.ask("plan", key["id"], "--requests-per-minute", "none")
    assert [told(mint(host, key["key"])) for host in two] == 2 * [(200, None, None)]
    assert [signs_in(host, text) for host in two for text in credentials] == 6 * [IN]


def test_no_session_begins_past_a_plan_that_was_lowered_and_those_that_are_open_stay(keys, two):
    key = keys.create("acme")
    for host in two:
        with connect(f"ws://{host}/v1/realtime", additional_headers=bearer(key["key"])) as session:
            keys.ask("plan", key["id"], "--max-sessions", "0")
            assert signs_in(host, key["key"]) == LIMITED
            assert session.ping().wait(DEADLINE)
            keys.ask("plan", key["id"], "--max-sessions", "none")
            assert signs_in(host, key["key"]) == IN
