"""The command line for keys: what it answers to people and to programs, and what it never shows."""

import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from types import NoneType

import pytest
from conftest import KEYS, Keys

NONE_SUCH = "there is no key"
NO_KEY = "there is no key"
OPTIONAL = (str, NoneType)
COUNT = (int, NoneType)
LIST = (list, NoneType)

RECORD = {
    "id": str,
    "account": str,
    "kind": str,
    "environment": str,
    "state": str,
    "key_hint": OPTIONAL,
    "algorithm": str,
    "line": str,
    "successor": OPTIONAL,
    "parent": OPTIONAL,
    "created_at": str,
    "expires_at": OPTIONAL,
    "revoked_at": OPTIONAL,
    "last_used_at": OPTIONAL,
    "models": LIST,
    "origins": LIST,
    "uses": COUNT,
    "max_session_seconds": COUNT,
    "metadata": (dict, NoneType),
    "requests_per_minute": COUNT,
    "usage_limit": COUNT,
    "sessions_per_minute": COUNT,
    "max_sessions": COUNT,
}
ISSUED = RECORD | {"key": str}
ENTRY = {
    "number": int,
    "at": str,
    "by": str,
    "action": str,
    "id": str,
    "account": OPTIONAL,
    "successor": OPTIONAL,
    "plan_from": (dict, NoneType),
    "plan_to": (dict, NoneType),
}

# A terminal would obey some of it, a table break at some, and a reader believe the rest.
HOSTILE = "eve\x1b[31m\n\t\r\x07\x9b2J\u202emoc.emca\u2066 -"
ESCAPED = r"eve\u{1b}[31m\n\t\r\u{7}\u{9b}2J\u{202e}moc.emca\u{2066} -"


def is_shaped(value, fields):
    assert value.keys() == fields.keys()
    for name, kind in fields.items():
        assert isinstance(value[name], kind), (name, value[name])
    return value


def time(text):
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def refused(keys, *args, code=1, text="", **options):
    """What a command says that fails, and shows nothing else."""
    done = keys.run(*args, text=text, **options)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert "panicked" not in done.stderr
    return done.stderr


def states(keys, *flags):
    return {record["id"]: record["state"] for record in keys.ask("list", *flags)}


# What is made


def test_a_key_is_created_as_asked(keys):
    plain = is_shaped(keys.create("acme"), ISSUED)
    assert re.fullmatch(r"sk_live_[0-9A-Za-z]{39}", plain["key"])
    hint = f"sk_live_…{plain['key'][-4:]}"
    assert (plain["account"], plain["kind"], plain["state"]) == ("acme", "secret", "active")
    assert (plain["environment"], plain["key_hint"]) == ("live", hint)
    assert (plain["line"], plain["expires_at"], plain["usage_limit"]) == (plain["id"], None, None)

    flags = ["--env", "test", "--expires", "30d", "--requests-per-minute", "60"]
    full = keys.create("acme", *flags, "--usage-limit", "1000000", "--max-sessions", "3")
    assert is_shaped(full, ISSUED)["key"].startswith("sk_test_")
    assert time(full["expires_at"]) - time(full["created_at"]) == timedelta(days=30)
    plan = full["requests_per_minute"], full["usage_limit"], full["max_sessions"]
    assert (full["environment"], *plan) == ("test", 60, 1_000_000, 3)

    for issued in [plain, full]:
        del issued["key"]
    assert keys.ask("list") == [plain, full]
    assert keys.ask("describe", full["id"]) == full


def test_the_file_is_made_for_its_owner_alone(keys):
    before = os.umask(0)
    try:
        keys.create()
    finally:
        os.umask(before)
    assert keys.file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_keeps_its_mode(keys):
    keys.create()
    keys.file.chmod(0o640)
    keys.create()
    assert keys.file.stat().st_mode & 0o777 == 0o640
    assert len(keys.ask("list")) == 2


def test_keys_are_kept_where_it_runs_unless_it_is_told_where(keys):
    command = [KEYS, "create", "--account", "acme"]
    subprocess.run(command, cwd=keys.file.parent, check=True, capture_output=True)
    assert [record["account"] for record in keys.ask("list")] == ["acme"]


def test_many_make_the_file_at_once(keys):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(keys.create, [str(at) for at in range(8)]))
    assert {key["id"] for key in made} == states(keys).keys()


