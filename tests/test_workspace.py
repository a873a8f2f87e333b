import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_notebooks import write_fake_notebooks, write_notebook
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from trialign import workspace as module
from trialign.codehash import code_hash
from trialign.provenance import plain
from trialign.workspace import Workspace


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIALIGN_NOTEBOOKS", str(write_fake_notebooks(tmp_path)))
    return Workspace("demo", tmp_path / "runs")


def make(space, stage="01_numbers", parameters=None, reads=(), value=1, sources=()):
    opened = space.begin(stage, parameters or {}, reads, sources)
    opened.json("value", value)
    return opened.commit({"value": value})


def test_a_stage_is_seen_only_when_complete(space):
    stage = space.begin("01_numbers", {"count": 3})
    stage.json("value", {"a": np.float32(0.5), "b": (1, 2)})
    assert space.stages() == []
    assert not (space.folder / "01_numbers").exists()
    folder = stage.commit({"count": np.int64(3)})
    assert folder == space.folder / "01_numbers" == space.artifact("01_numbers")
    assert json.loads((folder / "value.json").read_text()) == {"a": 0.5, "b": [1, 2]}
    assert [path.name for path in space.folder.iterdir()] == ["01_numbers"]
    manifest = space.manifest("01_numbers")
    assert manifest["parameters"] == {"count": 3}
    assert manifest["metrics"] == {"count": 3}
    assert manifest["versions"]["numpy"] == np.__version__


def test_current_needs_equal_parameters_inputs_and_outputs(space):
    make(space, parameters={"run": "demo", "sizes": (8, 8)})
    assert space.is_current("01_numbers", {"sizes": [8, 8], "run": "other"}, [])
    assert space.reason_to_run("01_numbers", {"sizes": [8]}, []) == "parameter changed: sizes"
    assert space.reason_to_run("01_numbers", {"sizes": [8, 8], "more": None}, []) == "parameter changed: more"
    assert space.reason_to_run("01_numbers", {"sizes": [8, 8]}, ["00_other"]) == "it reads other stages"
    assert space.reason_to_run("02_sums", {}, []) == "not run yet"
    path = space.artifact("01_numbers") / "value.json"
    path.write_text("2\n")
    assert space.reason_to_run("01_numbers", {"sizes": [8, 8]}) == "output value.json was altered"
    path.unlink()
    assert space.reason_to_run("01_numbers", {"sizes": [8, 8]}) == "output value.json is missing"


def test_downstream_follows_content_and_not_time(space):
    make(space)
    make(space, "02_sums", reads=["01_numbers"])
    make(space)  # an identical rerun
    assert space.is_current("02_sums", {}, ["01_numbers"])
    make(space, value=2)
    assert space.reason_to_run("02_sums", {}) == "01_numbers changed"


def test_a_redrawn_figure_leaves_downstream_current(space):
    identities = []
    for colour in ("teal", "tomato"):
        stage = space.begin("01_numbers", {})
        stage.figure("square", Image.new("RGB", (4, 4), colour), colour)
        stage.commit()
        identities.append(space.manifest("01_numbers")["id"])
    assert identities[0] == identities[1]


def test_sources_outside_the_run_are_watched(space, tmp_path):
    catalogue = tmp_path / "catalogue"
    catalogue.mkdir()
    (catalogue / "items.csv").write_text("item_id\n1\n")
    make(space, sources=[catalogue])
    assert space.is_current("01_numbers", {}, [])
    (catalogue / "items.csv").write_text("item_id\n1\n2\n")
    assert space.reason_to_run("01_numbers", {}) == f"{catalogue} changed"
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        make(space, sources=[tmp_path / "nowhere"])


def test_a_missing_stage_names_the_notebook(space):
    with pytest.raises(FileNotFoundError, match=r"run notebooks/01_numbers\.ipynb first with run = 'demo'"):
        space.begin("02_sums", {}, ["01_numbers"])


def test_leftovers_of_dead_processes_are_removed_and_others_kept(space):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = space.folder / f".01_numbers.{child.pid}"
    alive = space.folder / f".01_numbers.{os.getppid()}"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    space.begin("02_other", {})
    assert not dead.exists()
    assert alive.exists()


def test_figures_and_tables_are_recorded_in_order(space):
    stage = space.begin("01_numbers", {})
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    stage.figure("zebra", figure, "first")
    stage.figure("ant", Image.new("RGB", (4, 4)), "second")
    stage.figure("zebra", figure, "first, again")
    stage.table("codes", pd.DataFrame({0: [1], "who": ["<b>"]}), "codes")
    stage.table("counts", pd.Series({"a": 1}, name="n"))
    folder = stage.commit()
    figures = json.loads((folder / "figures.json").read_text())
    assert figures == [{"name": "zebra", "caption": "first, again"}, {"name": "ant", "caption": "second"}]
    assert pd.read_parquet(folder / "codes.parquet").to_dict("list") == {"0": [1], "who": ["<b>"]}
    assert pd.read_parquet(folder / "counts.parquet")["n"].to_dict() == {"a": 1}
    with Image.open(folder / "figures" / "zebra.png") as image:
        assert image.width == 2 * figure.dpi


def test_equal_figures_are_equal_files(space):
    contents = []
    for _ in range(2):
        stage = space.begin("01_numbers", {})
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        contents.append(stage.figure("line", figure).read_bytes())
    assert contents[0] == contents[1]


