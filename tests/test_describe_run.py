"""The runner: order, retries, failures that stay with their item, and kills at any moment."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from trialign.describe import DescriptionCache, ItemError, ItemView, caption_items, mine_interests
from trialign.describe.cache import caption_key

GOOD = 'Because.\n{"interests": ["slow mornings", "quiet design"]}'


@pytest.fixture
def cache(tmp_path):
    with DescriptionCache(tmp_path / "cache.sqlite") as opened:
        yield opened


@pytest.fixture
def views(tmp_path):
    return [item(tmp_path, number) for number in range(7)]


def item(folder, number):
    Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.png")
    return ItemView(str(number), f"Title {number}", "", folder / f"{number}.png")


class Counting:
    """A captioner and miner that counts what it is asked; `answer` decides what it says."""

    model, prompt, settings = "counting", "Describe it.", {"seed": 0}

    def __init__(self, answer=lambda view, attempt: f"Caption {view.item_id}.", batch_size=3):
        self.answer, self.batch_size = answer, batch_size
        self.asked = []

    def caption(self, views):
        return self.mine(views, 0)

    def mine(self, views, attempt):
        self.asked.append(([view.item_id for view in views], attempt))
        return [self.answer(view, attempt) for view in views]


class OneByOne(Counting):
    """The same, streaming in reverse order."""

    def stream(self, views, attempt=0):
        for position in reversed(range(len(views))):
            try:
                yield position, self.mine([views[position]], attempt)[0]
            except ItemError as error:
                yield position, error


@pytest.mark.parametrize("kind", [Counting, OneByOne])
def test_rows_come_in_the_order_of_the_items(kind, views, cache):
    backend = kind()
    table = caption_items(views, backend, cache, progress=False)
    assert table.columns.tolist() == ["item_id", "caption", "model", "source", "error"]
    assert table["item_id"].tolist() == list("0123456")
    assert table["caption"].tolist() == [f"Caption {number}." for number in range(7)]
    assert set(table["source"]) == {"made"}
    again = caption_items(views[::-1], kind(answer=None), cache, progress=False)
    assert again["caption"].tolist() == table["caption"].tolist()[::-1]
    assert set(again["source"]) == {"cache"}


def test_batches(views, cache):
    backend = Counting()
    caption_items(views, backend, cache, progress=False)
    assert [asked for asked, _ in backend.asked] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


def test_equal_images_are_described_once(views, cache):
    twins = [*views, replace(views[0], item_id="twin")]
    backend = Counting()
    table = caption_items(twins, backend, cache, progress=False)
    assert Counter(name for asked, _ in backend.asked for name in asked) == Counter("0123456")
    assert table["caption"].iloc[-1] == "Caption 0."


def test_items_without_image(views, cache):
    backend = Counting()
    table = caption_items([replace(views[0], image=None), views[1]], backend, cache, progress=False)
    assert table[["caption", "source"]].values.tolist() == [["", "no image"], ["Caption 1.", "made"]]
    assert backend.asked == [(["1"], 0)]


def test_empty_catalogue(cache):
    assert caption_items([], Counting(), cache, progress=False).empty
    assert mine_interests([], Counting(), cache, progress=False).empty


def test_a_bad_image_fails_alone(views, cache, tmp_path):
    def decode(view, attempt):
        with Image.open(view.image) as image:
            image.load()
        return f"Caption {view.item_id}."

    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    (tmp_path / "2.png").unlink()
    with pytest.warns(UserWarning, match=r"2 of 7 items have no captions.*1: image 1\.png of item '1' can't be read"):
        table = caption_items(views, Counting(decode), cache, progress=False)
    assert table["source"].tolist() == ["made", "failed", "failed", *["made"] * 4]
    assert "2.png" in table["error"][2]


def test_an_items_error_fails_alone(views, cache):
    def refuse(view, attempt):
        if view.item_id == "4":
            raise ItemError("refused")
        return "A mug."

    for backend in (Counting(refuse), OneByOne(refuse)):
        with pytest.warns(UserWarning, match="4: refused"):
            table = caption_items(views, backend, cache, progress=False)
    assert table["error"].tolist() == ["", "", "", "", "refused", "", ""]
    assert table["source"].tolist() == ["cache"] * 4 + ["failed"] + ["cache"] * 2


def test_a_broken_backend_stops_the_run_and_keeps_what_is_done(views, cache):
    def crash(view, attempt):
        if view.item_id == "4":
            raise error
        return "A mug."

    for error in (RuntimeError("out of memory"), OSError("weights are gone"), ConnectionError("no server")):
        with pytest.raises(type(error), match=str(error)):
            caption_items(views, Counting(crash), cache, progress=False)
        assert 3 <= len(cache) < 7
    backend = Counting()
    assert caption_items(views, backend, cache, progress=False)["caption"].iloc[4] == "Caption 4."
    assert "0" not in backend.asked[0][0]


def test_a_backend_whose_settings_cannot_be_read_stops_the_run(views, cache):
    class Unfitted(Counting):
        @property
        def settings(self):
            raise FileNotFoundError("heads.safetensors")

    with pytest.raises(FileNotFoundError, match="heads"):
        caption_items(views, Unfitted(), cache, progress=False)


def test_wrong_number_of_answers(views, cache):
    backend = Counting()
    backend.caption = lambda views: ["A mug."]
    with pytest.raises(ValueError, match="gave 3 answers for 7 items"):
        caption_items(views, backend, cache, progress=False)


def test_bad_interests_are_asked_again_and_kept_as_failed(views, cache):
    answers = {"1": ["no", GOOD, None], "2": ["no", "no again", "still no"]}
    backend = Counting(lambda view, attempt: answers.get(view.item_id, [GOOD])[attempt])
    with pytest.warns(UserWarning, match="1 of 3 items have no interests.*2: no JSON object"):
        table = mine_interests(views[:3], backend, cache, progress=False)
    assert backend.asked == [(["0", "1", "2"], 0), (["1", "2"], 1), (["2"], 2)]
    assert table["interests"].tolist() == [["slow mornings", "quiet design"]] * 2 + [[]]
    assert table["reasoning"].tolist() == ["Because.", "Because.", "still no"]
    assert table["source"].tolist() == ["made", "made", "failed"]
    # the next run asks only for the failed one, and goes on counting
    later = Counting(lambda view, attempt: GOOD)
    assert mine_interests(views[:3], later, cache, progress=False)["source"].tolist() == ["cache", "cache", "made"]
    assert later.asked == [(["2"], 3)]


def test_without_retries(views, cache):
    backend = Counting(lambda view, attempt: "no")
    with pytest.warns(UserWarning, match="7 of 7"):
        mine_interests(views, backend, cache, retries=0, progress=False)
    assert {attempt for _, attempt in backend.asked} == {0}


def test_what_is_kept(views, cache):
    caption_items(views[:1], Counting(), cache, progress=False)
    kept = cache.get(caption_key(views[0], Counting()))
    assert (kept.kind, kept.item_id, kept.model, kept.prompt) == ("caption", "0", "counting", "Describe it.")
    assert (kept.answer, kept.parsed, kept.attempts, kept.settings) == ("Caption 0.", "Caption 0.", 1, {"seed": 0})
    assert kept.provenance.startswith("made by trialign ")


def test_progress_shows_rate_and_remaining_time(views, cache, capsys):
    caption_items(views, Counting(), cache)
    shown = capsys.readouterr().err
    assert "captions by counting: 100%" in shown
    assert "7/7" in shown
    assert "item/s" in shown


class Slow:
    """The victim's captioner, as far as a look-up needs it."""

    model, prompt, settings, batch_size = "slow", "Describe it.", {}, 1


