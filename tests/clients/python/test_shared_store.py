"""Gateways and the command line on one file: what is written stays, what is revoked ends everywhere,
and a file that is gone or damaged lets nobody in and sends nobody away."""

import asyncio
import json
import os
import random
import resource
import secrets
import shutil
import sqlite3
import statistics
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from conftest import BINARY, DEADLINE, KEYS, Gateway, Keys, running
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

IN, OUT, BROKEN = 101, 401, 503

SESSIONS = 1_000
TOKENS = 100
AT_ONCE = 50
# Seconds. What is promised is half of one; this machine may be busy.
REVOKED_WITHIN = 5


# More patient than a server is with its disk.
CLIENT = httpx.Client(timeout=2 * DEADLINE)


# The servers


@dataclass(frozen=True)
class Server(Gateway):
    """A gateway, and the process that it is."""

    process: subprocess.Popen = None

    def signs_in(self, key):
        """The status of a connect with this key."""
        try:
            with connect(self.realtime, additional_headers=bearer(key)):
                return IN
        except InvalidStatus as refusal:
            return refusal.response.status_code

    def mints(self, key):
        """The status of a mint, and the token if there is one."""
        url = f"http://{self.host}/v1/realtime/client_secrets"
        response = CLIENT.post(url, headers=bearer(key))
        return response.status_code, response.json().get("value")


@contextmanager
def serving_from(keys, *flags):
    """Runs a gateway on the file of these keys. It logs no key."""
    with open(keys.file.with_name(f"{secrets.token_hex(4)}.log"), "a+") as log:
        with running(BINARY, "--store", keys.store, *flags, log=log) as (process, host):
            yield Server(host, key="", process=process), log
        log.seek(0)
        assert "sk_" not in log.read()


@pytest.fixture
def server(keys):
    with serving_from(keys) as (server, _):
        yield server


