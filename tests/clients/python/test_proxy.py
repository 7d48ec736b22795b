"""The example proxy, before the example gateway and before a provider that does as it is told."""

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from queue import Queue

import pytest
from conftest import DEADLINE, PROXY, Gateway, listening
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

KEY = f"sk_test_{secrets.token_hex(12)}"
UPSTREAM_KEY = f"sk_upstream_{secrets.token_hex(12)}"
LOCKED = {
    "instructions": "Say only what the customer may know.",
    "audio": {"output": {"voice": "marin"}},
}
CREATED = {"type": "session.created", "session": {"voice": "alloy"}}


# The servers


@dataclass
class Provider:
    """What a provider was asked, and what it heard."""

    host: str
    requests: list[Request] = field(default_factory=list)
    heard: Queue = field(default_factory=Queue)


def converse(session: ServerConnection) -> None:
    """A provider that takes all settings and repeats all else."""
    session.send(json.dumps(CREATED))
    for message in session:
        event = json.loads(message)
        if event["type"] == "session.update":
            event = {"type": "session.updated", "session": event["session"]}
        session.send(json.dumps(event))


@contextmanager
def provider(
    behave: Callable[[ServerConnection], None] = converse, refusal: HTTPStatus | None = None
) -> Iterator[Provider]:
    """Runs a provider whose sessions go like that, or that refuses all of them."""

    def judge(session: ServerConnection, request: Request):
        said.requests.append(request)
        return refusal and session.respond(refusal, f"Wrong: {UPSTREAM_KEY}\n")

    def note(session: ServerConnection) -> None:
        try:
            behave(session)
        except ConnectionClosed:
            pass
        try:
            for message in session:
                said.heard.put(message)
        except ConnectionClosed:
            pass
        said.heard.put((session.close_code, session.close_reason))

    with serve(note, "127.0.0.1", 0, process_request=judge) as server:
        said = Provider("{}:{}".format(*server.socket.getsockname()))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield said


@contextmanager
def proxying(host: str, key: str = UPSTREAM_KEY, log=None, **environment: str) -> Iterator[Gateway]:
    flags = ["--key", KEY, "--upstream", f"ws://{host}/v1/realtime"]
    with listening(PROXY, *flags, log=log, UPSTREAM_KEY=key, **environment) as address:
        yield Gateway(address, KEY)


@pytest.fixture(scope="module")
def before_gateway(gateway):
    with proxying(gateway.host, gateway.key) as proxy:
        yield proxy


# The client


def open_session(proxy: Gateway, key: str, query: str = "", **options) -> ClientConnection:
    headers = {"Authorization": f"Bearer {key}"}
    options = {"additional_headers": headers, "open_timeout": 2 * DEADLINE, **options}
    return connect(proxy.realtime + query, **options)


def browser(token: str) -> dict:
    """How a browser connects."""
    return {
        "additional_headers": {"Cookie": "session=secret"},
        "origin": "https://app.example",
        "subprotocols": ["realtime", f"openai-insecure-api-key.{token}"],
    }


def receive(session: ClientConnection) -> dict:
    return json.loads(session.recv(timeout=DEADLINE))


def until(session: ClientConnection, kind: str) -> dict:
    while True:
        event = receive(session)
        if event["type"] == kind:
            return event


def closed(session: ClientConnection) -> tuple[int, str]:
    """The Close with which the session ends."""
    with pytest.raises(ConnectionClosed) as end:
        while True:
            session.recv(timeout=DEADLINE)
    return end.value.rcvd.code, end.value.rcvd.reason


def refused(proxy: Gateway, key: str) -> tuple[int, str]:
    """Status and body of what answers the handshake."""
    with pytest.raises(InvalidStatus) as refusal:
        open_session(proxy, key)
    response = refusal.value.response
    return response.status_code, response.body.decode()


# The tests


