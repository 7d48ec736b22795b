"""OpenAI's own SDK, unmodified, told only where to go."""

import time

import anyio
import openai
import pytest
from openai import AsyncOpenAI
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.anyio

WRONG = "sk_test_wrong"
MODEL = "gpt-realtime"
VOICE = {"audio": {"output": {"voice": "marin"}}}
DEADLINE = 10


async def receive(connection, kind):
    """The next event of this kind; any error event on the way is a failure."""
    with anyio.fail_after(DEADLINE):
        async for event in connection:
            assert event.type != "error", event
            if event.type == kind:
                return event


async def test_mints_a_token_whose_fields_the_sdk_reads(gateway):
    before = time.time()
    async with gateway.client(AsyncOpenAI) as client:
        secret = await client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 600},
            session={"type": "realtime", "model": MODEL, "instructions": "Be kind.", **VOICE},
        )
    assert secret.value.startswith("ek_")
    assert type(secret.expires_at) is int
    assert before + 600 <= secret.expires_at <= time.time() + 601
    assert secret.session.type == "realtime"
    assert secret.session.model == MODEL
    assert secret.session.instructions == "Be kind."
    assert secret.session.audio.output.voice == "marin"


@pytest.mark.parametrize("who", ["secret key", "token"])
async def test_holds_a_conversation(gateway, who):
    key = gateway.key if who == "secret key" else gateway.mint()
    async with gateway.client(AsyncOpenAI, key) as client:
        async with client.realtime.connect(model=MODEL) as connection:
            created = await receive(connection, "session.created")
            assert created.session.model == MODEL

            update = {"type": "realtime", "instructions": "Be brief.", **VOICE}
            await connection.session.update(session=update)
            updated = await receive(connection, "session.updated")
            assert updated.session.instructions == "Be brief."
            assert updated.session.audio.output.voice == "marin"

            await connection.response.create()
            begun = await receive(connection, "response.created")
            done = await receive(connection, "response.done")
            assert begun.response.id == done.response.id
            assert done.response.status == "completed"
            assert done.response.instructions == "Be brief."
            assert done.response.voice == "marin"


async def test_a_token_keeps_what_it_sets(gateway):
    token = gateway.mint(model=MODEL, instructions="Be kind.", **VOICE)
    async with gateway.client(AsyncOpenAI, token) as client:
        async with client.realtime.connect(model=MODEL) as connection:
            await receive(connection, "session.created")
            await connection.session.update(
                session={
                    "type": "realtime",
                    "instructions": "Be rude.",
                    "audio": {"output": {"voice": "cedar", "speed": 1.25}},
                }
            )
            session = (await receive(connection, "session.updated")).session
            assert session.model == MODEL
            assert session.instructions == "Be kind."
            assert session.audio.output.voice == "marin"
            assert session.audio.output.speed == 1.25


async def test_a_session_outlives_its_token_which_opens_no_other(gateway, expiring):
    token, wait_until_expired = expiring
    async with gateway.client(AsyncOpenAI, token) as client:
        async with client.realtime.connect(model=MODEL) as connection:
            await receive(connection, "session.created")
            wait_until_expired()
            await connection.response.create()
            await receive(connection, "response.done")
        assert await status_of_refusal(client) == 401


async def test_a_bad_key_is_refused(gateway):
    async with gateway.client(AsyncOpenAI, WRONG) as client:
        assert await status_of_refusal(client) == 401


async def test_a_token_opens_its_own_model_only(gateway):
    token = gateway.mint(model=MODEL)
    async with gateway.client(AsyncOpenAI, token) as client:
        assert await status_of_refusal(client, "gpt-realtime-mini") == 403


async def status_of_refusal(client, model=MODEL):
    with pytest.raises(InvalidStatus) as refusal:
        async with client.realtime.connect(model=model):
            pass
    return refusal.value.response.status_code


async def test_a_token_cannot_mint(gateway):
    async with gateway.client(AsyncOpenAI, gateway.mint()) as client:
        with pytest.raises(openai.PermissionDeniedError) as refusal:
            await client.realtime.client_secrets.create()
    assert refusal.value.code == "insufficient_scope"


async def test_a_bad_key_cannot_mint(gateway):
    async with gateway.client(AsyncOpenAI, WRONG) as client:
        with pytest.raises(openai.AuthenticationError) as refusal:
            await client.realtime.client_secrets.create()
    assert refusal.value.code == "invalid_api_key"
    assert WRONG not in str(refusal.value)


async def test_a_bad_request_names_the_field(gateway):
    async with gateway.client(AsyncOpenAI) as client:
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.realtime.client_secrets.create(
                expires_after={"anchor": "created_at", "seconds": 100_000}
            )
    assert refusal.value.param == "expires_after.seconds"