def test_writing_after_commit_says_what_to_do(space):
    stage = space.begin("01_numbers", {})
    stage.commit()
    for write in (lambda: stage.json("late", 1), stage.commit):
        with pytest.raises(ValueError, match="already committed: call begin"):
            write()


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a/b"])
def test_names_stay_inside_the_folder(space, name):
    stage = space.begin("01_numbers", {})
    with pytest.raises(ValueError, match="name"):
        stage.json(name, 1)
    with pytest.raises(ValueError, match="name"):
        space.begin(name, {})


@pytest.mark.parametrize("run", ["", "..", "../x", ".demo"])
def test_a_run_has_a_name(tmp_path, run):
    with pytest.raises(ValueError, match="can't be named"):
        Workspace(run, tmp_path)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission to write there")]
)
def test_a_full_disk_names_the_folder(space, monkeypatch, number, words):
    stage = space.begin("01_numbers", {})

    def fail(path, obj):
        raise OSError(number, "raw")

    monkeypatch.setattr(module, "_write_json", fail)
    with pytest.raises(OSError, match=words) as caught:
        stage.json("value", 1)
    assert str(stage.folder) in str(caught.value)
    assert "TRIALIGN_RUNS" in str(caught.value)


def test_a_stage_is_taken_over_from_another_run(space):
    make(space)
    other = Workspace("other", space.root)
    other.copy_stage("01_numbers", space)
    assert other.is_current("01_numbers", {}, [])
    make(space, value=2)  # the copy does not change with the original
    assert other.is_current("01_numbers", {}, [])
    assert [path.name for path in other.folder.iterdir()] == ["01_numbers"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_plain_leaves_json_as_it_is(value):
    assert plain(value) == value
    assert json.loads(json.dumps(plain({"v": value}))) == {"v": value}


def test_plain_converts_and_refuses():
    assert plain({1: np.arange(2), "s": {2, 1}, "p": Path("a"), "n": float("nan")}) == {
        "1": [0, 1],
        "s": [1, 2],
        "p": "a",
        "n": None,
    }
    with pytest.raises(TypeError, match="object can't be written as JSON"):
        plain([object()])


@pytest.fixture
def sources(tmp_path):
    """A package with two chains of imports, and a notebook that uses one of them."""
    package = tmp_path / "trialign"
    (package / "embed").mkdir(parents=True)
    (package / "decode").mkdir()
    for name, text in {
        "__init__.py": "",
        "catalogue.py": "x = 1\n",
        "cli.py": "from trialign import decode\n",
        "embed/__init__.py": "from .text import f\n",
        "embed/text.py": "def f():\n    from trialign.catalogue import x\n    return x\n",
        "embed/words.txt": "one\n",
        "embed/late.py": "y = 1\n",
        "decode/__init__.py": "",
        "decode/trie.py": "",
    }.items():
        (package / name).write_text(text)
    code = "from trialign import cli\nfrom trialign.embed import f\nlate = 'trialign.embed.late:y'"
    write_notebook(tmp_path / "01_a.ipynb", "seed = 0", code)
    return tmp_path, package


@pytest.mark.parametrize("changed", ["catalogue.py", "embed/text.py", "embed/words.txt", "embed/late.py"])
def test_code_that_the_notebook_uses_counts(sources, changed):
    folder, package = sources
    before = code_hash("01_a", folder, package)
    (package / changed).write_text("z = 2\n")
    assert code_hash("01_a", folder, package) != before


@pytest.mark.parametrize("changed", ["decode/trie.py", "cli.py"])
def test_code_that_it_does_not_use_does_not(sources, changed):
    folder, package = sources
    before = code_hash("01_a", folder, package)
    (package / changed).write_text("z = 2\n")
    assert code_hash("01_a", folder, package) == before


def test_comments_formatting_and_the_parameters_cell_do_not_count(sources):
    folder, package = sources
    before = code_hash("01_a", folder, package)
    (package / "catalogue.py").write_text("x   =   1  # one\n")
    code = "from trialign import cli\n\nfrom trialign.embed import f  # f\nlate = 'trialign.embed.late:y'"
    write_notebook(folder / "01_a.ipynb", "seed = 1", code)
    assert code_hash("01_a", folder, package) == before
    write_notebook(folder / "01_a.ipynb", "seed = 1", code + "\nf()")
    assert code_hash("01_a", folder, package) != before


def test_without_a_notebook_the_whole_package_counts(sources):
    folder, package = sources
    before = code_hash("09_none", folder, package)
    (package / "decode/trie.py").write_text("z = 2\n")
    assert code_hash("09_none", folder, package) != before


def test_a_checkpoint_outlives_a_killed_run_and_goes_with_the_commit(tmp_path):
    workspace = Workspace("run", root=tmp_path)
    first = workspace.begin("05_train", {"steps": 3})
    first.checkpoint.mkdir(parents=True)
    (first.checkpoint / "state").write_text("half way")
    again = workspace.begin("05_train", {"steps": 3})  # as after a kill: the first was never committed
    assert (again.checkpoint / "state").read_text() == "half way"
    assert not workspace.begin("05_train", {"steps": 4}).checkpoint.exists(), "other parameters find nothing"
    workspace.begin("05_train", {"steps": 3}).commit()
    assert not first.checkpoint.exists()
