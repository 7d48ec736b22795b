"""Swaram's clients, as its documentation has them: `httpx` mints, and a WebSocket offers the token
behind `realtime`."""

import json
import time
from contextlib import contextmanager

import httpx
import pytest
from conftest import DEADLINE, Gateway, serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

WRONG = "swaram_ek_wrong"
MODEL = "mal-realtime-simple"
SESSION = {
    "instructions": "You are a friendly Malayalam assistant.",
    "voice": "mal-female",
    "tools": [{"type": "function", "name": "time_of_day", "parameters": {"type": "object"}}],
}
UNAUTHORIZED = ("invalid_api_key", 4001, "Unauthorized: invalid or expired API key")
OTHER_MODEL = ("model_not_allowed", 4003, "Forbidden: the API key does not allow this model")


@pytest.fixture(scope="module", params=["swaram", "any"])
def profile(request):
    return request.param


@pytest.fixture(scope="module")
def gateway(profile):
    with serving(profile) as gateway:
        yield gateway


def ask(gateway: Gateway, key: str, **more) -> httpx.Response:
    return httpx.post(
        f"http://{gateway.host}/v1/realtime/client_secrets",
        headers={"Authorization": f"Bearer {key}"},
        json={"model": MODEL, "session": SESSION, **more},
        timeout=DEADLINE,
    )


def mint(gateway: Gateway, **more) -> str:
    return ask(gateway, gateway.key, **more).raise_for_status().json()["value"]


@contextmanager
def session(gateway: Gateway, key: str, model: str = MODEL):
    protocols = ["realtime", "openai-insecure-api-key." + key]
    with connect(f"{gateway.realtime}?model={model}", subprotocols=protocols) as socket:
        assert socket.subprotocol == "realtime"
        yield socket


def receive(socket: ClientConnection, kind: str) -> dict:
    """The next event of this kind; any error event on the way is a failure."""
    while True:
        event = json.loads(socket.recv(timeout=DEADLINE))
        assert event["type"] != "error", event
        if event["type"] == kind:
            return event


def update(socket: ClientConnection, **settings) -> dict:
    """Tries to change the session; what it then is."""
    socket.send(json.dumps({"type": "session.update", "session": settings}))
    return receive(socket, "session.updated")["session"]


def refusal(gateway: Gateway, key: str, model: str = MODEL) -> tuple[str, int, str]:
    """What a refused client is told: the event's code, then the Close's, and its reason."""
    with session(gateway, key, model) as socket:
        text = socket.recv(timeout=DEADLINE)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=DEADLINE)
    event = json.loads(text)
    assert event["type"] == "error"
    assert type(event["error"]["message"]) is str
    close = closed.value.rcvd
    assert key not in text + close.reason
    return event["error"]["code"], close.code, close.reason


def test_mints_a_token_that_lives_a_minute(gateway):
    before = time.time()
    response = ask(gateway, gateway.key)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    minted = response.json()
    assert minted.keys() == {"value", "expires_at", "session"}
    assert type(minted["value"]) is str
    assert type(minted["expires_at"]) is int
    assert before + 60 <= minted["expires_at"] <= time.time() + 61
    assert minted["session"].items() >= {"model": MODEL, **SESSION}.items()


def test_a_token_opens_sessions_that_are_as_it_sets_them(gateway):
    token = mint(gateway)
    for _ in range(3):
        with session(gateway, token) as socket:
            created = receive(socket, "session.created")["session"]
            assert created.items() >= {"model": MODEL, **SESSION}.items()
        assert socket.close_code == 1000


def test_what_a_token_sets_stays(gateway):
    with session(gateway, mint(gateway)) as socket:
        changed = update(socket, instructions="Be rude.", voice="eng-male", tools=[], speed=1.5)
        assert changed.items() >= {"model": MODEL, **SESSION, "speed": 1.5}.items()


def test_what_a_plain_key_sets_stays_once_the_conversation_has_begun(gateway, profile):
    with session(gateway, gateway.key) as socket:
        update(socket, voice="mal-male")
        assert update(socket, **SESSION).items() >= SESSION.items()
        socket.send(json.dumps({"type": "response.create"}))
        receive(socket, "response.done")
        voice = update(socket, voice="eng-male")["voice"]
    assert voice == (SESSION["voice"] if profile == "swaram" else "eng-male")


def test_a_bad_key_is_closed_with_4001_and_mints_nothing(gateway):
    assert refusal(gateway, WRONG) == UNAUTHORIZED
    assert_refused_to_mint(gateway, WRONG, 401, "invalid_api_key")


def test_a_token_of_another_gateway_is_closed_with_4001(gateway, elsewhere):
    token = mint(elsewhere)
    with session(elsewhere, token) as socket:
        receive(socket, "session.created")
    assert refusal(gateway, token) == UNAUTHORIZED


def test_an_expired_token_is_closed_with_4001_and_its_session_goes_on(gateway):
    token = mint(gateway, expires_after={"seconds": gateway.short})
    expired_at = time.monotonic() + gateway.short
    with session(gateway, token) as socket:
        receive(socket, "session.created")
        time.sleep(max(0, expired_at + 0.01 - time.monotonic()))
        assert refusal(gateway, token) == UNAUTHORIZED
        assert_refused_to_mint(gateway, token, 401, "invalid_api_key")
        socket.send(json.dumps({"type": "response.create"}))
        receive(socket, "response.done")


def test_a_token_cannot_mint(gateway):
    assert_refused_to_mint(gateway, mint(gateway), 403, "insufficient_scope")


def test_a_token_opens_its_own_model_only(gateway):
    assert refusal(gateway, mint(gateway), "eng-realtime-simple") == OTHER_MODEL


def assert_refused_to_mint(gateway, key, status, code):
    response = ask(gateway, key)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert (error["type"], error["param"]) == ("invalid_request_error", None)
    assert type(error["message"]) is str
    assert key not in response.text
