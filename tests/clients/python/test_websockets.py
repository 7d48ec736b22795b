"""The library `websockets`, which most of Python speaks WebSocket with."""

import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

WRONG = "sk_test_wrong"
DEADLINE = 10

# Where a credential can stand: the query, what to connect with, the subprotocol to be selected.
PLACES = {
    "header": lambda key: ("", {"additional_headers": bearer(key)}, None),
    "query": lambda key: (f"?api_key={key}", {}, None),
    "openai": lambda key: offering("realtime", f"openai-insecure-api-key.{key}"),
    "xai": lambda key: offering(f"xai-client-secret.{key}"),
}
# Where this library, like a browser, is told by a Close and not by a status.
CLOSED = [place for place in PLACES if place != "header"]


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def offering(*protocols):
    return "", {"subprotocols": protocols}, protocols[0]


def accepted(gateway, place, key):
    query, options, selected = PLACES[place](key)
    with connect(gateway.realtime + query, **options) as socket:
        assert socket.subprotocol == selected
        assert json.loads(socket.recv(timeout=DEADLINE))["type"] == "session.created"
    assert socket.close_code == 1000


def refused(gateway, place, key):
    query, options, selected = PLACES[place](key)
    with connect(gateway.realtime + query, **options) as socket:
        assert socket.subprotocol == selected
        event = json.loads(socket.recv(timeout=DEADLINE))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=DEADLINE)
    assert (event["type"], event["error"]["code"]) == ("error", "invalid_api_key")
    assert closed.value.rcvd.code == 4001
    assert closed.value.rcvd.reason.startswith("Unauthorized")


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_key_and_a_token_are_accepted(gateway, place):
    for key in [gateway.key, gateway.mint()]:
        accepted(gateway, place, key)


@pytest.mark.parametrize("place", CLOSED)
def test_a_bad_key_is_told_and_closed(gateway, place):
    refused(gateway, place, WRONG)


@pytest.mark.parametrize("place", CLOSED)
def test_an_expired_token_is_told_and_closed(gateway, expiring, place):
    token, wait_until_expired = expiring
    accepted(gateway, place, token)
    wait_until_expired()
    refused(gateway, place, token)


@pytest.mark.parametrize("headers", [None, bearer(WRONG)])
def test_no_key_and_a_bad_one_in_the_header_are_answered_by_a_status(gateway, headers):
    with pytest.raises(InvalidStatus) as refusal:
        connect(gateway.realtime, additional_headers=headers)
    assert refusal.value.response.status_code == 401


def test_an_item_is_retrieved_as_it_was_created(gateway):
    item = {"id": "i", "type": "message", "role": "user", "content": [{"text": "Hello."}]}
    with connect(gateway.realtime, additional_headers=bearer(gateway.key)) as socket:

        def answered(kind, **fields):
            socket.send(json.dumps({"type": f"conversation.item.{kind}", **fields}))
            while True:
                event = json.loads(socket.recv(timeout=DEADLINE))
                if event["type"] in (f"conversation.item.{kind}d", "error"):
                    return event

        socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        retrieved = answered("retrieve", item_id="i")["item"]
        assert retrieved.items() >= item.items()
        heard = {"item_id": "i", "content_index": 0, "audio_end_ms": 300}
        assert answered("truncate", **heard).items() >= heard.items()
        assert answered("truncate", item_id="i")["error"]["param"] == "content_index"
        for kind in ["retrieve", "truncate", "delete"]:
            error = answered(kind, **{**heard, "item_id": "j"})["error"]
            assert error["code"] == f"item_{kind}_invalid_item_id"
