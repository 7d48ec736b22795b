"""The shortest lifetime, on the real clock: where in the second a token is minted must not matter,
although its expiry is told in whole seconds."""

import asyncio
import json
import math
import random
import time

import httpx
import pytest
from conftest import DEADLINE
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.anyio

TOKENS = 200
LIFETIME = 1
# Longer than any rounding of the lifetime can be.
LATER = 2.2
# Over how many seconds the tokens are minted.
SPREAD = 1.5


async def test_200_tokens_of_one_second_open_at_once_and_not_later(gateway):
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        lives = [live_through(gateway, client) for _ in range(TOKENS)]
        in_time = await asyncio.gather(*lives)
    assert any(in_time), "this machine is too slow to tell"


async def live_through(gateway, client):
    """Lives through the life of a token; whether there was time to see that it was let in."""
    # The phase of the second.
    await asyncio.sleep(random.uniform(0, SPREAD))
    asked, asked_at = time.time(), time.monotonic()
    response = await client.post(
        f"http://{gateway.host}/v1/realtime/client_secrets",
        headers={"Authorization": f"Bearer {gateway.key}"},
        json={"expires_after": {"seconds": LIFETIME}},
    )
    answered, answered_at = time.time(), time.monotonic()
    minted = response.raise_for_status().json()
    assert math.ceil(asked + LIFETIME) <= minted["expires_at"] <= math.ceil(answered + LIFETIME)

    events, closed = await visit(gateway, minted["value"])
    # Who was slower than a token lives may be refused.
    in_time = time.monotonic() < asked_at + LIFETIME
    if in_time:
        assert (events, closed) == (["session.created"], 1000)

    await asyncio.sleep(answered_at + LATER - time.monotonic())
    assert await visit(gateway, minted["value"]) == (["error"], 4001)
    return in_time


async def visit(gateway, token):
    """The events that a client is told before it leaves or is left, and the code of the Close."""
    protocols = ["realtime", f"openai-insecure-api-key.{token}"]
    events = []
    async with connect(gateway.realtime, subprotocols=protocols) as socket:
        try:
            async with asyncio.timeout(DEADLINE):
                while "session.created" not in events:
                    events.append(json.loads(await socket.recv())["type"])
        except ConnectionClosed:
            pass
    return events, socket.close_code