# What is changed


def test_a_rotated_key_works_beside_its_successor_for_a_while(keys):
    old = keys.create("acme", "--env", "test", "--usage-limit", "7")
    new = is_shaped(keys.ask("rotate", old["id"], "--overlap", "10m"), ISSUED)
    assert (new["account"], new["line"], new["usage_limit"]) == ("acme", old["id"], 7)
    assert keys.ask("describe", old["id"])["successor"] == new["id"]
    assert "its successor" in refused(keys, "rotate", old["id"], "--overlap", "1s")
    assert new["key"].startswith("sk_test_") and new["key"] != old["key"]
    before = keys.ask("describe", old["id"])
    assert before["state"] == "active"
    assert time(before["expires_at"]) - time(new["created_at"]) == timedelta(minutes=10)

    newest = keys.ask("rotate", new["id"], "--overlap", "0s")
    assert states(keys)[new["id"]] == "expired"
    assert "revoked or has expired" in refused(keys, "rotate", new["id"], "--overlap", "1s")
    # Those before and after it in its line go with it.
    assert keys.ask("revoke", new["id"]) == {"revoked": 3}
    assert states(keys) == dict.fromkeys([old["id"], new["id"], newest["id"]], "revoked")


def test_a_plan_is_changed_as_far_as_it_is_named_and_for_the_whole_line(keys, monkeypatch):
    def plan(key):
        record = keys.ask("describe", key["id"])
        bounds = ["requests", "sessions"]
        minute = [record[f"{bound}_per_minute"] for bound in bounds]
        return *minute, record["usage_limit"], record["max_sessions"]

    old = keys.create("acme", "--requests-per-minute", "60", "--max-sessions", "3")
    new = keys.ask("rotate", old["id"], "--overlap", "10m")
    other = keys.create("acme", "--requests-per-minute", "none", "--max-sessions", "0")
    assert (plan(old), plan(new)) == 2 * ((60, None, None, 3),)

    monkeypatch.setenv("SUDO_USER", "alice")
    flags = ["--requests-per-minute", "0", "--usage-limit", str(2**64 - 1)]
    changed = is_shaped(keys.ask("plan", old["id"], *flags), RECORD)
    assert changed == keys.ask("describe", old["id"])
    assert (plan(old), plan(new)) == 2 * ((0, None, 2**64 - 1, 3),)
    flags = ["--sessions-per-minute", "9", "--max-sessions", "none", "--usage-limit", "none"]
    assert "sessions_per_minute  9\n" in keys.shown("plan", new["id"], *flags)
    assert (plan(old), plan(new)) == 2 * ((0, 9, None, None),)
    assert plan(other) == (None, None, None, 0)

    # Once more is no change.
    keys.ask("plan", new["id"], *flags)
    entries = [e for e in keys.ask("audit", "--key", old["id"]) if e["action"] == "replanned"]
    between = {"requests_per_minute": 0, "usage_limit": 2**64 - 1, "max_sessions": 3}
    first = {"requests_per_minute": 60, "max_sessions": 3}
    last = {"requests_per_minute": 0, "sessions_per_minute": 9}
    told = [(is_shaped(e, ENTRY)["by"], e["plan_from"], e["plan_to"]) for e in entries]
    assert told == [("keys (alice)", first, between), ("keys (alice)", between, last)]


def test_one_key_of_a_line_is_taken_back_alone(keys):
    old = keys.create()
    new = keys.ask("rotate", old["id"], "--overlap", "10m")
    shown = keys.shown("revoke", old["id"], "--alone")
    assert shown == f"revoked: key {old['id']}; 1 keys and tokens in all\n"
    assert states(keys) == {old["id"]: "revoked", new["id"]: "active"}


def test_an_account_is_taken_back_whole_or_as_far_as_a_time(keys):
    first, second = keys.create("acme"), keys.create("acme")
    other = keys.create("umbrella")
    for at in ["2020-01-01T00:00:00Z", first["created_at"]]:
        assert keys.ask("revoke", "--account", "acme", "--issued-before", at) == {"revoked": 0}
    at = second["created_at"]
    assert keys.ask("revoke", "--account", "acme", "--issued-before", at) == {"revoked": 1}
    expected = {first["id"]: "revoked", second["id"]: "active", other["id"]: "active"}
    assert states(keys) == expected

    shown = keys.shown("revoke", "--account", "acme")
    assert shown == "revoked: account acme; 2 keys and tokens in all\n"
    assert states(keys) == expected | {second["id"]: "revoked"}


