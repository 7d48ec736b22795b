"""What a client achieved: a model of a realtime API, written apart from the crate, that replays
the events that arrived behind the guard and tells where they changed what the token fixed.

It reads as OpenAI's API does, and where a text can be read in several ways, in all of them:

- `first`: of a name that stands twice in an object, the first counts (the standard library).
- `last`: the last counts (jiter, another parser altogether).
- `lenient`: names are read up to a NUL and without regard to case, as some servers in C and Go
  read them, and the last counts.

A text that arrived although one of them cannot read it is an escape too: what it means is up to
whoever reads it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jiter

# Objects that group settings: an update of one merges, an update of anything else replaces.
GROUPS = {"audio", "audio.input", "audio.output"}

# What OpenAI's beta and others spell flat, and OpenAI now spells as a path.
SPELLINGS = {
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
    "output_audio_format": "audio.output.format",
    "input_audio_format": "audio.input.format",
    "input_audio_transcription": "audio.input.transcription",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "turn_detection": "audio.input.turn_detection",
    "modalities": "output_modalities",
    "max_response_output_tokens": "max_output_tokens",
}

# Every event of the client's that the API documents. All others may mean anything.
KNOWN = {
    "session.update",
    "transcription_session.update",
    "response.create",
    "response.cancel",
    "conversation.item.create",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "input_audio_buffer.append",
    "input_audio_buffer.clear",
    "input_audio_buffer.commit",
    "output_audio_buffer.clear",
}

# Events of OpenAI's Live API that tell the model what to do, under whatever name they carry it.
TELLING = {
    "decision.create",
    "session.commentary.append",
    "session.instructions.append",
    "session.thinking.append",
}

# The roles that tell the model nothing about what it is to do; some items have none.
SPEAKERS = ("user", "assistant", None)

# Where an event or its settings hold conversation items.
ITEMS = ("item", "items", "input", "messages")

ABSENT = object()


@dataclass(frozen=True)
class Escape:
    """The event at `index` changed `path`, at least for whoever reads it this way."""

    index: int
    reading: str
    path: str


def escapes(minted: dict, texts: list[str]) -> list[Escape]:
    """Where `texts`, in this order, change what the body `minted` of a mint request fixed."""
    found = []
    for reading, parse in READINGS.items():
        session = Session(settings_of(minted))
        for index, text in enumerate(texts):
            try:
                event = parse(text)
            except (ValueError, RecursionError):
                found.append(Escape(index, reading, "(cannot be read)"))
                continue
            found += [Escape(index, reading, path) for path in session.hear(event)]
    return found


def lost(minted: dict, created: dict, texts: list[str]) -> list[str]:
    """What the token fixed and yet did not hold in the end, in a session that began with the
    settings `created` and then heard `texts`."""
    fixed = settings_of(minted)
    session = Session(fixed, updated({}, created))
    for text in texts:
        event = last_wins(text)
        if isinstance(event, dict) and isinstance(event.get("session"), dict):
            session.state = updated(session.state, event["session"])
    return session.changed(session.state)


def settings_of(minted: dict) -> dict:
    """The settings that a mint request fixes: those in `session`, and those beside it."""
    beside = {k: v for k, v in minted.items() if k not in ("session", "expires_after")}
    return {**minted.get("session", {}), **beside}


# Reading


def last_wins(text: str) -> Any:
    return finite(jiter.from_json(text.encode(), allow_inf_nan=False))


def first_wins(text: str) -> Any:
    def first(pairs: list) -> dict:
        return dict(reversed(pairs))

    return finite(json.loads(text, object_pairs_hook=first, parse_constant=refuse))


def lenient(text: str) -> Any:
    def fold(pairs: list) -> dict:
        return {name.split("\0")[0].casefold(): value for name, value in pairs}

    return finite(json.loads(text, object_pairs_hook=fold, parse_constant=refuse))


READINGS: dict[str, Callable[[str], Any]] = {
    "first": first_wins,
    "last": last_wins,
    "lenient": lenient,
}


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def finite(value: Any) -> Any:
    """The value, unless a number in it is too big for most."""
    for inner in every(value):
        if isinstance(inner, float) and inner in (float("inf"), float("-inf")):
            raise ValueError("a number beyond all bounds")
    return value


def every(value: Any) -> Iterator[Any]:
    """The value and whatever is in it, however deep."""
    rest = [value]
    while rest:
        value = rest.pop()
        yield value
        if isinstance(value, dict):
            rest += value.values()
        elif isinstance(value, list):
            rest += value


# Settings


def named(settings: dict, parent: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting that is named, by the path that all of its spellings share."""
    for name, value in settings.items():
        path = f"{parent}{name}"
        if path in GROUPS and isinstance(value, dict):
            yield from named(value, f"{path}.")
        else:
            yield SPELLINGS.get(path, path), value


