"""A server that fails in every way it can; what it answered is kept and never asked for again."""

import json
import random
import socket
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from faults import Row
from faults.processes import Tally
from faults.stubs import item_views
from trialign.describe import DescriptionCache, mine_interests
from trialign.describe.server import ServerMiner

_ITEMS = 6
_ANSWER = 'Because.\n{"interests": ["slow mornings", "quiet design"]}'

Fault = Callable[[BaseHTTPRequestHandler], None]


def rows(times: int, seed: int) -> Iterator[Row]:
    """Let the first requests of a run fail in one way each, and then let one item fail for good."""
    for name, fault in FAULTS.items():
        yield failing(name, fault, max(1, times // 5), seed)
    yield hopeless(max(1, times // 5))


def _status(code: int, headers: dict[str, str] | None = None) -> Fault:
    def fault(handler: BaseHTTPRequestHandler) -> None:
        send(handler, code, b'{"error": {"message": "busy"}}', headers)

    return fault


def _text(body: bytes, kind: str = "application/json") -> Fault:
    return lambda handler: send(handler, 200, body, {"Content-Type": kind})


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n{")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def _silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, so that no time-out between two bytes is met."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
    for _ in range(20):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.2)


#: Ways to fail, by what one sees.
FAULTS: dict[str, Fault] = {
    "429 without Retry-After": _status(429),
    "429 with Retry-After": _status(429, {"Retry-After": "0"}),
    "500": _status(500),
    "503": _status(503),
    "a time-out": _silent,
    "a connection cut in the answer": _cut,
    "an answer that drips, a byte every 0.2 s": _drip,
    "JSON that is none": _text(b'{"choices": [{"mess'),
    "JSON of another form": _text(b'{"result": "ok"}'),
    "no choices": _text(b'{"choices": []}'),
    "HTML in place of JSON": _text(b"<html><body>Bad gateway</body></html>", "text/html"),
    "an answer of 10 MB": _text(json.dumps({"choices": [], "padding": "x" * 10_000_000}).encode()),
}


class Server:
    """Answers chat requests; of each item the first requests fail.

    Attributes
    ----------
    asked : Counter
        Requests by item.
    answered : Counter
        Good answers by item.
    broken_item : str
        Id of an item whose requests always fail.
    """

    def __init__(self, fault: Fault, failures: int, broken_item: str = "") -> None:
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self._fault, self._failures, self.broken_item = fault, failures, broken_item
        self._lock = threading.Lock()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        item = next(str(number) for number in range(_ITEMS) if f"Title {number}" in body)
        with self._lock:
            self.asked[item] += 1
            fails = item == self.broken_item or self.asked[item] <= self._failures
        if fails:
            self._fault(handler)
            return
        with self._lock:
            self.answered[item] += 1
        send(handler, 200, completion())


def completion() -> bytes:
    """Return a good answer of the chat protocol."""
    message = {"role": "assistant", "content": _ANSWER}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps(answer).encode()


def send(handler: BaseHTTPRequestHandler, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Send a whole response, JSON if the headers don't say otherwise."""
    handler.send_response(code)
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    try:
        handler.wfile.write(body)
    except OSError:  # the client has had enough
        return


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """Serve the chat protocol on loopback; yields the address."""

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            server.handle(self)
            self.close_connection = True

    with listening(Handler) as address:
        yield f"{address}/v1"


class Quiet(BaseHTTPRequestHandler):
    """A handler that does not tell of each request."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Listen on loopback; yields the address without a slash at its end."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


def _miner(address: str, attempts: int = 4) -> ServerMiner:
    return ServerMiner("m", address, concurrency=3, timeout=1.0, attempts=attempts, wait=0.02)


@contextmanager
def _empty_cache() -> Iterator[DescriptionCache]:
    with tempfile.TemporaryDirectory() as root, DescriptionCache(Path(root, "cache.sqlite")) as cache:
        yield cache


def failing(name: str, fault: Fault, times: int, seed: int) -> Row:
    """Let the first one or two requests for each item fail: each must get its answer, and keep it."""
    draw, tally, requests = random.Random(seed), Tally(), 0
    for _ in range(times):
        failures = draw.choice([1, 2])
        server = Server(fault, failures)
        with serving(server) as address, _empty_cache() as cache, tally.timed(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for _again in range(3):
                table = mine_interests(item_views(_ITEMS), _miner(address), cache, progress=False)
        requests += sum(server.asked.values())
        tally.survived += bool((table["source"] != "failed").all())
        tally.lost += int((table["source"] == "failed").sum())
        tally.repeated += sum(count - 1 for count in server.answered.values())
    note = f"{requests / times:.0f} requests a run of {_ITEMS} items; asked again with growing, jittered waits"
    return Row(f"server: {name}", tally.injected, tally.survived, tally.lost, tally.repeated, tally.worst, note)


def hopeless(times: int) -> Row:
    """Let one item fail for good: it is marked with its reason, the others are answered, and it can be retried."""
    tally = Tally()
    for _ in range(times):
        server = Server(_status(500), 0, broken_item="3")
        recorded = warnings.catch_warnings(record=True, action="always")
        with serving(server) as address, _empty_cache() as cache, tally.timed(), recorded as told:
            short = _miner(address, attempts=2)
            table = mine_interests(item_views(_ITEMS), short, cache, progress=False)
            asked = server.asked["3"]
            mine_interests(item_views(_ITEMS), short, cache, progress=False, retry_failed=False)
            kept = server.asked["3"] == asked
            server.broken_item = ""
            again = mine_interests(item_views(_ITEMS), _miner(address), cache, progress=False)
        failed = table[table["source"] == "failed"]
        tally.survived += bool(
            failed["item_id"].tolist() == ["3"]
            and "busy" in failed["error"].iloc[0]
            and any("1 of 6 items have no interests" in str(each.message) for each in told)
            and kept
            and (again["source"] != "failed").all()
        )
        tally.repeated += sum(count - 1 for count in server.answered.values())
    note = "marked failed with its reason and listed; `--keep-failed` leaves it, the next run retries it alone"
    return Row("server: one item fails for good", tally.injected, tally.survived, 0, tally.repeated, tally.worst, note)
