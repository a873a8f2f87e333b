import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from fake_notebooks import write_fake_notebooks, write_notebook
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trialign.knobs import Notebook, check_value, declared_parameters, find_notebooks, parse_value, resolve
from trialign.profiles import profile_parameters
from trialign.runs import RunError, Runner
from trialign.sweeps import (
    collect,
    draw_sweep,
    find_metric,
    grid_points,
    markdown,
    parse_grid,
    point_name,
    run_sweep,
    save_sweep,
)
from trialign.workspace import Workspace

A = Notebook(Path("01_a.ipynb"), {"run": "notebook", "captioner": "embedded", "seed": 0, "sizes": [8]})
B = Notebook(Path("02_b.ipynb"), {"run": "notebook", "rate": 0.5, "seed": 0, "rank": None, "dataset": "atelier"})


class Bench:
    """The two fake notebooks and one run of them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.notebooks = write_fake_notebooks(folder)
        self.space = Workspace("demo", folder / "runs")

    def run(self, start=None, force=False, **knobs):
        found = find_notebooks(self.notebooks)
        console = Console(file=(self.folder / "said").open("w"), width=200)
        Runner(self.space, found, resolve(found, knobs), console).run(start, force)
        console.file.close()
        return (self.folder / "said").read_text()

    def executed(self):
        """Return the notebooks that were run since the last call."""
        log = self.folder / "log"
        lines = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_runs_in_order_then_skips_then_follows_changes(bench):
    before = dict(os.environ)
    said = bench.run()
    assert bench.executed() == ["01", "02"]
    assert re.search(r"01_numbers +runs \(not run yet\)\n01_numbers +done in \d+\.\d s\n02_sums", said)
    assert bench.space.manifest("02_sums")["metrics"] == {"score": {"ndcg@10": 6.0}}

    said = bench.run()
    assert bench.executed() == []
    assert re.fullmatch(r"01_numbers +up to date\n02_sums +up to date\n", said)

    said = bench.run(scale="3")
    assert bench.executed() == ["02"]
    assert "parameter changed: scale" in said
    assert bench.space.manifest("02_sums")["metrics"] == {"score": {"ndcg@10": 9.0}}
    executed = nbformat.read(bench.space.folder / "notebooks" / "02_sums.ipynb", 4)
    assert executed.metadata.papermill.parameters["scale"] == 3.0
    assert executed.metadata.papermill.parameters["run"] == "demo"

    bench.run(scale="3", count="4")
    assert bench.executed() == ["01", "02"]  # the second one since the first one's result is another
    bench.run(scale="3", count="4", start="2")
    assert bench.executed() == ["02"]
    assert dict(os.environ) == before


def test_the_kernel_is_this_interpreter(bench):
    write_notebook(
        bench.notebooks / "01_numbers.ipynb",
        'run = "notebook"',
        "import sys\nfrom trialign.workspace import Workspace\n"
        'stage = Workspace(run).begin("01_numbers", {})\nstage.json("python", sys.executable)\nstage.commit()',
    )
    (bench.notebooks / "02_sums.ipynb").unlink()
    bench.run()
    assert sys.executable in (bench.space.artifact("01_numbers") / "python.json").read_text()


def test_a_failing_cell_is_told_in_short(bench):
    with pytest.raises(RunError) as caught:
        bench.run(sizes="[]")
    message = str(caught.value)
    executed = bench.space.folder / "notebooks" / "02_sums.ipynb"
    assert message.startswith("02_sums failed in cell In [3]\n")
    assert "total = scale * float(numbers.sum()) + seed + 0 / len(sizes)" in message
    assert message.endswith(f"executed notebook: {executed}")
    assert len(message.splitlines()) <= 5
    assert any(cell.cell_type == "code" and cell.outputs for cell in nbformat.read(executed, 4).cells)
    assert bench.space.stages() == ["01_numbers"]


def test_a_notebook_that_leaves_out_a_parameter_is_named(bench):
    path = bench.notebooks / "02_sums.ipynb"
    path.write_text(path.read_text().replace('\\"seed\\": seed, ', ""))
    assert re.search(r"02_sums +will run again next time: parameter changed: seed", bench.run())


def test_a_killed_run_goes_on_where_it_was(bench):
    (bench.folder / "wait").touch()
    command = [str(Path(sys.executable).with_name("trialign")), "run", "demo", "--notebooks", str(bench.notebooks)]
    command += ["--runs", str(bench.folder / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    leftover = _wait_for(lambda: next(bench.space.folder.glob(".02_sums.*"), None))
    with pytest.raises(RunError, match=rf"is being written by process {process.pid}, started"):
        bench.run()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kernel = int(leftover.name.split(".")[-1])
    _wait_for(lambda: not Path(f"/proc/{kernel}").exists())  # a kernel ends with the process that started it
    (bench.folder / "wait").unlink()
    assert bench.executed() == ["01", "02"]

    assert re.search(r"01_numbers +up to date\n02_sums +runs \(not run yet\)", bench.run())
    assert bench.executed() == ["02"]
    assert not list(bench.space.folder.glob(".02_sums.*"))


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_start_must_be_a_notebook(bench):
    with pytest.raises(ValueError, match="no notebook '7' to start from; there are 01_numbers, 02_sums"):
        bench.run(start="7")


def test_knobs_over_profile_over_preset_over_notebook():
    plain = resolve([A, B], {})
    assert plain["01_a"] == {"captioner": "embedded", "seed": 0, "sizes": [8]}
    assert plain["02_b"]["dataset"] == "atelier"
    preset = resolve([A, B], {}, dataset="movielens-posters")
    assert preset["01_a"]["captioner"] == "recorded:movielens-posters"
    assert preset["02_b"]["dataset"] == "movielens-posters"
    assert resolve([A, B], {"dataset": "movielens-posters"}) == preset
    profile = resolve([A, B], {}, "embedded", "movielens-posters")
    assert profile["01_a"]["captioner"] == "embedded"
    given_too = resolve([A, B], {"captioner": "hub:x", "seed": "4"}, "embedded", "movielens-posters")
    assert given_too["01_a"]["captioner"] == "hub:x"
    assert given_too["01_a"]["seed"] == given_too["02_b"]["seed"] == 4


def test_an_unknown_knob_lists_the_known_ones():
    with pytest.raises(ValueError) as caught:
        resolve([A, B], {"sed": "1"})
    assert str(caught.value).splitlines() == [
        "no notebook has a parameter sed; there are",
        "  01_a: captioner, seed, sizes",
        "  02_b: rate, seed, rank, dataset",
    ]
    with pytest.raises(ValueError, match="no profile 'huge'; there are embedded, laptop, paper"):
        profile_parameters("huge", None)


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("7", 1, 7),
        ("7", 1.5, 7.0),
        ("1e-3", 1.5, 0.001),
        ("True", False, True),
        ("true", False, True),
        ("[1, 2]", [3], [1, 2]),
        ("(1, 2)", [3], [1, 2]),
        ('{"a": null}', {}, {"a": None}),
        ("7", "x", "7"),
        ("None", "x", "None"),
        ("None", None, None),
        ("16", None, 16),
        ("some text", None, "some text"),
    ],
)
def test_values_are_read_by_the_type_of_the_default(text, default, value):
    read = parse_value("knob", text, default)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "default"), [("x", 1), ("1.5", 1), ("True", 1), ("1", True), ("3", [1]), ("[1", [1]), ("None", 1)]
)
def test_values_of_another_type_are_refused(text, default):
    with pytest.raises(ValueError, match=r"knob = .* is not a value of type"):
        parse_value("knob", text, default)


@given(
    st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.lists(st.integers()))
)
def test_a_value_written_as_python_is_read_back(value):
    assert parse_value("knob", repr(value), value) == value
    assert check_value("knob", value, None) == value


def test_declared_parameters_are_plain_values(tmp_path):
    path = tmp_path / "01_a.ipynb"
    write_notebook(path, 'run = "a"  # which run\nsizes: list = [\n    1,  # one\n    2,\n]\nurl = "x=y"', "pass")
    assert declared_parameters(path) == {"run": "a", "sizes": [1, 2], "url": "x=y"}
    write_notebook(path, 'run = "a"\nseed = max(1, 2)', "pass")
    with pytest.raises(ValueError, match=r"01_a\.ipynb: line 2 of the parameters cell is not"):
        declared_parameters(path)
    with pytest.raises(FileNotFoundError, match="no numbered notebooks in"):
        find_notebooks(tmp_path / "none")


def test_grids():
    grid = parse_grid([A, B], {"sizes": "[[16, 16], [32]]", "seed": "[0, 1]", "rate": "1", "captioner": "hub:x"})
    assert grid == {"sizes": [[16, 16], [32]], "seed": [0, 1], "rate": [1.0], "captioner": ["hub:x"]}
    points = grid_points(grid)
    assert [(point["sizes"], point["seed"]) for point in points] == [([16, 16], 0), ([16, 16], 1), ([32], 0), ([32], 1)]
    assert parse_grid([A, B], {"sizes": "[16, 32]"}) == {"sizes": [[16, 32]]}
    assert parse_grid([A, B], {"captioner": '["a", "b"]'}) == {"captioner": ["a", "b"]}
    with pytest.raises(ValueError, match="no notebook has a parameter sizs"):
        parse_grid([A, B], {"sizs": "[1]"})
    with pytest.raises(ValueError, match="seed = 'x' is not a value of type int"):
        parse_grid([A, B], {"seed": "['x']"})


@given(st.lists(st.text(max_size=40) | st.integers() | st.lists(st.integers()), min_size=1, max_size=6))
def test_points_have_folders_of_their_own(values):
    names = {point_name({"knob": value}) for value in values}
    assert len(names) == len({repr(value) for value in values})
    assert all(re.fullmatch(r"[A-Za-z0-9.=_-]+", name) and not name.startswith(".") for name in names)


def test_a_sweep_shares_stages_and_goes_on(bench, tmp_path):
    found = find_notebooks(bench.notebooks)
    grid = {"scale": [1.0, 2.0], "seed": [0]}
    console = Console(file=(tmp_path / "said").open("w"), width=200)
    table, failures = run_sweep("grid", found, grid, bench.space.root, console)
    assert failures == {}
    assert bench.executed().count("01") == 1
    assert table["02_sums.score.ndcg@10"].tolist() == [3.0, 6.0]
    column = find_metric(table, list(grid), "ndcg@10")
    paths = save_sweep(bench.space.root / "grid", table, draw_sweep(table, list(grid), column))
    assert [path.name for path in paths] == ["sweep.parquet", "sweep.csv", "sweep.md", "sweep.png"]
    assert pd.read_csv(paths[1])[column].tolist() == table[column].tolist()

    again, _ = run_sweep("grid", found, grid | {"seed": [0, 1]}, bench.space.root, console)
    assert bench.executed() == ["02", "02"]
    assert again["02_sums.score.ndcg@10"].tolist() == [3.0, 4.0, 6.0, 7.0]
    console.file.close()


def test_a_failing_point_does_not_stop_the_others(bench, tmp_path):
    console = Console(file=(tmp_path / "said").open("w"), width=200)
    found = find_notebooks(bench.notebooks)
    table, failures = run_sweep("grid", found, {"sizes": [[], [8]]}, bench.space.root, console)
    assert len(failures) == 1
    assert "02_sums failed" in next(iter(failures.values()))
    assert table["02_sums.score.ndcg@10"].isna().tolist() == [True, False]
    console.file.close()


def test_sweep_figure_has_a_line_a_group_and_a_dot_a_point():
    table = pd.DataFrame({"sizes": ["[8]", "[8]", "[9]", "[9]"] * 2, "seed": [0, 1] * 4, "rate": [1] * 4 + [2] * 4})
    table["m"] = [0.0, 2.0, 3.0, 5.0, 1.0, 1.0, 1.0, 1.0]
    axes = draw_sweep(table, ["sizes", "seed", "rate"], "m").axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1.0, 4.0], [1.0, 1.0]]
    assert sum(len(dots.get_offsets()) for dots in axes.collections) == 8
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["rate = 1", "rate = 2"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["[8]", "[9]"]


def test_metrics_are_found_by_their_ends():
    table = pd.DataFrame({"seed": [0], "01_a.n": [1], "02_b.x": [0.1], "02_b.y.n": [0.2], "seconds": [3.0]})
    assert find_metric(table, ["seed"], None) == "02_b.x"
    assert find_metric(table, ["seed"], "x") == "02_b.x"
    assert find_metric(table, ["seed"], "01_a.n") == "01_a.n"
    with pytest.raises(ValueError, match=r"more than one metric ends in 'n'; there are 01_a\.n, 02_b\.y\.n"):
        find_metric(table, ["seed"], "n")
    with pytest.raises(ValueError, match=r"no metric is named 'z'; there are 01_a\.n, 02_b\.x, 02_b\.y\.n"):
        find_metric(table, ["seed"], "z")


def test_markdown_keeps_its_columns():
    text = markdown(pd.DataFrame({"a|b": ["x\ny"], "m": [1 / 3]}))
    assert text == "| a\\|b | m |\n| --- | --- |\n| x y | 0.3333 |\n"


def test_points_without_results_are_rows_all_the_same(tmp_path):
    table = collect([{"seed": 0}], [Workspace("grid/none", tmp_path)])
    assert table.to_dict("list") == {"seed": [0], "seconds": [0]}


def test_solutions_of_exercises_are_left_out_of_runs_and_of_the_code_hash(tmp_path):
    bench = Bench(tmp_path)
    bench.run()
    assert bench.executed() == ["01", "02"]
    path = bench.notebooks / "01_numbers.ipynb"
    notebook = nbformat.read(path, as_version=4)
    solution = nbformat.v4.new_code_cell("raise ValueError('never run')", metadata={"tags": ["solution"]})
    notebook.cells.append(solution)
    nbformat.write(notebook, path)
    assert "up to date" in bench.run(), "an exercise is no part of the stage"
    bench.run(force=True)
    assert bench.executed() == ["01", "02"]
    done = nbformat.read(bench.space.folder / "notebooks" / "01_numbers.ipynb", as_version=4)
    assert not [cell for cell in done.cells if "never run" in cell.source]