@pytest.fixture
def two(keys):
    """Two gateways on one file."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving_from(keys))[0] for _ in range(2)]


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def until(fact, what):
    """Waits for a fact, for as long as a test waits for anything."""
    deadline = time.monotonic() + DEADLINE
    while not fact():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def is_whole(file):
    with sqlite3.connect(file) as database:
        found = database.execute("PRAGMA integrity_check").fetchall()
    database.close()
    return found == [("ok",)]


# What is written stays


def test_whatever_key_was_shown_works_though_its_maker_was_killed(keys, server):
    began = time.monotonic()
    keys.create()
    usual = time.monotonic() - began

    def create_and_be_killed(_):
        command = [KEYS, "--store", keys.store, "--json", "create", "--account", "acme"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        time.sleep(random.uniform(0, 2 * usual))
        process.kill()
        shown = process.communicate(timeout=DEADLINE)[0]
        return json.loads(shown) if shown else None

    # Two by two, so that they wait for each other's locks too.
    with ThreadPoolExecutor(2) as pool:
        made = [key for key in pool.map(create_and_be_killed, range(100)) if key]
    assert 0 < len(made) < 100, "nobody was killed at work"
    assert {server.signs_in(key["key"]) for key in made} == {IN}
    assert is_whole(keys.file)
    assert {key["id"] for key in made} <= {record["id"] for record in keys.ask("list")}


def test_whatever_token_was_answered_works_though_its_gateway_was_killed(keys, server):
    key = keys.create()["key"]
    with serving_from(keys) as (doomed, _):
        tokens, enough = [], threading.Event()

        def mint_on(_):
            with httpx.Client(base_url=f"http://{doomed.host}", headers=bearer(key)) as client:
                try:
                    while True:
                        answer = client.post("/v1/realtime/client_secrets", timeout=DEADLINE)
                        tokens.append(answer.json()["value"])
                        if len(tokens) >= 100:
                            enough.set()
                except httpx.TransportError:
                    pass

        with ThreadPoolExecutor(4) as pool:
            minting = pool.map(mint_on, range(4))
            assert enough.wait(DEADLINE)
            doomed.process.kill()
            list(minting)
    assert {server.signs_in(token) for token in tokens} == {IN}
    assert is_whole(keys.file)


def test_keys_and_tokens_outlive_their_gateway(keys):
    key = keys.create()["key"]
    with serving_from(keys) as (server, _):
        _, token = server.mints(key)
    with serving_from(keys) as (server, _):
        assert [server.signs_in(credential) for credential in [key, token]] == [IN, IN]


def test_when_a_key_was_last_used_outlives_the_gateway(keys):
    key = keys.create()
    for _ in range(5):
        with serving_from(keys) as (server, _):
            began = datetime.now(UTC)
            assert server.signs_in(key["key"]) == IN
        used = keys.ask("describe", key["id"])["last_used_at"]
        assert used and datetime.fromisoformat(used) > began - timedelta(milliseconds=1)


def test_a_gateway_is_given_the_same_key_at_every_start_and_takes_its_own_along(keys):
    given = f"sk_test_{secrets.token_hex(12)}"
    known = None
    for _ in range(2):
        with serving_from(keys, "--key", given) as (server, _):
            assert server.signs_in(given) == IN
            mine, of_page = sorted(keys.ask("list"), key=lambda record: record["expires_at"] or "")
            # Should it be killed, that one ends by itself.
            assert of_page["expires_at"] and not mine["expires_at"]
            assert known in [None, mine["id"]]
            known = mine["id"]
        assert [record["id"] for record in keys.ask("list")] == [known]


def test_the_files_beside_the_store_are_for_its_owner_alone(keys):
    before = os.umask(0)
    try:
        with serving_from(keys):
            keys.create()
            modes = {path.name: path.stat().st_mode & 0o777 for path in beside(keys.file)}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(["keys.db", "keys.db-wal", "keys.db-shm"], 0o600)


def beside(file):
    return file.parent.glob(f"{file.name}*")


# What is changed is changed everywhere


def test_a_key_of_the_command_line_signs_in_at_once(keys, two):
    for _ in range(5):
        key = keys.create()["key"]
        assert [server.signs_in(key) for server in two] == [IN, IN]
    text = "legacy-key-0123456789"
    keys.ask("import", "--account", "acme", text=text)
    assert [server.signs_in(text) for server in two] == [IN, IN]


def test_a_rotated_key_works_until_its_overlap_has_passed_and_its_tokens_live_on(keys, two):
    old = keys.create()
    _, token = two[0].mints(old["key"])
    rotated_at = time.monotonic()
    new = keys.ask("rotate", old["id"], "--overlap", "2s")
    both = [server.signs_in(key["key"]) for server in two for key in [old, new]]
    assert both == 4 * [IN] or time.monotonic() > rotated_at + 2
    until(lambda: [server.signs_in(old["key"]) for server in two] == [OUT, OUT], "the overlap")
    assert time.monotonic() >= rotated_at + 2
    for credential in [new["key"], token]:
        assert [server.signs_in(credential) for server in two] == [IN, IN]

    # Whichever of the line is revoked, all of it is.
    _, younger = two[1].mints(new["key"])
    keys.ask("revoke", old["id"])
    for credential in [old["key"], new["key"], token, younger]:
        assert [server.signs_in(credential) for server in two] == [OUT, OUT]


def test_the_list_shows_the_tokens_that_gateways_minted(keys, server):
    key = keys.create()
    server.mints(key["key"])
    (token,) = [record for record in keys.ask("list", "--tokens") if record["parent"]]
    assert (token["parent"], token["kind"]) == (key["id"], "ephemeral")
    assert token["id"] not in {record["id"] for record in keys.ask("list")}
    said = keys.run("rotate", token["id"], "--overlap", "0s").stderr
    assert said == "keys: the key is ephemeral; mint another one instead\n"


def test_nobody_is_let_in_from_the_moment_that_a_revocation_has_returned(keys, two):
    before, after = Counter(), Counter()
    for _ in range(10):
        key = keys.create()
        credentials = [key["key"], two[0].mints(key["key"])[1]]
        before += Counter(two[at].signs_in(credentials[at]) for at in range(2))
        with ThreadPoolExecutor(20) as pool:
            keys.ask("revoke", key["id"])
            connects = [(two[at % 2], credentials[at // 2 % 2]) for at in range(20)]
            after += Counter(pool.map(lambda connect: connect[0].signs_in(connect[1]), connects))
    assert (before, after) == ({IN: 20}, {OUT: 200})


@pytest.fixture
def many_files():
    """As many files as sessions need, for this process and those that it starts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = SESSIONS + 500
    assert before[1] == resource.RLIM_INFINITY or before[1] >= need, "too few files: ulimit -Hn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], need), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.anyio
