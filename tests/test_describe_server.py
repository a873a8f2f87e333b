"""The server backends against a real HTTP server on this machine."""

import base64
import io
import json
import threading
import time
from collections import Counter

import pytest
import stamina
from PIL import Image
from pytest_httpserver import HTTPServer
from werkzeug import Response

from trialign.describe import DescriptionCache, ItemView, caption_items, captioner, mine_interests, miner
from trialign.describe.server import data_url

GOOD = 'Because.\n{"interests": ["slow mornings", "quiet design"]}'


@pytest.fixture(scope="module")
def make_httpserver():
    with HTTPServer(threaded=True) as server:  # the plugin's own answers one request at a time
        yield server


@pytest.fixture(autouse=True)
def no_waiting():
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@pytest.fixture
def cache(tmp_path):
    with DescriptionCache(tmp_path / "cache.sqlite") as opened:
        yield opened


@pytest.fixture
def views(tmp_path):
    for number in range(12):
        Image.new("RGB", (20, 10), (number * 20, 0, 0)).save(tmp_path / f"{number}.png")
    return [ItemView(str(number), f"Title {number}", "", tmp_path / f"{number}.png") for number in range(12)]


class Chat:
    """A handler that answers like a chat server; `reply(title or colour, count)` says with what."""

    def __init__(self, server, reply):
        self.reply, self.server = reply, server
        self.requests, self.keys, self.seen = [], set(), Counter()
        self.lock, self.running, self.most = threading.Lock(), 0, 0
        server.expect_request("/v1/chat/completions", method="POST").respond_with_handler(self)

    @property
    def url(self):
        return self.server.url_for("/v1")

    def __call__(self, request):
        body = request.get_json()
        content = body["messages"][0]["content"]
        about = content.split('"title": "Title ')[1].split('"')[0] if isinstance(content, str) else red(content)
        with self.lock:
            self.requests.append(body)
            self.keys.add(request.headers.get("Authorization"))
            self.seen[about] += 1
            count = self.seen[about]
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            answer = self.reply(about, count)
        finally:
            with self.lock:
                self.running -= 1
        return answer if isinstance(answer, Response) else completion(answer)


def completion(text, choices=1):
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [message] * choices}
    return Response(json.dumps(body), content_type="application/json")


def failure(status, message="busy", **headers):
    body = json.dumps({"error": {"message": message, "type": "error", "code": headers.pop("code", None)}})
    return Response(body, status=status, content_type="application/json", headers=headers)


