"""What a client that is not trusted can do to what its token fixed: nothing.

Every attempt of `tests/data/overrides.json` gets a session of its own. Then the transcripts, which
have what arrived behind the guard, are judged by `effective.py`.
"""

import asyncio
import json
import secrets
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import BINARY, DEADLINE, PROXY, ROOT, listening
from effective import Escape, escapes, lost, settings_of
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

DATA = ROOT / "tests/data/overrides.json"
AT_ONCE = 32


@dataclass(frozen=True)
class Attempt:
    """One line of the data."""

    group: str
    name: str
    mint: dict
    send: list
    query: str = ""
    remint: dict | None = None
    ends: bool = False

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"

    def texts(self) -> list[str]:
        """The messages as whoever has no guard would read them."""
        return [text_of(message) for message in self.send]


def whole(parts: str | list) -> str:
    """A text that may be given in parts, some of them repeated."""
    if isinstance(parts, str):
        return parts
    return "".join(part if isinstance(part, str) else part[0] * part[1] for part in parts)


def text_of(message: str | list | dict) -> str:
    if not isinstance(message, dict):
        return whole(message)
    if "hex" in message:
        return bytes.fromhex(message["hex"]).decode(errors="replace")
    return whole(message.get("binary") or message["fragments"])


async def put(socket: ClientConnection, message: str | list | dict) -> None:
    """Sends a message in the frames that the data asks for."""
    if not isinstance(message, dict):
        await socket.send(whole(message))
    elif "hex" in message:
        await socket.send(bytes.fromhex(message["hex"]), text=True)
    elif "fragments" in message:
        await socket.send(message["fragments"])
    elif isinstance(message["binary"], str):
        await socket.send(message["binary"], text=False)
    else:
        await socket.send([part.encode() for part in message["binary"]])


def load() -> list[Attempt]:
    data = json.loads(DATA.read_text())
    groups = data["groups"]
    return [
        Attempt(**{**attempt, "mint": attempt.get("mint") or groups[attempt["group"]]["mint"]})
        for attempt in data["attempts"]
    ]


ATTEMPTS = load()


@dataclass
class Outcome:
    """What became of an attempt. Without a session it was refused before it had one."""

    attempt: Attempt
    session: dict | None = None
    lives: bool = False
    ended: str = ""
    reminted: int = 0
    heard: list[str] = field(default_factory=list)


# The servers


@asynccontextmanager
async def guarded(
    target: str, transcript: Path, queries: set[str]
) -> AsyncIterator[tuple[str, str]]:
    """A gateway, or a proxy before one that locks nothing: the address, and a key that mints.
    Collects the queries that the proxy asks with."""
    inner, outer = (f"sk_test_{secrets.token_hex(12)}" for _ in range(2))
    with ExitStack() as stack:
        gateway = listening(BINARY, "--key", inner, "--transcript", str(transcript))
        host = stack.enter_context(gateway)
        if target == "gateway":
            yield host, inner
            return
        async with overhearing(host, queries) as overheard:
            upstream = f"ws://{overheard}/v1/realtime"
            flags = ["--key", outer, "--upstream", upstream, "--upstream-key", inner]
            yield stack.enter_context(listening(PROXY, *flags)), outer


