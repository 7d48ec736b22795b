"""Svara's clients: `requests`, as its documentation has them, which read in headers what is left; and
`websockets`, whose sessions are counted with the rest."""

import json
import re
import secrets
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import pytest
import requests
from conftest import BINARY, DEADLINE, listening
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

MESSAGE = {"to": "+919812345678", "text": "Your order has left.", "channel": "sms"}
NOWHERE = {"to": "nobody@nowhere.invalid", "text": "Your order has left."}
MINUTE = 60
ANSWERS = 10_000
WORKERS = 8


class Svara:
    """A gateway whose keys have this plan, and one of its keys."""

    def __init__(self, host: str, key: str):
        self.host = host
        self.key = key
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {key}"

    def ask(self, method: str, path: str, **options) -> requests.Response:
        url = f"http://{self.host}{path}"
        return self.session.request(method, url, timeout=DEADLINE, **options)

    def send(self, message=MESSAGE) -> requests.Response:
        return self.ask("POST", "/v1/send", json=message)

    def usage(self) -> dict:
        response = self.ask("GET", "/v1/usage")
        response.raise_for_status()
        return response.json()

    def connect(self, path: str = "/v1/realtime", by: str = "header"):
        """A session that has begun."""
        url = f"ws://{self.host}{path}"
        if by == "query":
            return connect(f"{url}?api_key={self.key}")
        return connect(url, additional_headers={"Authorization": f"Bearer {self.key}"})


@contextmanager
def svara(*flags: str, environment: str = "live", profile: str = "svara", **options):
    key = f"sk_{environment}_{secrets.token_hex(12)}"
    with listening(BINARY, "--key", key, "--profile", profile, *flags, **options) as host:
        yield Svara(host, key)


def until_a_minute_has(seconds: float):
    """Windows are whole minutes: what is to be seen in one needs so much of it."""
    left = MINUTE - time.time() % MINUTE
    if left < seconds:
        time.sleep(left + 0.01)


def told(response: requests.Response) -> dict[str, int]:
    """What the headers tell, which all of them must."""
    return {
        name: int(response.headers[f"X-{name}"])
        for name in [
            "RateLimit-Limit",
            "RateLimit-Remaining",
            "RateLimit-Reset",
            "Usage-Limit",
            "Usage-Remaining",
        ]
    }


def assert_told(response, requests_left: int, usage_left: int, of=(20, 3)):
    headers = told(response)
    reset = headers.pop("RateLimit-Reset")
    assert reset % MINUTE == 0 and time.time() - 1 < reset <= time.time() + MINUTE
    assert headers == {
        "RateLimit-Limit": of[0],
        "RateLimit-Remaining": requests_left,
        "Usage-Limit": of[1],
        "Usage-Remaining": usage_left,
    }


PLAN = ["--requests-per-minute", "20", "--usage-limit", "3"]


def test_each_message_that_is_sent_costs_a_request_and_a_unit_and_no_other_does():
    until_a_minute_has(10)
    with svara(*PLAN) as client:
        for left in [2, 1]:
            response = client.send()
            assert response.status_code == 200
            answer = response.json()
            assert re.fullmatch(r"msg_\w+", answer.pop("id"))
            to, channel = MESSAGE["to"], MESSAGE["channel"]
            sent = {"status": "sent", "simulated": False, "to": to, "channel": channel}
            assert answer == sent
            assert_told(response, 17 + left, left)

        # Errors cost a request each, and no unit.
        response = client.send(NOWHERE)
        assert (response.status_code, response.json()["error"]["param"]) == (422, "to")
        assert_told(response, 17, 1)
        response = client.send({"to": MESSAGE["to"]})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "text")
        assert_told(response, 16, 1)
        for method, path, status in [("PUT", "/v1/send", 405), ("GET", "/v1/nothing", 404)]:
            response = client.ask(method, path)
            assert response.status_code == status
        assert_told(response, 14, 1)

        # To ask what is left is a request, too.
        response = client.ask("GET", "/v1/usage")
        assert_told(response, 13, 1)
        reset = told(response)["RateLimit-Reset"]
        usage = response.json()
        assert usage["requests"] == {"limit": 20, "used": 7, "remaining": 13, "reset": reset}
        period = usage["usage"].pop("period")
        assert usage["usage"] == {"limit": 3, "used": 2, "remaining": 1}
        start, end = (datetime.fromisoformat(period[at]) for at in ["start", "end"])
        assert start <= datetime.now(UTC) < end
        assert start == start.replace(day=1, hour=0, minute=0, second=0)
        assert (end.month - start.month) % 12 == 1 and end == end.replace(day=1)

        assert client.send().status_code == 200
        # The month is spent, and nothing is sent.
        response = client.send()
        assert (response.status_code, code(response)) == (429, "insufficient_quota")
        assert int(response.headers["Retry-After"]) > 0
        assert_told(response, 11, 0)
        assert client.usage()["usage"]["used"] == 3


