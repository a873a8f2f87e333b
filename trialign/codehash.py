"""The hash of the code that made a stage: its notebook and the modules of the package that the notebook uses.

Only what a notebook imports, directly or through other modules, counts for its stage: a change of the beam search
leaves the captions current. Comments, formatting and the notebook's outputs do not count.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "trialign"

#: Tag of a cell that solves an exercise: it is no part of a stage.
SOLUTION = "solution"

#: Modules and subpackages that run stages and show them, and can't change an artifact.
RUNNERS = (
    "cli", "codehash", "explore", "knobs", "profiles", "provenance", "report", "runs", "sweeps", "workspace",
)  # fmt: skip


def code_hash(stage: str, notebooks: Path, package: Path | None = None) -> str:
    """Return the hash of a stage's code.

    Parameters
    ----------
    stage
        Name of the stage; its notebook is ``notebooks/<stage>.ipynb``. Without that file only the package counts,
        all of it.
    notebooks
        Folder of the notebooks.
    package
        Folder of the package's sources; by default the one this module lies in.

    Returns
    -------
    str
        SHA-256 over the notebook's code cells (not its parameters cell: their values are compared by themselves),
        the modules it uses, and the data files that lie beside them in the package.
    """
    modules = _modules(package or Path(__file__).parent)
    notebook = notebooks / f"{stage}.ipynb"
    digest = hashlib.sha256()
    if notebook.is_file():
        cells = notebook_code(notebook)
        for cell in cells:
            digest.update(_normal_form(cell))
        trees = [tree for cell in cells if (tree := _parsed(cell)) is not None]
        used = _closure(_imported(trees, PACKAGE, modules), modules)
    else:
        used = set(modules)
    for name in sorted(name for name in used if not _is_runner(name)):
        digest.update(f"\0{name}\0".encode())
        digest.update(_normal_form(modules[name].read_text("utf-8")))
    for path in _data_files({modules[name] for name in used if modules[name].name == "__init__.py"}):
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def notebook_code(notebook: Path) -> list[str]:
    """Return the sources of a notebook's code cells, without those tagged ``parameters`` and ``solution``."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and not {"parameters", SOLUTION} & set(cell["metadata"].get("tags", []))
    ]


def _modules(package: Path) -> dict[str, Path]:
    """Map the dotted names of all modules below a package's folder to their files."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


def _is_runner(module: str) -> bool:
    return module.removeprefix(f"{PACKAGE}.").partition(".")[0] in RUNNERS


def _closure(start: Iterable[str], modules: dict[str, Path]) -> set[str]:
    """Return the modules of `start` and all they import, with the packages that hold them."""
    used: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name in used or _is_runner(name):
            continue
        used.add(name)
        path = modules[name]
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        tree = _parsed(path.read_text("utf-8"))
        waiting += [] if tree is None else _imported([tree], package, modules)
    return used


def _imported(trees: Iterable[ast.AST], package: str, modules: dict[str, Path]) -> list[str]:
    """Return the package's modules named by import statements or, for late imports by name, by strings."""
    found: set[str] = set()
    for name in (name for tree in trees for name in _dotted_names(tree, package)):
        parts = name.partition(":")[0].split(".")
        while parts and ".".join(parts) not in modules:
            parts.pop()
        found |= {".".join(parts[: end + 1]) for end in range(len(parts))}
    return sorted(found & modules.keys())


def _dotted_names(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            base = above[: len(above) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(f"{PACKAGE}."):
            yield node.value


def _data_files(initializers: set[Path]) -> list[Path]:
    """Return the data files below the used subpackages: weights, word lists; the package's own folder is not one."""
    folders = {path.parent for path in initializers if (path.parents[1] / "__init__.py").is_file()}
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    return sorted(path for path in files if path.suffix not in {".py", ".pyc"})


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:  # a cell with a notebook magic
        return None


def _normal_form(source: str) -> bytes:
    tree = _parsed(source)
    return source.encode() if tree is None else ast.dump(tree).encode()
