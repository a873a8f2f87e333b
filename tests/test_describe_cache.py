"""The cache: keys, round trips, two processes at once, import and export."""

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from trialign.describe import DescriptionCache, ItemView, caption_items, captioner, mine_interests, miner
from trialign.describe.cache import Entry, caption_key, image_hash, interest_key


class Stub:
    """The attributes that enter a key."""

    model, prompt, batch_size = "stub", "Describe it.", 2

    def __init__(self, **settings):
        self.settings = settings


def entry(key="k", status="ok", **changes):
    base = Entry(key, "caption", "1", "stub", "Describe it.", {"a": [1, None]}, "A mug.", "A mug.", status)
    return replace(base, **changes)


@pytest.fixture
def view(tmp_path):
    Image.new("RGB", (8, 8), "tomato").save(tmp_path / "1.png")
    return ItemView("1", "Mug", "brand: Aa", tmp_path / "1.png", "A red mug.")


@pytest.fixture
def cache(tmp_path):
    with DescriptionCache(tmp_path / "made" / "cache.sqlite") as opened:
        yield opened


def test_entries_round_trip(cache):
    assert cache.get("k") is None
    cache.put(entry(), entry("l", parsed={"interests": ["ä"], "reasoning": ""}, kind="interest", provenance="by hand"))
    found = cache.get("k")
    assert replace(found, created="") == entry()
    assert found.created.endswith("+00:00")
    assert cache.get("l").parsed == {"interests": ["ä"], "reasoning": ""}
    assert set(cache.lookup(["k", "l", "m", "k"])) == {"k", "l"}
    assert len(cache) == 2
    assert cache.summary()[["kind", "status", "entries"]].values.tolist() == [
        ["caption", "ok", 1],
        ["interest", "ok", 1],
    ]


def test_lookup_of_many(cache):
    cache.put(*[entry(f"k{number}") for number in range(1203)])
    assert len(cache.lookup(f"k{number}" for number in range(2000))) == 1203


def test_a_failure_never_replaces_an_answer(cache):
    cache.put(entry(status="failed", error="busy", parsed=None))
    cache.put(entry(status="failed", error="busier", parsed=None, attempts=2))
    assert (cache.get("k").error, cache.get("k").attempts) == ("busier", 2)
    cache.put(entry())
    cache.put(entry(status="failed", error="late", parsed=None))
    assert (cache.get("k").status, cache.get("k").error) == ("ok", "")


def test_prompts_are_stored_once(cache):
    cache.put(*[entry(f"k{number}") for number in range(10)])
    cache.close()
    with sqlite3.connect(cache.path) as plain:
        assert plain.execute("SELECT count(*) FROM texts").fetchone() == (2,)  # the prompt and the empty provenance
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_failed_put_leaves_nothing(cache):
    with pytest.raises(sqlite3.IntegrityError):
        cache.put(entry("k"), entry("l", status="maybe"))
    assert len(cache) == 0
    cache.put(entry("k"))
    assert len(cache) == 1


def test_keys_hold_everything_an_answer_depends_on(view, tmp_path):
    Image.new("RGB", (8, 8), "navy").save(tmp_path / "2.png")
    other = tmp_path / "2.png"
    base = caption_key(view, Stub(tokens=5))
    prompted, named = Stub(tokens=5), Stub(tokens=5)
    prompted.prompt, named.model = "Describe it", "stub2"
    changed = [
        caption_key(view, Stub(tokens=6)),
        caption_key(view, prompted),
        caption_key(view, named),
        caption_key(replace(view, image=other), Stub(tokens=5)),
        interest_key(view, Stub(tokens=5)),
    ]
    assert len({base, *changed}) == 6
    for unrelated in ({"item_id": "2"}, {"title": "Cup"}, {"text": ""}, {"caption": ""}):
        assert caption_key(replace(view, **unrelated), Stub(tokens=5)) == base
    mined = interest_key(view, Stub())
    for seen in ({"title": "Cup"}, {"text": ""}, {"caption": ""}, {"image": other}):
        assert interest_key(replace(view, **seen), Stub()) != mined
    assert interest_key(replace(view, item_id="2"), Stub()) == mined
    # fields are separated: moving a character from one to the next is another item
    assert interest_key(replace(view, title="Mugb", text="rand: Aa"), Stub()) != mined