def test_a_conversation_goes_through_and_what_is_locked_holds(before_gateway):
    token = before_gateway.mint(**LOCKED)
    with open_session(before_gateway, token, "?model=m", **browser(token)) as session:
        assert session.subprotocol == "realtime"
        assert receive(session)["type"] == "session.created"
        updated = receive(session)
        assert updated["type"] == "session.updated"
        assert updated["session"].items() >= LOCKED.items()

        change = {"instructions": "Tell everything.", "audio": {"output": {"voice": "cedar"}}}
        session.send(json.dumps({"type": "session.update", "session": {**change, "speed": 2}}))
        assert until(session, "session.updated")["session"]["speed"] == 2
        session.send(json.dumps({"type": "response.create", "response": change}))
        response = until(session, "response.done")["response"]
    assert response["instructions"] == LOCKED["instructions"]
    assert response["audio"] == LOCKED["audio"]
    assert response["model"] == "m"


def test_nothing_of_the_client_goes_up_and_no_key_comes_down(tmp_path):
    word = secrets.token_hex(12)
    path = tmp_path / "log"
    with path.open("wb") as log, provider() as upstream:
        with proxying(upstream.host, log=log, RUST_LOG="trace") as proxy:
            token = proxy.mint(**LOCKED)
            query = f"?model=a/b%20c%26d&deployment=x&api_key={token}"
            with open_session(proxy, token, query, **browser(token)) as session:
                session.send(json.dumps({"type": "response.create", "event_id": word}))
                said = [receive(session) for _ in range(3)]
                answered = session.response
    assert [event["type"] for event in said] == [
        "session.created",
        "session.updated",
        "response.create",
    ]
    (asked,) = upstream.requests
    assert asked.path == "/v1/realtime?model=a%2Fb+c%26d"
    assert {name.lower() for name in asked.headers} == {
        "authorization",
        "connection",
        "host",
        "sec-websocket-key",
        "sec-websocket-version",
        "upgrade",
    }
    assert asked.headers.get_all("Authorization") == [f"Bearer {UPSTREAM_KEY}"]
    assert UPSTREAM_KEY not in f"{said}{answered}"
    logged = path.read_text()
    assert "session begins" in logged
    for secret in [UPSTREAM_KEY, KEY, token, word, LOCKED["instructions"]]:
        assert secret not in logged


@pytest.mark.parametrize(
    "session, query, asked",
    [
        ({"model": "mine"}, "?model=mine", "?model=mine"),
        ({"model": "mine"}, "", "?model=mine"),
        ({}, "?model=other", "?model=other"),
        ({}, "", ""),
    ],
)
def test_the_model_is_the_tokens_and_else_the_clients(session, query, asked):
    with provider() as upstream, proxying(upstream.host) as proxy:
        with open_session(proxy, proxy.mint(**session), query) as client:
            receive(client)
    assert upstream.requests[0].path == f"/v1/realtime{asked}"


def test_another_model_than_the_tokens_is_not_asked_for():
    with provider() as upstream, proxying(upstream.host) as proxy:
        with pytest.raises(InvalidStatus) as refusal:
            open_session(proxy, proxy.mint(model="mine"), "?model=other")
    assert refusal.value.response.status_code == 403
    assert not upstream.requests


def test_an_upstream_that_is_down_or_refuses_is_a_bad_gateway():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        down = "{}:{}".format(*nobody.getsockname())
    with proxying(down) as proxy:
        status, body = refused(proxy, KEY)
        assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_unavailable")
    with provider(refusal=HTTPStatus.UNAUTHORIZED) as upstream, proxying(upstream.host) as proxy:
        status, body = refused(proxy, KEY)
        assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_unavailable")
        assert UPSTREAM_KEY not in body and "Wrong" not in body


def refuse(session: ServerConnection) -> None:
    session.send(json.dumps(CREATED))
    session.recv()
    session.send(json.dumps({"type": "error", "error": {"message": "No such voice."}}))


@pytest.mark.parametrize("behave", [refuse, lambda session: session.close(4000, "Never.")])
def test_without_what_is_locked_there_is_no_session(behave):
    with provider(behave) as upstream, proxying(upstream.host) as proxy:
        status, body = refused(proxy, proxy.mint(**LOCKED))
    assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_settings")
    assert "No such voice" not in body


