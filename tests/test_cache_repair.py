"""A damaged cache of descriptions: found, and mended as far as it goes."""

import sqlite3

import pytest
from typer.testing import CliRunner

from trialign.cli import app
from trialign.describe import DescriptionCache
from trialign.describe.cache import Entry
from trialign.describe.cache_repair import repair, verify

ANSWER = 'Because.\n{"interests": ["slow mornings", "quiet design"]}'
READ = {"interests": ["slow mornings", "quiet design"], "reasoning": "Because."}


def entry(number, **changes):
    values = {
        "key": f"{number * 7919 % 4096:03x}{number:061x}",
        "kind": "interest",
        "item_id": str(number),
        "model": "m",
        "prompt": "Why?",
        "settings": {},
        "answer": ANSWER,
        "parsed": READ,
        "status": "ok",
        "provenance": "a test",
    }
    return Entry(**(values | changes))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "cache.sqlite"
    with DescriptionCache(path) as cache:
        cache.put(
            *(entry(number) for number in range(300)), entry(300, status="failed", parsed=None, error="no answer")
        )
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def test_a_sound_cache_is_sound(path):
    report = verify(path)
    assert (report.sound, report.ok, report.failed) == (True, 300, 1)


def test_a_cut_file_is_found_and_its_first_part_saved(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert not verify(path).sound
    report, kept = repair(path)
    assert kept.read_bytes() == whole[: len(whole) * 2 // 3], "the damaged file stays as it was"
    assert 50 < report.ok < 300
    assert report.problems, "what is lost is told"
    assert verify(path).sound
    with DescriptionCache(path) as cache:
        saved = cache.lookup(entry(number).key for number in range(300))
        assert len(saved) == report.ok
        assert all(each.parsed == READ and each.prompt in ("Why?", "") for each in saved.values())


def test_an_entry_that_says_something_else_than_its_answer_goes(path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET parsed = '{\"interests\": [\"hacked\"]}' WHERE item_id = '7'")
    (problem,) = verify(path).problems
    assert "item '7'" in problem
    report, _ = repair(path)
    assert report.ok == 299
    assert verify(path).sound


def test_the_commands_tell_and_mend(path):
    run = CliRunner().invoke
    assert run(app, ["cache", "verify", str(path)]).exit_code == 0
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    broken = run(app, ["cache", "verify", str(path)])
    assert broken.exit_code == 1
    mended = run(app, ["cache", "repair", str(path)])
    assert mended.exit_code == 0
    assert "lost:" in mended.output
    assert run(app, ["cache", "verify", str(path)]).exit_code == 0
    missing = run(app, ["cache", "verify", str(path.with_name("none.sqlite"))])
    assert missing.exit_code == 1


def test_a_cache_that_can_not_be_opened_names_the_file_and_the_fix(tmp_path):
    (tmp_path / "cache.sqlite").mkdir()
    with pytest.raises(OSError, match=r"cache\.sqlite can't be used.*fix: make room"):
        DescriptionCache(tmp_path / "cache.sqlite")
