import re
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fake_notebooks import write_fake_notebooks
from typer.testing import CliRunner

from trialign.cli import app
from trialign.cli.base import name_or_full_path

TRIALIGN = str(Path(sys.executable).with_name("trialign"))


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200", "TERM": "dumb"})


COMMANDS = ["run", "sweep", "report", "lab", "tokenize", "data list", "data make", "data get", "data check"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    usage, _, text = result.output.partition("Usage:")[2].partition("\n")
    assert command in usage
    assert f"trialign {command}" in text.split("Options")[0]


def test_help_is_fast_and_imports_nothing_heavy():
    code = "import sys, trialign.cli; print({'torch', 'pandas', 'papermill', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([TRIALIGN, "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor seconds: on a busy machine the clock says nothing of the command.
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1


def test_run_report_and_sweep(tmp_path):
    notebooks = write_fake_notebooks(tmp_path)
    where = ("--runs", tmp_path / "runs", "--notebooks", notebooks)
    result = call("run", "demo", *where, "-p", "sizes", "[1, 2]", "-p", "word=b=c")
    assert result.exit_code == 0, result.output
    assert re.search(r"2 of 2 notebooks run in \d+ s\nexecuted notebooks: .*/runs/demo/notebooks\n", result.output)
    numbers = pd.read_parquet(tmp_path / "runs/demo/01_numbers/numbers.parquet")
    assert numbers["word"].tolist() == ["b=c"] * 3

    result = call("report", "demo", "--runs", tmp_path / "runs", "--out", tmp_path / "page.html")
    assert result.exit_code == 0
    assert "word = b=c" in (tmp_path / "page.html").read_text()

    result = call("sweep", "grid", *where, "-p", "count", "[3]", "-p", "word", "b", "--metric", "ndcg@10")
    assert result.exit_code == 0, result.output
    assert "02_sums.score.ndcg@10" in result.output
    assert (tmp_path / "runs/grid/sweep.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "nap", "1"], "error: no notebook has a parameter nap; there are\n  01_numbers: count, word, log"),
        (["-p", "count", "many"], "error: count = 'many' is not a value of type int"),
        (["-p", "count"], "error: -p count: give a name and a value"),
        (["--from", "9"], "error: no notebook '9' to start from"),
        (["--profile", "huge"], "error: no profile 'huge'; there are embedded, laptop, paper"),
    ],
)
def test_mistakes_are_told_without_a_traceback(tmp_path, arguments, message):
    notebooks = write_fake_notebooks(tmp_path)
    result = call("run", "demo", "--runs", tmp_path / "runs", "--notebooks", notebooks, *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "log").exists()


def test_other_mistakes(tmp_path):
    for arguments, message in [
        (["report", "none", "--runs", tmp_path], "has no complete stage: run `trialign run none` first"),
        (["sweep", "--runs", tmp_path], "nothing to sweep"),
        (["data", "make", "workshop"], "no generator 'workshop'; there is atelier"),
        (["data", "make", "atelier", "--out", tmp_path], "is not empty: name another folder with --out"),
        (["data", "check", tmp_path / "none"], "none"),
    ]:
        (tmp_path / "something").touch()
        result = call(*arguments)
        assert result.exit_code == 1, arguments
        assert message in result.stderr
        assert "Traceback" not in result.output


def test_data_list_names_the_shipped_catalogue():
    result = call("data", "list")
    assert result.exit_code == 0, result.output
    assert "atelier" in result.output


def test_data_make_then_check_then_break(tmp_path):
    folder = tmp_path / "made"
    result = call("data", "make", "atelier", "--items", 40, "--users", 60, "--seed", 3, "--out", folder)
    assert result.exit_code == 0, result.output
    result = call("data", "check", folder)
    assert result.exit_code == 0, result.output
    assert "is sound" in " ".join(result.output.split()), "the words, wherever a long path breaks the line"
    items = pd.read_parquet(folder / "items.parquet")
    items.loc[1, "item_id"] = items.loc[0, "item_id"]
    items.to_parquet(folder / "items.parquet")
    result = call("data", "check", folder)
    assert result.exit_code == 1
    assert "items.parquet" in result.output
    assert re.search(r"error: \d+ problems in", result.stderr)


def test_a_download_that_fails_says_why(tmp_path, httpserver):
    httpserver.expect_request("/ml-latest-small.zip").respond_with_data("gone", status=404)
    result = call("data", "get", "movielens-small", "--mirror", httpserver.url_for("/"), "--out", tmp_path)
    assert result.exit_code == 1
    assert "error: movielens-small could not be downloaded:" in result.stderr
    assert "404" in result.stderr
    assert "Traceback" not in result.output
    result = call("data", "get", "movielens-posters", "--out", tmp_path)
    assert "can't be had by link" in result.stderr


def test_a_folder_is_found_from_where_the_command_runs(tmp_path, monkeypatch):
    for name in ("mine", "atelier"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert name_or_full_path("mine") == str(tmp_path / "mine")
    assert name_or_full_path("atelier") == "atelier"
    assert name_or_full_path("nowhere") == "nowhere"
