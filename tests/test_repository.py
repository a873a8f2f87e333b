"""The repository keeps its promises: commands that exist, notebooks in form, environments that agree."""

import ast
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import papermill
import pytest
import yaml
from packaging.requirements import Requirement

from trialign.knobs import declared_parameters
from trialign.profiles import PRESETS, PROFILES

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
STAGES = [
    "01_catalogue", "02_captioning", "03_interest_mining", "04_semantic_ids", "05_multitask_training", "06_beam_search",
    "07_ablations",
]  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
)


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def make_targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_notebooks_are_those_of_the_pipeline():
    assert [path.stem for path in NOTEBOOKS][: len(STAGES)] == STAGES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_declares_its_knobs_run_first(path):
    tagged = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    declared = declared_parameters(path)
    assert next(iter(declared.items())) == ("run", "notebook")
    assert set(papermill.inspect_notebook(path)) == set(declared)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_in_form(path):
    for cell in cells(path):
        source = "".join(cell["source"])
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert len(source.splitlines()) <= 25, source
        ast.parse(source)
    headings = re.findall(r"^#+ (.*)$", "\n".join("".join(c["source"]) for c in cells(path, "markdown")), re.MULTILINE)
    assert headings
    assert all(re.match(rf"{int(path.stem[:2])}(\.\d+)*\.? ", heading) for heading in headings), headings


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_teaches(path):
    """It opens with what one learns and ends with three exercises, solutions folded below them, and its words."""
    texts = ["".join(cell["source"]) for cell in cells(path, "markdown")]
    assert "You will learn" in texts[0]
    assert re.match(r"## \d\.\d+ Words\n\n\| word \|", texts[-1])
    assert texts[-1].count("\n|") >= 7, "at least five words"
    assert re.match(r"## \d\.\d+ Exercises", texts[-4])
    assert [re.search(r"\*\*(\d)\.\*\*", text)[1] for text in texts[-4:-1]] == ["1", "2", "3"]
    whole = json.loads(path.read_text())["cells"]
    solved = [cell for cell in whole if "solution" in cell["metadata"].get("tags", [])]
    assert [whole.index(cell) for cell in solved] == [len(whole) - place for place in (6, 4, 2)]
    for cell in solved:
        assert cell["metadata"]["jupyter"] == {"source_hidden": True, "outputs_hidden": True}


def mapping_keys(node, tree):
    """Return the keys of a mapping written as ``{"a": a}`` or ``dict(a=a)``, or assigned so to a name before."""
    if isinstance(node, ast.Name):
        assigned = [
            n for n in ast.walk(tree) if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == node.id
        ]
        return mapping_keys(assigned[-1].value, tree)
    if isinstance(node, ast.Dict):
        return {key.value for key in node.keys}
    assert isinstance(node, ast.Call) and node.func.id == "dict", ast.unparse(node)
    return {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_records_all_its_knobs_with_its_stage(path):
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells(path)))
    begins = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "begin"]
    assert [call.args[0].value for call in begins] == [path.stem]
    parameters = [*begins[0].args[1:2], *(k.value for k in begins[0].keywords if k.arg == "parameters")][0]
    assert mapping_keys(parameters, tree) - {"run"} == declared_parameters(path).keys() - {"run"}


@pytest.mark.parametrize("values", [*PROFILES.values(), *PRESETS.values()], ids=[*PROFILES, *PRESETS])
def test_profiles_name_knobs_that_exist(values):
    known = {name for path in NOTEBOOKS for name in declared_parameters(path)}
    assert values.keys() <= known


def test_the_notebooks_say_what_the_embedded_profile_says():
    defaults = {name: value for path in NOTEBOOKS for name, value in declared_parameters(path).items()}
    assert {name: defaults[name] for name in PROFILES["embedded"]} == PROFILES["embedded"]


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```(?:bash|sh|console|shell)?\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    targets = [shlex.split(line, comments=True)[1] for line in lines if line.startswith("make ")]
    assert {"demo", "test"} <= set(targets) <= make_targets()
    commands = {shlex.split(line, comments=True)[1] for line in lines if line.startswith("trialign ")}
    assert commands <= {"run", "sweep", "report", "data", "lab", "tokenize", "cache"}
    linked = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", readme)
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_ci_and_workflow_call_the_same_targets():
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text()
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    steps = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["test"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs[:2] == ["make lint", ".ci/run"]
    assert make_targets() == {"demo", "test", "test-browser", "audit", "lab", "lint", "clean"}
    printed = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pytest -n 2 tests" in printed
    assert "--nbval-lax" in printed


def test_environment_yml_says_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, last = environment["dependencies"]
    assert environment["name"] == PROJECT["project"]["name"]
    assert [Requirement(entry).name for entry in conda] == ["python", "pip"]
    assert str(Requirement(conda[0]).specifier) == PROJECT["project"]["requires-python"]
    assert last == {"pip": ["-e .[dev]"]}
    assert "dev" in PROJECT["project"]["optional-dependencies"]


def test_constraints_pin_every_dependency_inside_its_range():
    optional = [line for group in PROJECT["project"]["optional-dependencies"].values() for line in group]
    for requirement in map(Requirement, [*PROJECT["project"]["dependencies"], *optional]):
        assert requirement.name in CONSTRAINTS
        assert requirement.specifier.contains(CONSTRAINTS[requirement.name]), requirement


def test_pre_commit_uses_the_pinned_tools():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pins = [Requirement(pin) for hook in hooks for pin in hook["additional_dependencies"]]
    assert {pin.name for pin in pins} == {"ruff", "nbconvert"}
    for pin in pins:
        assert str(pin.specifier) == f"=={CONSTRAINTS[pin.name]}"


def test_versions_and_licence_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License\n" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_modules_are_short():
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "trialign").rglob("*.py")}
    assert {path.name: length for path, length in lengths.items() if length > 450} == {}


def test_progress_bars_are_the_slow_ones():
    """Bars that redraw ten times a second made long notebook cells time out under nbval."""
    files = [*(ROOT / "trialign").rglob("*.py"), *NOTEBOOKS]
    direct = [path.name for path in files if re.search(r"^(from|import) tqdm", path.read_text(), re.MULTILINE)]
    assert direct == ["progress.py"]
