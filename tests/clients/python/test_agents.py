"""A client that sends settings by itself: OpenAI's agents SDK, unmodified."""

import anyio
import pytest
from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeModelSendSessionUpdate, RealtimeRunner

pytestmark = pytest.mark.anyio

DEADLINE = 10
SILENCE = bytes(960)

LOCKED_MODEL = "locked"
LOCKED = {"instructions": "Speak like a pirate.", "voice": "marin", "tools": ["hoist_the_flag"]}
LOCKED_SETTINGS = {
    "instructions": LOCKED["instructions"],
    "tools": [
        {"type": "function", "name": name, "parameters": {"type": "object"}}
        for name in LOCKED["tools"]
    ],
}
VOICE = {"audio": {"output": {"voice": LOCKED["voice"]}}}


@function_tool
def fly_away() -> str:
    """Flies away."""
    return "done"


@function_tool
def dive() -> str:
    """Dives."""
    return "done"


# What the SDK is told, all of which contradicts the tokens.
MODEL, OTHER_MODEL = "model-of-the-client", "another-of-its"
FIRST = RealtimeAgent(name="first", instructions="Be a parrot.", tools=[fly_away])
SECOND = RealtimeAgent(name="second", instructions="Be a whale.", tools=[dive])
SETTINGS = {
    "model_name": MODEL,
    "output_modalities": ["text"],
    "audio": {
        "input": {
            "transcription": {"model": "whisper-1"},
            "turn_detection": {"type": "server_vad", "threshold": 0.25},
        },
        "output": {"voice": "cedar"},
    },
}
LAST = {
    "model_name": OTHER_MODEL,
    "instructions": "Be a crab.",
    "output_modalities": ["audio"],
    "audio": {
        "input": {
            "transcription": {"model": "gpt-transcribe"},
            "turn_detection": {"type": "semantic_vad"},
        },
        "output": {"voice": "ash", "speed": 1.25},
    },
    "tools": [],
}
# What the session is then, if nothing is locked.
OWN = [
    {"instructions": "Be a parrot.", "voice": "cedar", "tools": ["fly_away"], "model": MODEL},
    {"instructions": "Be a whale.", "voice": "cedar", "tools": ["dive"], "model": MODEL},
    {"instructions": "Be a crab.", "voice": "ash", "tools": [], "model": OTHER_MODEL},
]


async def hold_session(gateway, key):
    """Three rounds, each after an update by the SDK: the first agent's settings, another agent's,
    other settings."""
    config = {"url": gateway.realtime, "api_key": key, "initial_model_settings": SETTINGS}
    with anyio.fail_after(DEADLINE):
        async with await RealtimeRunner(FIRST).run(model_config=config) as session:
            # Before anything is heard, or it would interrupt that.
            await session.send_audio(SILENCE, commit=True)
            first = await ask(session)
            await session.update_agent(SECOND)
            second = await ask(session)
            await session.model.send_event(RealtimeModelSendSessionUpdate(session_settings=LAST))
            return first, second, await ask(session)


async def ask(session):
    """Speaks to the model; the session as it was last told, and the response. The SDK raises what
    ends it; any error that it reports is a failure too."""
    await session.send_message("Who are you?")
    told = None
    async for event in session:
        assert event.type != "error", event.error
        if event.type != "raw_model_event" or event.data.type != "raw_server_event":
            continue
        sent = event.data.data
        if sent["type"] == "session.updated":
            told = sent["session"]
        if sent["type"] == "response.done":
            return told, sent["response"]
    pytest.fail("the session ended")


def settings(told):
    output = told.get("audio", {}).get("output", {})
    return {
        "instructions": told["instructions"],
        "voice": output.get("voice") or told["voice"],
        "tools": [tool["name"] for tool in told["tools"]],
        "model": told["model"],
    }


def assert_rounds(rounds, expected):
    """That the session, the response and what was said are as expected, and that in what nothing
    locks the client had its way."""
    for (session, response), sent, expect in zip(
        rounds, [SETTINGS, SETTINGS, LAST], expected, strict=True
    ):
        assert settings(session) == expect
        assert session["output_modalities"] == sent["output_modalities"]
        heard = dict(sent["audio"]["input"])
        if expect["model"] == LOCKED_MODEL:
            # A locked model leaves no other to the client, for transcription neither.
            assert "transcription" not in session["audio"]["input"]
            del heard["transcription"]
        for name, value in heard.items():
            assert session["audio"]["input"][name] == value

        assert response["status"] == "completed"
        assert settings(response) == expect
        assert response["output_modalities"] == sent["output_modalities"]
        [content] = response["output"][0]["content"]
        assert content.get("text", content.get("transcript")) == (
            f"I am {expect['model']} and speak as {expect['voice']}. "
            f"My instructions: {expect['instructions']}. "
            f"My tools: {', '.join(expect['tools']) or 'none'}."
        )


@pytest.mark.parametrize(
    "locked",
    [
        pytest.param({**LOCKED_SETTINGS, **VOICE}, id="instructions, voice and tools"),
        # The SDK spells the voice in the other way.
        pytest.param({**LOCKED_SETTINGS, "voice": LOCKED["voice"]}, id="the voice as Swaram's"),
        pytest.param({**LOCKED_SETTINGS, **VOICE, "model": LOCKED_MODEL}, id="the model too"),
    ],
)
async def test_lives_on_with_a_token_that_locks(gateway, locked):
    kept = {**LOCKED, **({"model": locked["model"]} if "model" in locked else {})}
    rounds = await hold_session(gateway, gateway.mint(**locked))
    assert_rounds(rounds, [{**own, **kept} for own in OWN])


async def test_gets_its_own_settings_with_a_secret_key(gateway):
    assert_rounds(await hold_session(gateway, gateway.key), OWN)