def test_a_deleted_key_is_gone(keys):
    kept, gone = keys.create(), keys.create()
    assert keys.ask("delete", gone["id"]) == {"deleted": gone["id"]}
    assert states(keys).keys() == {kept["id"]}
    for command in ["describe", "delete"]:
        assert NO_KEY in refused(keys, command, gone["id"])


# What is taken in


def test_a_key_is_imported_by_its_text_or_its_digest(keys):
    text, other = "legacy-key-0123456789", "legacy-key-9876543210"
    record = keys.ask("import", "--account", "acme", "--env", "test", text=text + "\n")
    assert is_shaped(record, RECORD)["environment"] == "test"
    digest = hashlib.sha256(other.encode()).hexdigest()
    by_digest = keys.ask("import", "--account", "acme", "--digest", digest)
    assert is_shaped(by_digest, RECORD)["algorithm"] == "sha256"

    for known in [text, other]:
        said = refused(keys, "import", "--account", "acme", text=known)
        assert said == "keys: there is such a key already\n"
    for known in [hashlib.sha256(text.encode()).hexdigest(), digest.upper()]:
        said = refused(keys, "import", "--account", "acme", "--digest", known)
        assert said == "keys: there is such a key already\n"
    assert len(keys.ask("list")) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the key is empty"),
        ("\n", "the key is empty"),
        ("two keys", "other than visible ASCII"),
        ("one\ntwo\n", "other than visible ASCII"),
        ("a,b", "other than visible ASCII"),
        ("schlüssel", "other than visible ASCII"),
        ("\udcff", "UTF-8"),
        ("a" * 4097, "longer than 4096 bytes"),
        ("a" * 1_000_000, "longer than 4096 bytes"),
    ],
)
def test_what_cannot_be_a_key_is_not_imported(keys, text, said):
    assert said in refused(keys, "import", "--account", "acme", text=text)
    assert keys.ask("list") == []


def test_a_mistyped_key_is_not_imported(keys, tmp_path):
    key = Keys(tmp_path / "elsewhere.db").create()["key"]
    mistyped = key[:-1] + ("a" if key[-1] != "a" else "b")
    said = refused(keys, "import", "--account", "acme", text=mistyped)
    assert "wrong checksum" in said
    assert mistyped not in said
    assert keys.ask("import", "--account", "acme", text=key)["state"] == "active"


# What is looked for


def test_lists_are_of_an_account_or_of_what_a_key_looks_like(keys):
    live = keys.create("acme")
    test = keys.create("acme", "--env", "test")
    other = keys.create("umbrella")
    for flags, found in [
        ([], [live, test, other]),
        (["--account", "acme"], [live, test]),
        (["--account", "acm"], []),
        (["--prefix", "sk_test_"], [test]),
        (["--last-four", live["key"][-4:]], [live]),
        (["--tokens"], [live, test, other]),
    ]:
        assert [record["id"] for record in keys.ask("list", *flags)] == [k["id"] for k in found]


