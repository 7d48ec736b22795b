"""Decart's own SDK, unmodified, told only where to go. Where it would change over to LiveKit for the
video it is given a room that is none: the session here is as real as any."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace

import pytest
from conftest import DEADLINE, Gateway
from decart import DecartClient, models
from decart.errors import TokenCreateError, WebRTCError
from decart.realtime.client import RealtimeClient, SetInput
from decart.realtime.messages import LiveKitJoinMessage
from decart.realtime.types import RealtimeConnectOptions

pytestmark = pytest.mark.anyio

WRONG = "dct_wrong"
MODEL, OTHER_MODEL = "lucy-2.1", "lucy-restyle-2"
INVALID = "Unauthorized: invalid or expired API key"
EVERYTHING = {
    "expires_in": 120,
    "allowed_models": [MODEL, OTHER_MODEL],
    "constraints": {"realtime": {"maxSessionDuration": 300}},
    "metadata": {"role": "viewer"},
}


class Room:
    """A room of LiveKit's that nobody is in."""

    async def publish_track(self, _track, _options) -> None:
        pass

    @property
    def local_participant(self) -> "Room":
        return self

    def on(self, _event):
        return lambda listener: listener

    async def connect(self, url: str, token: str) -> None:
        assert (url, token) == ("wss://simulated.invalid", "simulated")

    async def disconnect(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_video(monkeypatch):
    monkeypatch.setattr("decart.realtime.livekit_connection.rtc.Room", Room)


@dataclass
class Way:
    """A way to the gateway, and how often it was taken."""

    host: str
    taken: int = 0


@asynccontextmanager
async def way_to(gateway: Gateway) -> AsyncIterator[Way]:
    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way.taken += 1
        there = await asyncio.open_connection(*gateway.host.split(":"))
        await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    way = Way("{}:{}".format(*server.sockets[0].getsockname()))
    async with server:
        yield way


@asynccontextmanager
async def session(way: Gateway | Way, key: str):
    """A session as it is when the video would begin."""
    options = RealtimeConnectOptions(models.realtime(MODEL), lambda _: None, resolution="720p")
    connecting = RealtimeClient.connect(f"ws://{way.host}", key, SimpleNamespace(), options)
    client = await asyncio.wait_for(connecting, DEADLINE)
    try:
        yield client
    finally:
        await client.disconnect()


async def refused(gateway: Gateway, key: str) -> tuple[str, int]:
    """What the SDK says when it gives up, and after how many attempts."""
    async with way_to(gateway) as way:
        with pytest.raises(WebRTCError) as refusal:
            async with session(way, key):
                pass
        return refusal.value.message, way.taken


async def mint(gateway: Gateway, key: str | None = None, **asked):
    async with DecartClient(key or gateway.key, f"http://{gateway.host}") as client:
        return await client.tokens.create(**asked)


def moment(minted) -> float:
    return datetime.fromisoformat(minted.expires_at).timestamp()


async def test_mints_a_token_whose_fields_the_sdk_reads(gateway):
    before = time.time()
    minted = await mint(gateway, allowed_origins=["https://app.example"], **EVERYTHING)
    assert minted.api_key.startswith("ek_")
    assert before + 119 < moment(minted) < time.time() + 121
    assert minted.permissions == {
        "models": [MODEL, OTHER_MODEL],
        "origins": ["https://app.example"],
    }
    assert minted.constraints == EVERYTHING["constraints"]

    minted = await mint(gateway)
    assert (minted.permissions, minted.constraints) == (None, None)
    assert before + 59 < moment(minted) < time.time() + 61


@pytest.mark.parametrize("who", ["secret key", "api_key", "token", "token of a list"])
async def test_talks_up_to_the_video_and_beside_it(gateway, caplog, who):
    key = gateway.key
    if who != "secret key":
        minted = await mint(gateway, **(EVERYTHING if who.endswith("list") else {}))
        key = getattr(minted, who.split()[0])
    with caplog.at_level("DEBUG", "decart.realtime.livekit_connection"):
        async with way_to(gateway) as way, session(way, key) as client:
            assert client.session_id
            await client.set_prompt("Like a pirate.")
            await client.set_image(b"an image")
            await client.set_image(None)
            await client.set(SetInput(prompt="Like a whale.", image=b"an image"))
            assert client.is_connected()
            assert way.taken == 1
    received = [record.args[0] for record in caplog.records if record.msg == "Received %s message"]
    assert received == [
        "queue_position",
        "livekit_room_info",
        "set_image_ack",
        "prompt_ack",
        *["set_image_ack"] * 3,
    ]


@pytest.mark.parametrize("who", ["secret key", "token of a list"])
async def test_hears_of_an_error_and_goes_on(gateway, who):
    key = gateway.key if who == "secret key" else (await mint(gateway, **EVERYTHING)).token
    errors = asyncio.Queue()
    async with session(gateway, key) as client:
        client.on("error", errors.put_nowait)
        # Nothing that the SDK would send.
        await client._manager.send_message(LiveKitJoinMessage.model_construct(type="set_model"))
        error = await asyncio.wait_for(errors.get(), DEADLINE)
        assert "type" in error.message
        await client.set_prompt("Like a pirate.")


@pytest.mark.parametrize(
    "asked, told",
    [
        (None, INVALID),
        ({"allowed_models": [OTHER_MODEL]}, "Permission denied: model not allowed"),
        # It is no browser, and names no origin.
        ({"allowed_origins": ["https://app.example"]}, "Permission denied: origin not allowed"),
    ],
    ids=["bad key", "another model", "no origin"],
)
async def test_stops_at_once_when_refused(gateway, asked, told):
    key = (await mint(gateway, **asked)).token if asked else WRONG
    assert await refused(gateway, key) == (told, 1)


async def test_a_session_outlives_its_token_which_opens_no_other(gateway):
    minted = await mint(gateway, expires_in=2)
    async with session(gateway, minted.token) as client:
        await asyncio.sleep(max(0, moment(minted) + 0.01 - time.time()))
        await client.set_prompt("Like a pirate.")
    assert await refused(gateway, minted.token) == (INVALID, 1)


@pytest.mark.parametrize("who, status", [("token", 403), ("bad key", 401)])
async def test_whoever_has_no_secret_key_cannot_mint(gateway, who, status):
    key = (await mint(gateway)).token if who == "token" else WRONG
    with pytest.raises(TokenCreateError) as refusal:
        await mint(gateway, key)
    assert refusal.value.data == {"status": status}
    assert '{"detail":"' in refusal.value.message
    assert key not in refusal.value.message


async def test_a_bad_request_names_the_field(gateway):
    with pytest.raises(TokenCreateError) as refusal:
        await mint(gateway, expires_in=3601)
    assert refusal.value.data == {"status": 422}
    assert '"loc":["body","expiresIn"]' in refusal.value.message