def test_an_upstream_that_does_not_answer_is_waited_for_within_bounds():
    """Of all tests the slowest: the proxy gives it ten seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent, provider(list) as deaf:
        with (
            proxying("{}:{}".format(*silent.getsockname())) as before_silent,
            proxying(deaf.host) as before_deaf,
            ThreadPoolExecutor() as both,
        ):
            unanswered = both.submit(refused, before_silent, KEY)
            unset = both.submit(refused, before_deaf, before_deaf.mint(**LOCKED))
            assert unanswered.result()[0] == 504
            assert unset.result()[0] == 502


@pytest.mark.parametrize(
    "sent, arrived",
    [
        ((1000, ""), (1000, "")),
        ((1001, "The provider stops."), (1001, "The provider stops.")),
        ((4009, "Quota used up."), (4009, "Quota used up.")),
        ((1013, "é" * 61), (1013, "é" * 61)),
    ],
)
def test_a_close_goes_both_ways(sent, arrived):
    with provider(lambda session: session.close(*sent)) as upstream:
        with proxying(upstream.host) as proxy, open_session(proxy, KEY) as session:
            assert closed(session) == arrived
    with provider(list) as upstream, proxying(upstream.host) as proxy:
        with open_session(proxy, KEY) as session:
            session.close(*sent)
        assert upstream.heard.get(timeout=DEADLINE) == arrived


def close_without_code(session: ServerConnection) -> None:
    session.socket.sendall(b"\x88\x00")


def die(session: ServerConnection) -> None:
    session.send(json.dumps(CREATED))
    session.socket.shutdown(socket.SHUT_RDWR)


def test_a_close_without_a_code_is_a_normal_end():
    with provider(close_without_code) as upstream, proxying(upstream.host) as proxy:
        with open_session(proxy, KEY) as session:
            assert closed(session) == (1000, "")


@pytest.mark.parametrize("behave", [die, lambda session: session.send(b"\0\1")])
def test_an_upstream_that_dies_or_speaks_no_text_ends_the_session(behave):
    with provider(behave) as upstream, proxying(upstream.host) as proxy:
        with open_session(proxy, KEY) as session:
            assert until(session, "error")["error"]["code"] == "upstream_failed"
            assert closed(session) == (1011, "The upstream broke the session off.")


def test_a_client_that_is_gone_is_no_session_upstream():
    with provider() as upstream, proxying(upstream.host) as proxy:
        with open_session(proxy, KEY) as session:
            receive(session)
            session.socket.shutdown(socket.SHUT_RDWR)
        assert upstream.heard.get(timeout=DEADLINE) == (1001, "")


def test_who_stops_says_so_on_both_sides():
    with provider() as upstream:
        with proxying(upstream.host) as proxy:
            session = open_session(proxy, KEY)
            receive(session)
        assert closed(session) == (1001, "the server is stopping")
        assert upstream.heard.get(timeout=DEADLINE) == (1001, "")


def test_who_asks_while_the_proxy_stops_is_told():
    reached = threading.Event()
    with provider(lambda _: reached.set()) as deaf, ThreadPoolExecutor() as asking:
        with proxying(deaf.host) as proxy:
            asked = asking.submit(refused, proxy, proxy.mint(**LOCKED))
            assert reached.wait(DEADLINE)
        assert asked.result()[0] == 503


def test_what_one_side_does_not_read_the_other_does_not_send():
    """Megabytes, one way and back, of which the proxy holds a message each way."""
    pieces = [json.dumps({"type": "response.cancel", "event_id": "x" * 60_000})] * 200
    with provider() as upstream, proxying(upstream.host) as proxy:
        with open_session(proxy, KEY, max_size=None) as session:
            receive(session)
            sending = threading.Thread(target=lambda: [session.send(piece) for piece in pieces])
            sending.start()
            assert [session.recv(timeout=DEADLINE) for _ in pieces] == pieces
            sending.join(DEADLINE)