VICTIM = """
import sys, time
from pathlib import Path
from trialign.describe import DescriptionCache, ItemView, caption_items
folder, batch_size = Path(sys.argv[1]), int(sys.argv[2])

class Slow:
    model, prompt, settings = "slow", "Describe it.", {}
    def __init__(self): self.batch_size = batch_size
    def caption(self, views):
        with (folder / "asked.log").open("a") as log:
            log.write(" ".join(view.item_id for view in views) + "\\n")
        time.sleep(0.01)
        return [f"Caption {view.item_id}." for view in views]

views = [ItemView(str(n), "", "", folder / f"{n}.png") for n in range(120)]
with DescriptionCache(folder / "cache.sqlite") as cache:
    caption_items(views, Slow(), cache, progress=False)
"""


@pytest.mark.parametrize(("batch_size", "calls", "then"), [(1, 1, 0), (1, 23, 0.0063), (4, 7, 0.0031)])
def test_a_killed_run_repeats_and_loses_nothing(tmp_path, batch_size, calls, then):
    for number in range(120):
        item(tmp_path, number)
    command = [sys.executable, "-c", VICTIM, str(tmp_path), str(batch_size)]
    log_file = tmp_path / "asked.log"
    log_file.touch()
    run = subprocess.Popen(command)
    while len(log_file.read_text().splitlines()) < calls:
        assert run.poll() is None
        time.sleep(0.001)
    time.sleep(then)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    log = log_file.read_text().splitlines()
    with DescriptionCache(tmp_path / "cache.sqlite") as cache:
        done = len(cache)
    asked = sum(len(line.split()) for line in log)
    assert 0 < asked < 120
    assert asked - batch_size <= done <= asked
    subprocess.run(command, check=True, timeout=60)
    times = Counter(log_file.read_text().split())
    assert len(times) == 120
    assert sum(times.values()) - 120 <= batch_size  # only what was in flight at the kill
    with DescriptionCache(tmp_path / "cache.sqlite") as cache:
        stored = caption_items([item(tmp_path, number) for number in range(120)], Slow(), cache, progress=False)
    assert stored["caption"].tolist() == [f"Caption {number}." for number in range(120)]
    assert set(stored["source"]) == {"cache"}