def code(response: requests.Response) -> str:
    return response.json()["error"]["code"]


def test_what_a_test_key_sends_is_simulated_and_costs_no_unit():
    until_a_minute_has(10)
    with svara(*PLAN, environment="test") as client:
        for left in range(19, 9, -1):
            response = client.send()
            assert response.status_code == 200
            assert (response.json()["status"], response.json()["simulated"]) == ("simulated", True)
            assert_told(response, left, 3)
        usage = client.usage()
        assert (usage["usage"]["used"], usage["usage"]["remaining"]) == (0, 3)


def test_past_the_limit_of_a_minute_a_client_is_told_how_long_to_wait():
    until_a_minute_has(10)
    with svara("--requests-per-minute", "2", "--usage-limit", "3") as client:
        for left in [1, 0]:
            assert_told(client.send(), left, left + 1, of=(2, 3))
        for method, path in [("POST", "/v1/send"), ("GET", "/v1/usage"), ("GET", "/v1/nothing")]:
            response = client.ask(method, path, json=MESSAGE)
            assert (response.status_code, code(response)) == (429, "rate_limit_exceeded")
            assert response.json()["error"]["type"] == "rate_limit_error"
            wait = int(response.headers["Retry-After"])
            assert 1 <= wait <= told(response)["RateLimit-Reset"] - time.time() + 2
            assert wait <= MINUTE
            assert_told(response, 0, 1, of=(2, 3))


def test_without_a_plan_nothing_is_limited_and_nothing_told():
    with svara() as client:
        response = client.send()
        assert response.status_code == 200
        assert not [name for name in response.headers if name.lower().startswith("x-")]
        assert client.usage()["usage"]["limit"] is None
        assert set(client.usage()["requests"].values()) == {None}


@pytest.mark.parametrize("profile", ["any", "openai", "xai", "decart", "swaram"])
def test_messages_are_sent_beside_the_sessions_of_others(profile):
    until_a_minute_has(5)
    with svara(*PLAN, profile=profile) as client:
        assert_told(client.send(), 19, 2)
        unknown = requests.post(f"http://{client.host}/v1/send", json=MESSAGE, timeout=DEADLINE)
        assert (unknown.status_code, code(unknown)) == (401, "missing_api_key")