def test_the_audit_trail_tells_what_was_done_and_by_whom(keys, monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("USER", "mallory")
    old = keys.create("acme")
    monkeypatch.setenv("SUDO_USER", "alice")
    new = keys.ask("rotate", old["id"], "--overlap", "0s")
    keys.ask("revoke", new["id"])
    keys.ask("delete", old["id"])
    other = keys.create("umbrella")

    entries = [is_shaped(entry, ENTRY) for entry in keys.ask("audit")]
    told = [(e["action"], e["id"], e["account"], e["successor"]) for e in entries]
    assert told[:3] == [
        ("created", old["id"], "acme", None),
        ("rotated", old["id"], "acme", new["id"]),
        ("created", new["id"], "acme", None),
    ]
    assert sorted(told[3:5]) == sorted(
        [("revoked", id_, "acme", None) for id_ in [old["id"], new["id"]]]
    )
    assert told[5:] == [
        ("removed", old["id"], "acme", None),
        ("created", other["id"], "umbrella", None),
    ]
    assert [entry["by"] for entry in entries] == ["keys (mallory)"] + 6 * ["keys (alice)"]
    numbers = [entry["number"] for entry in entries]
    assert numbers == sorted(set(numbers))

    assert keys.ask("audit", "--account", "acme") == entries[:6]
    of_old = [entry for entry in entries if entry["id"] == old["id"]]
    assert keys.ask("audit", "--key", old["id"]) == of_old
    assert keys.ask("audit", "--key", "none") == []


# What people see


def test_tables_are_aligned(keys):
    keys.create("a")
    keys.create("a-longer-account", "--env", "test")
    for command, columns in [("list", 8), ("audit", 8)]:
        head, *rows = keys.shown(command).splitlines()
        begins = [match.start() for match in re.finditer(r"(?:^|(?<=  ))\S", head)]
        assert (len(begins), len(rows)) == (columns, 2)
        for row in rows:
            assert all(row[at] != " " and row[:at].endswith("  ") for at in begins[1:])


def test_names_that_terminals_obey_are_shown_and_not_obeyed(keys, monkeypatch):
    monkeypatch.setenv("SUDO_USER", HOSTILE)
    key = keys.create(HOSTILE)
    assert key["account"] == HOSTILE
    keys.ask("rotate", key["id"], "--overlap", "1m")
    for args, rows in [
        (["list"], 3),
        (["list", "--account", HOSTILE], 3),
        (["audit"], 4),
        (["describe", key["id"]], None),
        (["create", "--account", HOSTILE], None),
        (["revoke", "--account", HOSTILE], 1),
    ]:
        shown = keys.shown(*args)
        assert ESCAPED in shown
        assert not set(HOSTILE) & set(shown) - set(" -\n") - set(ESCAPED)
        assert rows is None or shown.count("\n") == rows
    for args in [["describe", HOSTILE], ["delete", HOSTILE], ["revoke", HOSTILE]]:
        said = refused(keys, *args)
        assert said.count("\n") == 1
        assert not set(said[:-1]) & set("\x1b\n\t\r\x07\x9b\u202e")


# What goes wrong


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["describe", "key_none"], 1, NO_KEY),
        (["delete", "key_none"], 1, NO_KEY),
        (["revoke", "key_none"], 1, NO_KEY),
        (["revoke", "key_none", "--alone"], 1, NO_KEY),
        (["rotate", "key_none", "--overlap", "1m"], 1, NONE_SUCH),
        (["plan", "key_none", "--max-sessions", "1"], 1, NO_KEY),
        (["plan", "key_none"], 2, "--usage-limit"),
        (["plan", "--max-sessions", "1"], 2, "<ID>"),
        (["plan", "key_none", "--max-sessions", "None"], 2, "use a number, or none"),
        (["plan", "key_none", "--usage-limit", str(2**64)], 2, "too large"),
        (["revoke", "--account", "nobody"], 1, "there is no key of account"),
        (["list", "--store", "memory"], 1, "use --store sqlite:FILE"),
        (["list", "--store", "keys.db"], 2, "use memory, or sqlite:FILE"),
        (["list", "--store", "sqlite:"], 2, "use memory, or sqlite:FILE"),
        (["rotate", "key_none"], 2, "--overlap"),
        (["rotate", "key_none", "--overlap", "soon"], 2, "--overlap"),
        (["revoke"], 2, "<ID>"),
        (["revoke", "key_none", "--account", "acme"], 2, "cannot be used with"),
        (["revoke", "--issued-before", "2026-01-01T00:00:00Z"], 2, "--account"),
        (["revoke", "--account", "acme", "--issued-before", "monday"], 2, "--issued-before"),
        (["revoke", "--account", "acme", "--alone"], 2, "cannot be used with"),
        (["create"], 2, "--account"),
        (["create", "--account", ""], 2, "--account"),
        (["create", "--account", "acme", "--env", "prod"], 2, "live, test"),
        (["create", "--account", "acme", "--expires", "0s"], 2, "must live for a while"),
        (["create", "--account", "acme", "--expires", "a month"], 2, "--expires"),
        (["create", "--account", "acme", "--expires", "-1d"], 2, "unexpected"),
        (["create", "--account", "acme", "--requests-per-minute", "-1"], 2, "unexpected"),
        (["create", "--account", "acme", "--requests-per-minute", "4294967296"], 2, "4294967296"),
        (["create", "--account", "acme", "--usage-limit", "many"], 2, "--usage-limit"),
        (["import", "--account", "acme", "--digest", "12"], 2, "64 hexadecimal digits"),
        (["import", "--account", "acme", "--digest", "g" * 64], 2, "64 hexadecimal digits"),
        (["import", "--account", "acme", "--digest", "ü" * 32], 2, "64 hexadecimal digits"),
        (["import", "--account", "acme", "--algorithm", "sha256"], 2, "--digest"),
        (
            ["import", "--account", "acme", "--digest", "0" * 64, "--algorithm", "md5"],
            2,
            "use sha256",
        ),
        (
            ["import", "--account", "acme", "--digest", "0" * 64, "--algorithm", "hmac-sha256:1"],
            1,
            "keys are not digested by hmac-sha256:1 here",
        ),
        ([], 2, "Usage"),
        (["make"], 2, "unrecognized subcommand"),
    ],
)
def test_misuse_is_told_and_changes_nothing(keys, args, code, said):
    kept = keys.create("kept")
    assert said in refused(keys, *args, code=code)
    assert states(keys) == {kept["id"]: "active"}