async def test_1000_sessions_at_two_gateways_end_when_the_command_line_takes_their_key(
    many_files, keys, two
):
    parent = keys.create()
    with ThreadPoolExecutor(8) as pool:
        minted = pool.map(lambda _: two[0].mints(parent["key"]), range(TOKENS))
        tokens = [token for _, token in minted]
    assert all(tokens)

    turn, is_open = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(0)

    async def live(at):
        """When a session ended, and how."""
        protocols = ["realtime", f"openai-insecure-api-key.{tokens[at % TOKENS]}"]
        async with turn:
            socket = await connect_async(
                two[at // TOKENS % 2].realtime, subprotocols=protocols, ping_interval=None
            )
            assert json.loads(await socket.recv())["type"] == "session.created"
        is_open.release()
        events = []
        try:
            while True:
                events.append(json.loads(await socket.recv())["type"])
        except ConnectionClosed as closed:
            return time.monotonic(), (*events, closed.rcvd and closed.rcvd.code)

    async with asyncio.timeout(6 * DEADLINE):
        sessions = [asyncio.create_task(live(at)) for at in range(SESSIONS)]
        for _ in range(SESSIONS):
            await is_open.acquire()
        assert not any(session.done() for session in sessions)
        command = [KEYS, "--store", keys.store, "revoke", parent["id"]]
        revoke = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        assert await revoke.wait() == 0
        returned = time.monotonic()
        ended = await asyncio.gather(*sessions)

    assert Counter(how for _, how in ended) == {("error", 4001): SESSIONS}
    late = [max(0, at - returned) for at, _ in ended]
    cuts = statistics.quantiles(late, n=100)
    told = [min(late), cuts[49], cuts[98], max(late)]
    print(f"\n{SESSIONS} sessions end:", *(f"{at:.3f}" for at in told), "s (min, p50, p99, max)")
    assert max(late) < REVOKED_WITHIN


# What can happen to a file


@dataclass(frozen=True)
class Store:
    """A file in use, with a key in it, and a gateway that has let that in."""

    keys: Keys
    key: str
    server: Server
    log: object

    @property
    def file(self):
        return self.keys.file

    def statuses(self):
        """What a good key and an unknown one are told."""
        return self.server.signs_in(self.key), self.server.signs_in("sk_test_unknown")

    def logged(self):
        self.log.seek(0)
        return self.log.read()

    def is_back(self):
        """Waits until the file is answered from, having been wrong at no time meanwhile."""
        seen = []

        def is_good():
            seen.append(self.statuses())
            return seen[-1] == (IN, OUT)

        until(is_good, seen)
        assert set(seen) <= {(IN, OUT), (BROKEN, BROKEN), (IN, BROKEN), (BROKEN, OUT)}


@pytest.fixture
def store(keys):
    key = keys.create()["key"]
    with serving_from(keys) as (server, log):
        store = Store(keys, key, server, log)
        assert store.statuses() == (IN, OUT)
        assert server.mints(key)[1]
        yield store


def test_a_file_that_is_moved_away_and_back(store):
    away = store.file.with_name("away.db")
    store.file.rename(away)
    assert store.statuses() == (BROKEN, BROKEN)
    assert store.server.mints(store.key)[0] == BROKEN
    assert "the file is gone" in store.logged()
    away.rename(store.file)
    assert store.statuses() == (IN, OUT)
    assert store.server.mints(store.key)[0] == 200


@pytest.mark.parametrize("with_log", [True, False])
def test_another_store_in_the_place_of_the_file(store, with_log):
    other = Keys(store.file.with_name("other.db"))
    wrong = other.create()["key"]
    moved = list(beside(store.file)) if with_log else [store.file]
    away = store.file.with_name("away")
    away.mkdir()
    for path in moved:
        path.rename(away / path.name)
    shutil.copy(other.file, store.file)

    assert store.statuses() == (BROKEN, BROKEN)
    assert store.server.signs_in(wrong) == BROKEN
    assert store.server.mints(store.key)[0] == BROKEN
    assert "restart" in store.logged()
    for path in beside(store.file):
        if with_log or path == store.file:
            path.unlink()
    for path in away.iterdir():
        path.rename(path.parent.with_name(path.name))
    store.is_back()


def backed_up(file):
    """A copy as the documentation has it made."""
    copy = file.with_name("copy.db")
    with sqlite3.connect(file) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    return copy


def truncate(file):
    os.truncate(file, 0)


def overwrite(file):
    with open(file, "r+b") as damaged:
        damaged.write(secrets.token_bytes(file.stat().st_size))


@pytest.mark.parametrize("restore", [os.replace, shutil.copyfile])
@pytest.mark.parametrize("damage", [truncate, overwrite])
def test_a_damaged_file_lets_nobody_in_wrongly_and_is_restored_from_a_copy(store, damage, restore):
    copy = backed_up(store.file)
    damage(store.file)
    for _ in range(20):
        good, bad = store.statuses()
        assert good in [IN, BROKEN] and bad in [OUT, BROKEN]
        assert store.server.mints(store.key)[0] in [200, BROKEN]
    restore(copy, store.file)
    store.is_back()
    assert store.server.mints(store.key)[0] == 200


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_revocation_is_kept_or_refused_though_a_file_beside_the_store_is_gone(store, suffix):
    store.file.with_name(store.file.name + suffix).unlink()
    revoked = store.keys.run("revoke", "--account", "acme").returncode == 0
    good, bad = store.statuses()
    assert bad in [OUT, BROKEN]
    assert good in ([OUT, BROKEN] if revoked else [IN, BROKEN])
    store.server.process.terminate()
    store.server.process.wait(DEADLINE)
    with serving_from(store.keys) as (server, _):
        assert server.signs_in(store.key) == (OUT if revoked else IN)


def test_a_lock_that_another_process_holds_stops_mints_and_nobody_else(store):
    other = sqlite3.connect(store.file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        mint = pool.submit(store.server.mints, store.key)
        create = pool.submit(store.keys.run, "create", "--account", "acme")
        sign_ins = Counter()
        while not mint.done():
            sign_ins[store.statuses()] += 1
        status, said = mint.result()[0], create.result()
        assert time.monotonic() < began + DEADLINE
    assert (status, said.returncode, said.stdout) == (BROKEN, 1, "")
    assert sign_ins.keys() == {(IN, OUT)}
    for told in [said.stderr, store.logged()]:
        assert "another process holds the file locked" in told
    other.execute("ROLLBACK")
    other.close()
    assert store.server.mints(store.key)[0] == 200


def test_a_full_disk_stops_mints_and_nobody_else(keys):
    # Files that may not grow are the same to the server, and need no disk of one's own.
    key = keys.create()["key"]
    with serving_from(keys) as (server, log):
        store = Store(keys, key, server, log)
        assert store.server.mints(store.key)[0] == 200
        log_of_store = store.file.with_name("keys.db-wal").stat().st_size
        limit = store.server.process.pid, resource.RLIMIT_FSIZE
        before = resource.prlimit(*limit, (log_of_store, resource.RLIM_INFINITY))
        for _ in range(3):
            assert store.server.mints(store.key)[0] == BROKEN
            assert store.statuses() == (IN, OUT)
        resource.prlimit(*limit, before)
        status, token = store.server.mints(store.key)
        assert (status, store.server.signs_in(token)) == (200, IN)
    assert is_whole(keys.file)
