"""Starts the example servers, one gateway for all tests, and mints their tokens; runs the command line."""

import json
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from openai import AsyncOpenAI, OpenAI

DEADLINE = 10
ROOT = Path(__file__).parents[3]
BINARY = os.environ.get("GATEWAY", str(ROOT / "target/debug/examples/gateway"))
PROXY = os.environ.get("PROXY", str(ROOT / "target/debug/examples/proxy"))
KEYS = os.environ.get("KEYS", str(ROOT / "target/debug/examples/keys"))


@dataclass(frozen=True)
class Gateway:
    """Where it listens, and a secret key of its."""

    host: str
    key: str
    # Seconds that a token lives which is to expire.
    short: int = 2

    @property
    def realtime(self) -> str:
        return f"ws://{self.host}/v1/realtime"

    def client(self, make: type, key: str | None = None) -> OpenAI | AsyncOpenAI:
        """A client of OpenAI's that speaks to this gateway. It asks once, so that what it reports
        is what it was told the first time."""
        base = f"http://{self.host}/v1"
        return make(api_key=key or self.key, base_url=base, max_retries=0, timeout=DEADLINE)

    def mint(self, seconds: int = 60, **session) -> str:
        """A token, as the backend of a customer mints it."""
        with self.client(OpenAI) as client:
            secret = client.realtime.client_secrets.create(
                expires_after={"anchor": "created_at", "seconds": seconds},
                session={"type": "realtime", **session},
            )
        return secret.value


@dataclass(frozen=True)
class Keys:
    """The command line, on a store in a file."""

    file: Path

    @property
    def store(self) -> str:
        return f"sqlite:{self.file}"

    def run(self, *args: str, text: str = "", **options) -> subprocess.CompletedProcess:
        """What comes of a command that is given `text` to read."""
        options = {"capture_output": True, "input": text, "timeout": DEADLINE, **options}
        command = [KEYS, "--store", self.store, *args]
        return subprocess.run(command, text=True, errors="surrogateescape", **options)

    def shown(self, *args: str, text: str = "") -> str:
        """What a command shows to a person."""
        done = self.run(*args, text=text)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def ask(self, *args: str, text: str = ""):
        """What a command tells a program."""
        return json.loads(self.shown("--json", *args, text=text))

    def create(self, account: str = "acme", *flags: str) -> dict:
        return self.ask("create", "--account", account, *flags)


@pytest.fixture
def keys(tmp_path):
    """The command line, on a store that is not there yet."""
    return Keys(tmp_path / "keys.db")


@contextmanager
def listening(binary: str, *flags: str, log=None, **environment: str) -> Iterator[str]:
    """Runs a server; its address. Its log goes to the file `log`."""
    with running(binary, *flags, log=log, **environment) as (_, host):
        yield host


@contextmanager
def running(
    binary: str, *flags: str, log=None, **environment: str
) -> Iterator[tuple[subprocess.Popen, str]]:
    """The same, with the process: it may be killed."""
    # Keys of its own, unless the test says otherwise.
    store = [] if "--store" in flags else ["--store", "memory"]
    process = subprocess.Popen(
        [binary, "--listen", "127.0.0.1:0", *store, *flags],
        # Its log would drown the report; RUST_LOG=debug brings it back.
        env={"RUST_LOG": "error", **os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=log,
        # Python ignores the signal of a file that may not grow. So do its children: they are told.
        restore_signals=False,
    )
    try:
        assert select.select([process.stdout], [], [], DEADLINE)[0], f"{binary} does not listen"
        line = process.stdout.readline().decode().strip()
        said, _, host = line.partition("http://")
        assert said == "listening on ", f"{binary}: {line}"
        yield process, host
        process.terminate()
        # It ends when it is told to, and well unless the test killed it, or this test run fails.
        assert process.wait(DEADLINE) in [0, -signal.SIGKILL]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def serving(profile: str = "any", *flags: str) -> Iterator[Gateway]:
    """Runs a gateway for the clients of one provider, or of all."""
    key = f"sk_test_{secrets.token_hex(12)}"
    with listening(BINARY, "--key", key, "--profile", profile, *flags) as host:
        # OpenAI's tokens live 10 seconds at least.
        yield Gateway(host, key, short=10 if profile == "openai" else 2)


@pytest.fixture(scope="session")
def gateway():
    with serving() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def elsewhere():
    """Another gateway, whose keys are nothing to the first."""
    with serving() as gateway:
        yield gateway


@pytest.fixture
def expiring(gateway):
    """A token, and a way to wait until it has expired."""
    token = gateway.mint(gateway.short)
    expired_at = time.monotonic() + gateway.short
    return token, lambda: time.sleep(max(0, expired_at + 0.01 - time.monotonic()))


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
