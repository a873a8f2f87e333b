"""The campaigns of injected faults, with few repetitions: all survived, nothing lost, nothing repeated."""

import importlib
import json
import warnings

import pytest
import reliability

#: Repetitions of each campaign here, few enough for every run of the tests.
TIMES = {"kills": 1, "rivals": 2, "files": 6, "servers": 5, "catalogues": 5, "load": 1}


@pytest.mark.slow
@pytest.mark.parametrize("campaign", TIMES)
def test_a_campaign_survives_loses_nothing_and_repeats_nothing(campaign):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        rows = list(importlib.import_module(f"faults.{campaign}").rows(TIMES[campaign], seed=1))
    assert rows
    for row in rows:
        assert row.whole, row


@pytest.mark.slow
def test_the_same_seed_gives_the_same():
    from faults import repeats

    rows = list(repeats.rows(1, seed=0))
    assert {row.fault.split(":")[0] for row in rows} >= {"weights of a training", "beams and metrics"}
    for row in rows:
        assert row.whole, row


def test_a_loss_would_be_seen(tmp_path):
    """A job that does not come back equal is counted: the campaigns can fail."""
    from faults import kills

    def forgets(folder):
        again = folder / "again"
        (folder / "out").write_text("different" if again.exists() else "whole")
        again.touch()

    row = kills.killed("forgets", forgets, kills.nothing_counted, 3, 0, ["out"])
    assert row.lost >= 1


def test_the_page_is_made_of_the_records():
    assert reliability.PAGE.read_text("utf-8") == reliability.page()
    recorded = {path.stem for path in reliability.RECORDS.glob("*.json")}
    assert recorded == set(reliability.CAMPAIGNS)
    for name in recorded:
        for row in json.loads((reliability.RECORDS / f"{name}.json").read_text("utf-8"))["rows"]:
            assert (row["survived"], row["lost"], row["repeated"]) == (row["injected"], 0, 0), row