def steps(state: dict, settings: dict) -> Iterator[dict]:
    """The state after each setting of an update: where two spellings of one setting differ, who
    knows which of them counts. A group that becomes anything but an object is gone."""
    for path, value in named(settings):
        if path in GROUPS:
            state = {k: v for k, v in state.items() if not k.startswith(f"{path}.")}
        state = {**state, path: value}
        yield state


def updated(state: dict, settings: dict) -> dict:
    """The state after an update."""
    return [state, *steps(state, settings)][-1]


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON. 1 and 1.0 are one number; true is none."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@dataclass
class Session:
    """A session as the model sees it: its settings now, and those that the token fixed."""

    minted: dict
    state: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fixed = updated({}, self.minted)
        self.state = self.state or dict(self.fixed)
        # The names under which a fixed setting can turn up where no path leads.
        self.names: dict[str, list] = {}
        spelled = {path: alias for alias, path in SPELLINGS.items()}
        for path, value in self.fixed.items():
            for name in {path, path.rpartition(".")[2], spelled.get(path, path)} - {"type"}:
                self.names.setdefault(name, []).append(value)

    def hear(self, event: Any) -> list[str]:
        """Takes an event; answers the settings that it changed, for good or for one response."""
        if not isinstance(event, dict):
            return [f"(is no event) {path}" for path in self.anywhere(event) or [""]]
        kind = event.get("type")
        if not isinstance(kind, str) or kind not in KNOWN:
            return self.anywhere(event) + self.told(kind)
        beside = {k: v for k, v in event.items() if k not in ("type", "event_id", *ITEMS)}
        if isinstance(beside.get("audio"), str):
            del beside["audio"]  # Sound.
        found = self.items(event)
        for place in ("session", "response"):
            settings = beside.pop(place, None)
            if settings is None:
                continue
            if not isinstance(settings, dict):
                found += [f"(are no settings) {place}"]
                continue
            found += self.items(settings)
            found += self.update(settings, keep=place == "session")
        return found + self.update(beside, keep=False)

    def update(self, settings: dict, keep: bool) -> list[str]:
        """What an update changes, which is kept or is for one response."""
        states = [self.state, *steps(self.state, settings)]
        if keep:
            self.state = states[-1]
        return sorted({path for state in states for path in self.changed(state)})

    def changed(self, state: dict) -> list[str]:
        """Which fixed settings are others in this state."""
        found = [
            path for path, value in self.fixed.items() if not same(state.get(path, ABSENT), value)
        ]
        # A prompt brings instructions of its own.
        if "instructions" in self.fixed and "prompt" not in self.fixed:
            found += ["prompt"] if state.get("prompt") is not None else []
        # Whoever fixed the model fixed what is spent on models.
        path = "audio.input.transcription"
        transcription = state.get(path)
        if "model" in self.fixed and path not in self.fixed and isinstance(transcription, dict):
            model = transcription.get("model")
            if model is not None and not same(model, self.fixed["model"]):
                found.append(f"{path}.model")
        return found

    def items(self, holder: dict) -> list[str]:
        """What the conversation items in `holder` change."""
        return [path for name in ITEMS if name in holder for path in self.item(holder[name])]

    def item(self, item: Any) -> list[str]:
        found = []
        for inner in every(item):
            if not isinstance(inner, dict):
                continue
            role, kind = inner.get("role"), str(inner.get("type")).casefold()
            if "instructions" in self.fixed and role not in SPEAKERS:
                found.append(f"instructions, by an item of the role {role!r}")
            if "tools" in self.fixed and "mcp_list_tools" in kind:
                found.append(f"tools, by an item of the type {kind!r}")
        return found

    def anywhere(self, value: Any) -> list[str]:
        """The fixed settings that anything in `value` names with another value."""
        found = self.item(value)
        for inner in every(value):
            if not isinstance(inner, dict):
                continue
            for name, value in inner.items():
                fixed = self.names.get(name.strip().casefold())
                if fixed and not any(same(value, one) for one in fixed):
                    found.append(f"{name}, in an event that is not known")
            if "instructions" in self.fixed and "prompt" not in self.fixed:
                found += ["prompt"] if inner.get("prompt") is not None else []
        return found

    def told(self, kind: Any) -> list[str]:
        telling = isinstance(kind, str) and kind.casefold() in TELLING
        return [f"instructions, by {kind}"] if telling and "instructions" in self.fixed else []