def test_10000_answers_over_8_connections_tell_the_state_as_it_was():
    limit, usage = ANSWERS // 5, 10 * ANSWERS
    plan = ["--requests-per-minute", str(limit), "--usage-limit", str(usage)]
    with svara(*plan) as client:

        def work(_):
            mine = Svara(client.host, client.key)
            answers = []
            for _ in range(ANSWERS // WORKERS):
                response = mine.send()
                wait = response.headers.get("Retry-After")
                answers.append((response.status_code, told(response), wait and int(wait)))
            pools = mine.session.get_adapter("http://").poolmanager.pools
            connections = sum(pools[pool].num_connections for pool in pools.keys())
            return answers, connections

        with ThreadPoolExecutor(WORKERS) as pool:
            by_worker, connections = zip(*pool.map(work, range(WORKERS)))
        after = client.ask("GET", "/v1/usage")

    # A refusal ends no connection.
    assert connections == WORKERS * (1,)
    by_window = defaultdict(list)
    for status, headers, wait in (answer for answers in by_worker for answer in answers):
        assert (headers["RateLimit-Limit"], headers["Usage-Limit"]) == (limit, usage)
        assert headers["RateLimit-Reset"] % MINUTE == 0
        by_window[headers["RateLimit-Reset"]].append((status, headers, wait))
    assert sum(map(len, by_window.values())) == ANSWERS
    for answers in by_window.values():
        passed = [headers for status, headers, _ in answers if status == 200]
        refused = [(headers, wait) for status, headers, wait in answers if status == 429]
        assert len(passed) + len(refused) == len(answers)
        assert len(passed) == min(limit, len(answers))
        # Each number was told once.
        remaining = Counter(headers["RateLimit-Remaining"] for headers in passed)
        assert remaining == Counter(range(limit - len(passed), limit))
        for headers, wait in refused:
            assert headers["RateLimit-Remaining"] == 0 and 1 <= wait <= MINUTE
    # It took no five minutes.
    assert any(len(answers) > limit for answers in by_window.values())

    passed = [
        headers
        for answers in by_window.values()
        for status, headers, _ in answers
        if status == 200
    ]
    # Others may have spent between a unit's spending and its telling, but nobody gives back.
    left = sorted(headers["Usage-Remaining"] for headers in passed)
    assert left == sorted(left) and left[0] == usage - len(passed)
    for answers in by_worker:
        mine = [headers["Usage-Remaining"] for status, headers, _ in answers if status == 200]
        assert mine == sorted(set(mine), reverse=True)
    assert told(after)["Usage-Remaining"] == usage - len(passed)
    print(f"\n{ANSWERS} answers:", {at: len(answers) for at, answers in by_window.items()})


# Sessions


def test_sessions_at_once_are_counted_wherever_they_begin():
    with svara("--max-sessions", "3", profile="any") as client, ExitStack() as open_sessions:
        token = mint(client)
        first = client.connect()
        open_sessions.callback(first.close)
        assert begins(first) == "session.created"
        open_sessions.enter_context(client.connect("/v1/stream", by="query"))
        open_sessions.enter_context(token.connect(by="query"))

        # Headers are answered by a status, who may be a browser by a Close.
        for path in ["/v1/realtime", "/v1/stream"]:
            with pytest.raises(InvalidStatus) as refusal:
                client.connect(path)
            response = refusal.value.response
            assert response.status_code == 429
            assert int(response.headers["Retry-After"]) >= 1
            for other in [client, token]:
                with other.connect(path, by="query") as socket:
                    assert begins(socket) == "error"
                    with pytest.raises(ConnectionClosed) as closed:
                        socket.recv(timeout=DEADLINE)
                assert closed.value.rcvd.code == 4029

        first.close()
        open_sessions.enter_context(when_free(client))
        with pytest.raises(InvalidStatus):
            client.connect()


def begins(socket) -> str:
    """The first event."""
    return json.loads(socket.recv(timeout=DEADLINE))["type"]


def mint(client: Svara) -> Svara:
    response = client.ask("POST", "/v1/realtime/client_secrets")
    assert response.status_code == 200
    return Svara(client.host, response.json()["value"])


def when_free(client: Svara):
    """A session, as soon as there is a place."""
    give_up = time.monotonic() + DEADLINE
    while True:
        try:
            return client.connect()
        except InvalidStatus:
            assert time.monotonic() < give_up, "the place is not free again"


def test_a_refused_handshake_tells_what_is_left():
    until_a_minute_has(10)
    with svara("--requests-per-minute", "2", "--max-sessions", "1", *PLAN[2:]) as client:
        with client.connect() as first:
            answered = first.response.headers
            assert (answered["X-RateLimit-Remaining"], answered["X-Usage-Remaining"]) == ("1", "3")
            for left in [1, 1]:
                with pytest.raises(InvalidStatus) as refusal:
                    client.connect()
                # Who does not get a place has used nothing else.
                assert refusal.value.response.status_code == 429
                headers = refusal.value.response.headers
                assert headers["X-RateLimit-Limit"] == "2"
                assert headers["X-RateLimit-Remaining"] == str(left)
                assert int(headers["X-RateLimit-Reset"]) % MINUTE == 0
                assert headers["X-Usage-Remaining"] == "3"


def test_new_sessions_of_a_minute_are_counted_for_all_tokens_of_a_key():
    until_a_minute_has(10)
    with svara("--sessions-per-minute", "2", profile="any") as client:
        with client.connect(), mint(client).connect():
            pass
        for other in [client, mint(client)]:
            with pytest.raises(InvalidStatus) as refusal:
                other.connect()
            assert refusal.value.response.status_code == 429
            assert 1 <= int(refusal.value.response.headers["Retry-After"]) <= MINUTE
        # Mints are none.
        assert mint(client)


def test_a_known_key_keeps_its_plan_and_the_log_says_so(tmp_path):
    key = f"sk_live_{secrets.token_hex(12)}"
    store = ["--store", f"sqlite:{tmp_path / 'keys.db'}", "--key", key, "--profile", "svara"]
    for limit in [7, 9]:
        with open(tmp_path / f"{limit}.log", "a+") as log:
            flags = [*store, "--requests-per-minute", str(limit)]
            with listening(BINARY, *flags, log=log, RUST_LOG="info") as host:
                client = Svara(host, key)
                assert client.usage()["requests"]["limit"] == 7
            log.seek(0)
            text = log.read()
            assert ("is known already and stays as it is" in text) == (limit == 9)
            assert key not in text