@asynccontextmanager
async def overhearing(host: str, queries: set[str]) -> AsyncIterator[str]:
    """Passes on what is sent to `host`, and notes the query of every request."""
    address, port = host.split(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line:
            queries.add(line.split()[1].decode().partition("?")[2])
        inward, outward = await asyncio.open_connection(address, int(port))
        outward.write(line)
        await asyncio.gather(copy(reader, outward), copy(inward, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


def read(transcript: Path) -> dict[str, list[str]]:
    """What the model heard, by session."""
    heard: dict[str, list[str]] = {}
    for line in transcript.read_bytes().splitlines():
        event = json.loads(line)
        heard.setdefault(event["session"], []).append(event["text"])
    return heard


# The client


def mint(host: str, key: str, body: dict) -> tuple[int, dict]:
    """Asks for a token; status and answer."""
    request = urllib.request.Request(
        f"http://{host}/v1/realtime/client_secrets",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, {"refusal": refusal.read().decode()}


async def attempt_all(host: str, key: str) -> list[Outcome]:
    """Makes every attempt. One token serves all attempts that are minted alike."""
    slots = asyncio.Semaphore(AT_ONCE)
    tokens: dict[str, asyncio.Task] = {}

    async def token_for(body: dict) -> str:
        status, answer = await asyncio.to_thread(mint, host, key, body)
        assert status == 200, (body, answer)
        return answer["value"]

    async def one(number: int, attempt: Attempt) -> Outcome:
        async with slots, asyncio.timeout(3 * DEADLINE):
            body = json.dumps(attempt.mint)
            if body not in tokens:
                tokens[body] = asyncio.create_task(token_for(attempt.mint))
            return await make(host, await tokens[body], attempt, f"done_{number}")

    return await asyncio.gather(*(one(*numbered) for numbered in enumerate(ATTEMPTS)))


async def make(host: str, token: str, attempt: Attempt, marker: str) -> Outcome:
    outcome = Outcome(attempt)
    if attempt.remint is not None:
        outcome.reminted, _ = await asyncio.to_thread(mint, host, token, attempt.remint)
    try:
        async with connect(
            f"ws://{host}/v1/realtime{attempt.query}",
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            max_queue=None,  # Whoever does not read is sent away.
            max_size=None,
            open_timeout=DEADLINE,
            close_timeout=DEADLINE,
        ) as socket:
            await converse(socket, attempt, marker, outcome)
    except InvalidStatus as refusal:
        outcome.ended = f"status {refusal.response.status_code}"
    except ConnectionClosed as closed:
        outcome.ended = f"{closed}"
    return outcome


async def converse(
    socket: ClientConnection, attempt: Attempt, marker: str, outcome: Outcome
) -> None:
    """Sends everything, and then an item that the session must still take."""
    first = json.loads(await socket.recv())
    if first["type"] != "session.created":
        return
    outcome.session = first["session"]
    for message in attempt.send:
        await put(socket, message)
    await socket.send(json.dumps(marking(marker)))
    while True:
        event = json.loads(await socket.recv())
        if (event.get("item") or {}).get("id") == marker:
            outcome.lives = True
            return


def marking(marker: str) -> dict:
    content = [{"type": "input_text", "text": "Are you there?"}]
    item = {"id": marker, "type": "message", "role": "user", "content": content}
    return {"type": "conversation.item.create", "item": item}


@dataclass
class Run:
    """All attempts on one target, and what its proxy, if it is one, asked of its upstream."""

    outcomes: list[Outcome]
    queries: set[str]


@pytest.fixture(scope="module", params=["gateway", "proxy"])
def run(request, tmp_path_factory) -> Run:
    transcript = tmp_path_factory.mktemp(request.param) / "transcript.jsonl"
    queries: set[str] = set()

    async def attempts() -> list[Outcome]:
        async with guarded(request.param, transcript, queries) as (host, key):
            return await attempt_all(host, key)

    outcomes = asyncio.run(attempts())
    heard = read(transcript)
    for outcome in outcomes:
        if outcome.session is not None:
            outcome.heard = heard.get(outcome.session["id"], [])
    return Run(outcomes, queries)


@pytest.fixture
def outcomes(run) -> list[Outcome]:
    return run.outcomes


# The tests


def report(title: str, found: list[tuple[Attempt, object]]) -> str:
    """Which attempts, group by group."""
    groups = Counter(attempt.group for attempt, _ in found)
    lines = [f"{title}: {len(found)}", ", ".join(f"{name} {n}" for name, n in groups.items())]
    return "\n".join(lines + [f"  {attempt}: {what}" for attempt, what in found])


def brief(told: list[Escape]) -> str:
    readings = dict.fromkeys(escape.reading for escape in told)
    return f"{told[0].path} ({', '.join(readings)})"


def test_nothing_that_the_token_fixed_is_changed(outcomes):
    found = [
        (outcome.attempt, brief(told))
        for outcome in outcomes
        if (told := escapes(outcome.attempt.mint, outcome.heard))
    ]
    assert not found, report("escapes", found)


def test_everything_that_the_token_fixed_reaches_the_model(outcomes):
    found = [
        (outcome.attempt, paths)
        for outcome in outcomes
        if outcome.session is not None
        and not escapes(outcome.attempt.mint, outcome.heard)
        and (paths := lost(outcome.attempt.mint, outcome.session, outcome.heard))
    ]
    assert not found, report("lost on the way to the model", found)


def test_the_query_of_a_client_goes_no_further(run):
    """Whoever is behind the proxy may read more selectors than `model`."""
    models = {settings_of(attempt.mint).get("model") for attempt in ATTEMPTS} - {None}
    assert run.queries <= {"", *(f"model={model}" for model in models)}


def test_a_token_mints_no_token(outcomes):
    asked = [outcome for outcome in outcomes if outcome.attempt.remint is not None]
    assert asked
    found = [(outcome.attempt, outcome.reminted) for outcome in asked if outcome.reminted != 403]
    assert not found, report("not refused by 403", found)


def test_sessions_live_on_unless_the_attempt_deserves_an_end(outcomes):
    found = [
        (outcome.attempt, outcome.ended or "it lives")
        for outcome in outcomes
        if not refused(outcome)
        and (outcome.session is None or outcome.lives == outcome.attempt.ends)
    ]
    assert not found, report("another end than is due", found)


def refused(outcome: Outcome) -> bool:
    """Whether no session began, which only what the query says is a reason for."""
    status = outcome.ended.startswith("status 4") or outcome.ended.startswith("received 4")
    return outcome.session is None and bool(outcome.attempt.query) and (status or not outcome.ended)


def test_the_transcript_has_all_that_was_heard(outcomes):
    """Or the other tests would be content with having seen nothing."""
    found = [
        (outcome.attempt, outcome.heard[-1:])
        for number, outcome in enumerate(outcomes)
        if outcome.lives and f'"done_{number}"' not in "".join(outcome.heard[-1:])
    ]
    assert not found, report("the last event is missing", found)


@pytest.mark.parametrize(
    "harmless",
    [
        {"type": "session.update", "session": {"voice": "marin", "temperature": 1, "model": "m"}},
        {"type": "session.update", "session": {"audio": {"output": {"voice": "marin"}}}},
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
        {"type": "session.update", "session": {"prompt": None, "tools": []}},
        {"type": "response.create"},
        {"type": "response.create", "response": None},
        {"type": "response.create", "response": {"metadata": {"voice": "cedar"}}},
        {"type": "response.create", "response": {"input": [{"role": "user", "content": []}]}},
        {"type": "conversation.item.create", "item": {"role": "assistant", "content": []}},
        {"type": "conversation.item.create", "item": {"type": "function_call_output"}},
        {"type": "conversation.item.truncate", "item_id": "i", "audio_end_ms": 3},
        {"type": "input_audio_buffer.append", "audio": "AAAA", "event_id": "e"},
        {"type": "an.event.of.another.api", "session": {"voice": "marin"}},
    ],
    ids=json.dumps,
)
def test_what_changes_nothing_is_no_escape(harmless):
    """The control the other way round: the judge does not always tell."""
    minted = {"model": "m", "session": {"voice": "marin", "instructions": "x", "tools": []}}
    assert not escapes(minted, [json.dumps(harmless)])


def test_without_a_guard_most_attempts_succeed(capsys):
    """The control: the judge can tell."""
    sent = [attempt for attempt in ATTEMPTS if not attempt.query and attempt.remint is None]
    held = [attempt for attempt in sent if not escapes(attempt.mint, attempt.texts())]
    with capsys.disabled():
        print(f" {len(sent) - len(held)} of {len(sent)} succeed without a guard ", end="")
    assert len(held) <= 0.4 * len(sent), report("held", [(attempt, "") for attempt in held])


def test_the_attempts_are_many_and_each_has_a_name():
    names = Counter(map(str, ATTEMPTS))
    assert len(names) == len(ATTEMPTS) >= 330