def test_settings_order_does_not_matter(view):
    assert caption_key(view, Stub(a=1, b=2)) == caption_key(view, Stub(b=2, a=1))


def test_unreadable_images(view, tmp_path):
    gone = replace(view, image=tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError):
        caption_key(gone, Stub())
    assert interest_key(gone, Stub()) == interest_key(replace(view, image=None), Stub())
    assert image_hash(None) == ""


def test_other_files_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be looked at " * 50)
    with pytest.raises(ValueError, match=r"notes\.txt is no sound description cache.*trialign cache repair"):
        DescriptionCache(tmp_path / "notes.txt")
    with sqlite3.connect(tmp_path / "newer.sqlite") as plain:
        plain.execute("PRAGMA user_version = 9")
    with pytest.raises(ValueError, match=r"newer\.sqlite: the cache has layout 9"):
        DescriptionCache(tmp_path / "newer.sqlite")


WRITER = """
import sys
from trialign.describe.cache import DescriptionCache, Entry
name, path = sys.argv[1:]
cache = DescriptionCache(path)
for number in range(150):
    cache.put(Entry(f"{name}{number}", "caption", "1", "m", "p", {}, "A mug.", "A mug.", "ok"))
    cache.put(Entry(f"shared{number}", "caption", "1", name, "p", {}, name, name, "ok"))
"""


def test_two_processes_write_at_once(tmp_path):
    path = str(tmp_path / "cache.sqlite")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name, path]) for name in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    with DescriptionCache(path) as cache:
        assert len(cache) == 450
        assert {entry.answer for entry in cache.lookup(f"shared{n}" for n in range(150)).values()} <= {"a", "b"}


def test_export_and_import_give_the_same_entries(cache, view, tmp_path):
    class Maker(Stub):
        def caption(self, views):
            return [f"Caption of {view.title}." for view in views]

        def mine(self, views, attempt):
            return ['Because.\n{"interests": ["slow mornings", "quiet design"]}'] * len(views)

    bare = replace(view, caption="")
    views = [bare, replace(bare, item_id="2", title="Cup", image=None)]
    maker = Maker(seed=1)
    captions = caption_items(views, maker, cache, progress=False)
    captioned = [replace(view, caption=caption) for view, caption in zip(views, captions["caption"], strict=True)]
    mined = mine_interests(captioned, maker, cache, progress=False)
    path = cache.export_descriptions(tmp_path / "out" / "descriptions.jsonl", views, maker, maker, notes="A test.")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "item_id": "1",
            "caption": "Caption of Mug.",
            "interests": ["slow mornings", "quiet design"],
            "reasoning": "Because.",
        },
        {"item_id": "2", "interests": ["slow mornings", "quiet design"], "reasoning": "Because."},
    ]
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "descriptions.jsonl",
        "descriptions.provenance.json",
    ]
    with DescriptionCache(tmp_path / "fresh.sqlite") as fresh:
        counts = fresh.import_descriptions(path, [*views, replace(view, item_id="3")])
        assert counts.to_dict() == {"captions": 1, "interests": 2, "missing": 1}
        for backend in (maker, captioner(f"recorded:{path}")):
            again = caption_items(views, backend, fresh, progress=False)
            assert again["source"].tolist() == ["cache", "no image"]
            assert again["caption"].tolist() == captions["caption"].tolist()
        for backend in (maker, miner(f"recorded:{path}")):
            again = mine_interests(captioned, backend, fresh, progress=False)
            assert again["source"].tolist() == ["cache", "cache"]
            assert again.drop(columns="source").equals(mined.drop(columns="source"))
        kept = fresh.get(caption_key(view, maker))
        assert (kept.model, kept.provenance, kept.settings) == ("stub", "A test.", {"seed": 1})


def test_an_edited_recording_is_not_the_models(cache, view, tmp_path):
    class Maker(Stub):
        def caption(self, views):
            return ["A mug."] * len(views)

    caption_items([view], Maker(), cache, progress=False)
    path = cache.export_descriptions(tmp_path / "descriptions.jsonl", [view], Maker(), Stub(), notes="")
    path.write_text(path.read_text().replace("A mug.", "A better mug."))
    edited = captioner(f"recorded:{path}")
    assert set(edited.settings) == {"recording"}
    table = caption_items([view], edited, cache, progress=False)
    assert table[["caption", "source"]].values.tolist() == [["A better mug.", "made"]]
