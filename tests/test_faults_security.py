"""Each injected danger is refused, and each search would find what it looks for."""

import base64

import pandas as pd
import pytest
from faults import security


def test_unsafe_archives_are_refused():
    row = security.archives(40, seed=3)
    assert row.whole, row


@pytest.mark.slow
def test_downloads_of_something_else_are_refused():
    row = security.downloads(12, seed=1)
    assert row.whole, row


def test_no_code_of_a_model_runs_even_if_the_user_says_yes():
    row = security.models_with_code()
    assert row.whole, row
    assert row.injected == len(security.LOADERS)


@pytest.mark.slow
def test_the_model_with_code_would_run_it_if_trusted(tmp_path):
    """The injected fault is real: transformers runs the file where it may."""
    from transformers import AutoConfig

    security.write_model_with_code(tmp_path / "model", tmp_path / "ran")
    AutoConfig.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert (tmp_path / "ran").exists()


def test_no_module_has_an_unsafe_call():
    row = security.calls()
    assert row.whole, row


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "eval(text)",
        "subprocess.run(command, shell=True)",
        "yaml.load(text)",
        "AutoModel.from_pretrained(name)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=asked)",
        "Pipeline(name, trust_remote_code=True)",
    ],
)
def test_unsafe_calls_would_be_found(line):
    assert len(security.unsafe(line)) == 1


def test_safe_calls_are_left_alone():
    assert security.unsafe("torch.load(path, weights_only=True); np.load(path); model.eval(); json.load(file)") == []


def test_a_key_is_found_however_it_is_written(tmp_path):
    key = "sk-planted-3f9a1c77e2b84d5f"
    pd.DataFrame({"error": [f"the key {key}"] * 500}).to_parquet(tmp_path / "a.parquet", compression="zstd")
    (tmp_path / "b.txt").write_text(f"x{key}y")
    for shift in range(3):
        (tmp_path / f"c{shift}").write_bytes(base64.b64encode(b"x" * shift + f"{key} and more".encode()))
    (tmp_path / "none").write_text("sk-planted")
    assert sorted(path.name for path in tmp_path.iterdir() if security.holds(path, key)) == [
        "a.parquet", "b.txt", "c0", "c1", "c2",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_planted_key_is_nowhere():
    row = security.planted_key(1)
    assert row.whole, row


@pytest.mark.slow
def test_bandit_finds_nothing_of_medium_or_high_severity():
    row = security.bandit()
    assert row.whole, row
