"""OpenAI's own SDK, unmodified, told only where to go. It sends a header and can read a status, so
that it is refused in one way by every profile."""

import json
import re
import time

import anyio
import openai
import pytest
from conftest import serving
from openai import AsyncOpenAI
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.anyio

WRONG = "sk_test_wrong"
MODEL = "gpt-realtime"
VOICE = {"audio": {"output": {"voice": "marin"}}}
DEADLINE = 10
# As Go writes them: 12ms, 1.5s, 1m0s.
DURATION = re.compile(r"\d+ms|(\dm)?\d{1,2}(\.\d{1,3})?s")


@pytest.fixture(scope="module", params=["openai", "any"])
def gateway(request):
    with serving(request.param) as gateway:
        yield gateway


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
        assert await refusal_of(client) == (401, "invalid_api_key")


@pytest.mark.parametrize("whose", ["nobody's", "another gateway's"])
async def test_a_foreign_key_opens_nothing_and_mints_nothing(gateway, elsewhere, whose):
    key = WRONG if whose == "nobody's" else elsewhere.mint()
    async with gateway.client(AsyncOpenAI, key) as client:
        assert await refusal_of(client) == (401, "invalid_api_key")
        with pytest.raises(openai.AuthenticationError) as refusal:
            await client.realtime.client_secrets.create()
    assert_reported(refusal.value, 401, "invalid_api_key")
    assert key not in str(refusal.value)


async def test_a_token_opens_its_own_model_only(gateway):
    token = gateway.mint(model=MODEL)
    async with gateway.client(AsyncOpenAI, token) as client:
        assert await refusal_of(client, "gpt-realtime-mini") == (403, "model_not_allowed")


async def test_tells_its_user_what_is_left():
    """By headers and by an event; a minute may begin anew at any time."""
    with serving("openai", "--requests-per-minute", "1000") as gateway:
        async with gateway.client(AsyncOpenAI) as client:
            minted = await client.realtime.client_secrets.with_raw_response.create()
            assert minted.headers["x-ratelimit-limit-requests"] == "1000"
            assert minted.headers["x-ratelimit-remaining-requests"] == "999"
            assert DURATION.fullmatch(minted.headers["x-ratelimit-reset-requests"])
            async with client.realtime.connect(model=MODEL) as connection:
                await connection.response.create()
                told = await receive(connection, "rate_limits.updated")
                await receive(connection, "response.done")
    (requests,) = told.rate_limits
    assert (requests.name, requests.limit) == ("requests", 1000)
    assert requests.remaining in (998, 999, 1000)
    assert 0 < requests.reset_seconds <= 60


async def test_is_held_to_a_plan():
    with serving("openai", "--requests-per-minute", "2") as gateway:
        async with gateway.client(AsyncOpenAI) as client:
            with pytest.raises(openai.RateLimitError) as refusal:
                # At the turn of a minute there are twice two.
                for _ in range(5):
                    await client.realtime.client_secrets.create()
            assert_reported(refusal.value, 429, "rate_limit_exceeded", "rate_limit_error")
            assert 1 <= int(refusal.value.response.headers["retry-after"]) <= 60


async def refusal_of(client, model=MODEL):
    """The status and the code that the SDK's user finds in what it raises."""
    with pytest.raises(InvalidStatus) as refusal:
        async with client.realtime.connect(model=model):
            pass
    response = refusal.value.response
    assert client.api_key not in response.body.decode()
    assert str(refusal.value).endswith(f"HTTP {response.status_code}")
    return response.status_code, json.loads(response.body)["error"]["code"]


async def test_a_token_cannot_mint(gateway):
    async with gateway.client(AsyncOpenAI, gateway.mint()) as client:
        with pytest.raises(openai.PermissionDeniedError) as refusal:
            await client.realtime.client_secrets.create()
    assert_reported(refusal.value, 403, "insufficient_scope")


def assert_reported(error, status, code, kind="invalid_request_error"):
    assert (error.status_code, error.code, error.type, error.param) == (
        status,
        code,
        kind,
        None,
    )
    assert error.body["message"] and error.body["message"] in error.message


async def test_a_bad_request_names_the_field(gateway):
    async with gateway.client(AsyncOpenAI) as client:
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.realtime.client_secrets.create(
                expires_after={"anchor": "created_at", "seconds": 100_000}
            )
    assert refusal.value.param == "expires_after.seconds"