def another_kind(file):
    file.write_text("Not a database, though it is long enough to be one.\n" * 100)


def another_program(file):
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE notes (text)")
    database.close()


def a_newer_version(file):
    Keys(file).create()
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 1000")
    database.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (another_kind, "not an SQLite database"),
        (another_program, "database of another program"),
        (a_newer_version, "newer version of this program"),
        (lambda file: file.mkdir(), "cannot be opened"),
        (lambda file: file.symlink_to(file), "file cannot be looked at"),
    ],
)
def test_a_file_that_is_no_store_is_told_and_left_as_it_is(keys, make, said):
    make(keys.file)
    was = keys.file.read_bytes() if keys.file.is_file() else None
    for command in [["list"], ["create", "--account", "acme"]]:
        assert said in refused(keys, *command)
    assert was == (keys.file.read_bytes() if keys.file.is_file() else None)


def test_a_file_is_made_for_the_first_key_alone(keys):
    for command in [["list"], ["audit"], ["describe", "key_x"], ["revoke", "key_x"]]:
        assert "there is no file" in refused(keys, *command)
        assert not keys.file.exists()
    keys.create()
    assert len(keys.ask("list")) == 1
    shutil.rmtree(keys.file.parent)
    assert "file cannot be made" in refused(keys, "create", "--account", "acme")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_key_that_cannot_be_shown_can_be_taken_back(keys, flags):
    # /dev/full is a disk without room.
    with open("/dev/full", "w") as full:
        done = keys.run(
            *flags, "create", "--account", "acme", capture_output=False, stdout=full, stderr=-1
        )
    (record,) = keys.ask("list")
    assert done.returncode == 1
    assert done.stderr.startswith(f"keys: key {record['id']} was made and cannot be shown")
    assert "sk_live_" not in done.stderr
    assert keys.ask("revoke", record["id"]) == {"revoked": 1}


# What is never shown


def test_a_key_is_shown_once_and_written_nowhere(keys):
    imported = "legacy-key-0123456789"
    secrets = [imported]
    told = [keys.shown("import", "--account", "acme", text=imported)]
    told.append(refused(keys, "import", "--account", "acme", text=imported))
    for flags in [[], ["--json"]]:
        made = keys.shown(*flags, "create", "--account", "acme")
        id_ = re.search(r"key_\w+", made)[0]
        rotated = keys.shown(*flags, "rotate", id_, "--overlap", "10m")
        for shown in [made, rotated]:
            (key,) = re.findall(r"sk_live_\w+", shown)
            secrets.append(key)
        told += [keys.shown(*flags, command) for command in ["list", "audit"]]
        told.append(keys.shown(*flags, "describe", id_))
        told.append(keys.shown(*flags, "revoke", id_))
        told.append(refused(keys, *flags, "rotate", id_, "--overlap", "1m"))
        told.append(keys.shown(*flags, "delete", id_))
    assert len(set(secrets)) == 5
    files = [path.read_bytes() for path in keys.file.parent.iterdir()]
    for secret in secrets:
        # Nor most of it: a hint has the last four.
        part = secret[4:-4]
        assert not [text for text in told if part in text]
        assert not [file for file in files if part.encode() in file]