def red(content):
    """Return which image was sent: its red channel divided by 20."""
    (address,) = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    image = Image.open(io.BytesIO(base64.b64decode(address.split("base64,")[1])))
    return str(image.convert("RGB").getpixel((0, 0))[0] // 20)


def test_captions_come_back_to_their_items(httpserver, views, cache):
    others = threading.Event()

    def reply(about, count):
        if about == "11":
            others.set()
        if about == "0":
            assert others.wait(60)  # the first item answers when all others were asked
        return f"Image {about}."

    chat = Chat(httpserver, reply)
    backend = captioner(f"server:some/model:7b@{chat.url}", concurrency=4, extra={"seed": 3})
    table = caption_items(views, backend, cache, progress=False)
    assert table["caption"].tolist() == [f"Image {number}." for number in range(12)]
    assert 1 < chat.most <= 4
    request = chat.requests[0]
    assert (request["model"], request["temperature"], request["seed"]) == ("some/model:7b", 0.0, 3)
    assert set(table["model"]) == {"some/model:7b"}
    assert backend.caption(views[3:5]) == ["Image 3.", "Image 4."]
    again = caption_items(
        views, captioner(f"server:some/model:7b@{chat.url}0", extra={"seed": 3}), cache, progress=False
    )
    assert set(again["source"]) == {"cache"}  # the address is no part of the key, the settings are


def test_each_answer_is_kept_as_soon_as_it_arrives(httpserver, views, cache):
    release = threading.Event()

    def reply(about, count):
        if about == "0":
            assert release.wait(10)
        return f"Image {about}."

    chat = Chat(httpserver, reply)
    kept = []

    class Watching:
        """Looks into the cache from a second connection while the first item still waits."""

        def __init__(self, inner):
            self.inner = inner
            self.model, self.prompt, self.settings = inner.model, inner.prompt, inner.settings
            self.batch_size = 99

        def stream(self, views, attempt=0):
            for position, answer in self.inner.stream(views, attempt):
                yield position, answer
                with DescriptionCache(cache.path) as other:
                    kept.append(len(other))
                if len(kept) == 11:
                    release.set()

    backend = Watching(captioner(f"server:m@{chat.url}", concurrency=3))
    caption_items(views, backend, cache, progress=False)
    assert kept == list(range(1, 13))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_busy_answers_are_asked_again(httpserver, views, cache, status):
    chat = Chat(httpserver, lambda about, count: failure(status) if count < 3 else f"Image {about}.")
    table = caption_items(views[:3], captioner(f"server:m@{chat.url}"), cache, progress=False)
    assert table["caption"].tolist() == ["Image 0.", "Image 1.", "Image 2."]
    assert set(chat.seen.values()) == {3}


def test_retry_after_is_obeyed(httpserver, views, monkeypatch):
    stamina.set_testing(False)
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    chat = Chat(httpserver, lambda about, count: failure(429, **{"Retry-After": "7"}) if count == 1 else "A mug.")
    assert captioner(f"server:m@{chat.url}").caption(views[:1]) == ["A mug."]
    assert 7.0 in waits


def test_what_stays_broken_fails_alone(httpserver, views, cache):
    chat = Chat(httpserver, lambda about, count: failure(500, "overheated") if about == "2" else f"Image {about}.")
    with pytest.warns(UserWarning, match="1 of 12 items have no captions.*overheated"):
        table = caption_items(views, captioner(f"server:m@{chat.url}", attempts=4), cache, progress=False)
    assert table["source"].tolist() == ["made"] * 2 + ["failed"] + ["made"] * 9
    assert chat.seen["2"] == 4
    httpserver.clear()
    healed = Chat(httpserver, lambda about, count: f"Image {about}.")
    table = caption_items(views, captioner(f"server:m@{healed.url}"), cache, progress=False)
    assert table["caption"][2] == "Image 2."
    assert healed.seen == Counter("2")


def test_timeouts_are_asked_again(httpserver, views):
    answered = threading.Event()

    def reply(about, count):
        if count == 1:
            answered.wait(60)
        return "A mug."

    chat = Chat(httpserver, reply)
    assert captioner(f"server:m@{chat.url}", timeout=1.0).caption(views[:1]) == ["A mug."]
    assert chat.seen["0"] == 2
    answered.set()


@pytest.mark.parametrize(
    "odd", [Response("<html>", content_type="text/html"), completion("x", choices=0), completion(None), failure(400)]
)
def test_odd_answers_fail_the_item(httpserver, views, cache, odd):
    chat = Chat(httpserver, lambda about, count: odd if about == "1" else "A mug.")
    with pytest.warns(UserWarning, match="1 of 3 items"):
        table = caption_items(views[:3], captioner(f"server:m@{chat.url}"), cache, progress=False)
    assert table["source"].tolist() == ["made", "failed", "made"]


@pytest.mark.parametrize(
    "answer", [failure(401, "bad key"), failure(404, "no model"), failure(429, code="insufficient_quota")]
)
def test_what_no_request_can_mend_stops_the_run(httpserver, views, cache, answer):
    def reply(about, count):
        return answer if about == "5" else f"Image {about}."

    chat = Chat(httpserver, reply)
    with pytest.raises(ValueError, match=r"the server refuses model m: .*; check OPENAI_API_KEY, model and address"):
        caption_items(views, captioner(f"server:m@{chat.url}", concurrency=1), cache, progress=False)
    assert len(cache) == 5  # what was answered is kept
    assert chat.seen == Counter("012345")  # and no further item is asked


def test_a_run_that_stops_keeps_the_answers_still_in_flight(httpserver, views, cache):
    refused = threading.Event()

    def reply(about, count):
        if about == "1":
            refused.set()
            return failure(401, "bad key")
        assert refused.wait(60)
        return f"Image {about}."

    chat = Chat(httpserver, reply)
    with pytest.raises(ValueError, match="bad key"):
        caption_items(views[:2], captioner(f"server:m@{chat.url}", concurrency=2), cache, progress=False)
    assert len(cache) == 1


def test_a_server_that_is_not_there_stops_the_run(views, cache):
    with pytest.raises(ConnectionError, match=r"no connection to the server: .*is the server running"):
        caption_items(views, captioner("server:m@http://127.0.0.1:9/v1"), cache, progress=False)
    assert len(cache) == 0


def test_the_key_comes_from_the_environment_and_stays_secret(httpserver, views, cache, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    chat = Chat(httpserver, lambda about, count: failure(400, "your key sk-very-secret may not"))
    with pytest.warns(UserWarning) as warned:
        table = caption_items(views[:1], captioner(f"server:m@{chat.url}"), cache, progress=False)
    assert chat.keys == {"Bearer sk-very-secret"}
    assert "***" in table["error"][0]
    cache.close()
    shown = str(warned[0].message) + caplog.text + table.to_json() + cache.path.read_bytes().decode("latin-1")
    assert "very-secret" not in shown
    monkeypatch.delenv("OPENAI_API_KEY")
    httpserver.clear()
    local = Chat(httpserver, lambda about, count: "A mug.")
    captioner(f"server:m@{local.url}").caption(views[:1])
    assert local.keys == {"Bearer not-needed"}


def test_addresses_are_checked():
    with pytest.raises(ValueError, match="put the key in OPENAI_API_KEY"):
        miner("server:m@http://user:password@localhost/v1")
    with pytest.raises(ValueError, match="no address of a server"):
        miner("server:m@http:///v1")
    with pytest.raises(ValueError, match="at least 1"):
        miner("server:m@http://localhost/v1", concurrency=0)


def test_bad_interests_are_asked_again_warmer(httpserver, views, cache):
    replies = {"1": ["no", GOOD], "2": ["no", '{"interests": []}', "no"]}
    chat = Chat(httpserver, lambda about, count: replies.get(about, [GOOD])[count - 1])
    with pytest.warns(UserWarning, match="1 of 4 items have no interests"):
        table = mine_interests(views[:4], miner(f"server:m@{chat.url}"), cache, progress=False)
    assert table["interests"].map(len).tolist() == [2, 2, 0, 2]
    assert table["reasoning"].tolist() == ["Because.", "Because.", "no", "Because."]
    assert Counter(request["temperature"] for request in chat.requests) == {0.0: 4, 0.4: 2, 0.8: 1}
    plain = miner(f"server:m@{chat.url}", temperature=None)
    assert plain.mine(views[4:5], 2) == [GOOD]
    assert "temperature" not in chat.requests[-1]


def test_images_are_sent_as_they_are_or_scaled_down(tmp_path, views):
    sent = data_url(views[0], 1024)
    assert sent.startswith("data:image/png;base64,")
    assert base64.b64decode(sent.split(",")[1]) == views[0].image.read_bytes()
    small = data_url(views[0], 10)
    assert small.startswith("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(small.split(",")[1]))).size == (10, 5)
    Image.new("RGBA", (6, 6)).save(tmp_path / "lies.jpg", format="GIF")
    assert data_url(ItemView("1", "", "", tmp_path / "lies.jpg"), 1024).startswith("data:image/jpeg")
