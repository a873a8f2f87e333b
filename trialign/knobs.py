"""The notebooks' knobs: which there are, what their values are, and how the command line sets them."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialign.profiles import profile_parameters


@dataclass(frozen=True)
class Notebook:
    """A notebook and the knobs it declares.

    Attributes
    ----------
    path
        The notebook's file.
    defaults
        Names and values of its parameters cell.
    """

    path: Path
    defaults: Mapping[str, Any]

    @property
    def stage(self) -> str:
        """The name of the stage that the notebook writes: its file's stem."""
        return self.path.stem


def find_notebooks(folder: Path) -> list[Notebook]:
    """Return the numbered notebooks of a folder (``01_catalogue.ipynb``, ...) in order.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(
            f"no numbered notebooks in {folder}: run in a checkout of the project, or name its folder with --notebooks"
        )
    return [Notebook(path, declared_parameters(path)) for path in paths]


def declared_parameters(path: Path) -> dict[str, Any]:
    """Return the names and values of a notebook's cell tagged ``parameters``; empty where there is no such cell.

    Raises
    ------
    ValueError
        If a line of that cell is not ``name = plain value``.
    """
    parameters = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if "parameters" not in cell["metadata"].get("tags", []):
            continue
        for statement in ast.parse("".join(cell["source"])).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    pass
                case _:
                    raise ValueError(_not_plain(path, statement))
            try:
                parameters[name] = ast.literal_eval(value)
            except ValueError as error:
                raise ValueError(_not_plain(path, statement)) from error
    return parameters


def _not_plain(path: Path, statement: ast.stmt) -> str:
    return f"{path}: line {statement.lineno} of the parameters cell is not `name = plain value`"


def parse_value(name: str, text: str, default: Any) -> Any:
    """Read a knob's value as given on the command line, against the type of its default.

    Parameters
    ----------
    name
        The knob, for the error.
    text
        A Python or JSON literal; taken as it is where the default is a string.
    default
        The value in the notebook's parameters cell; None accepts any literal, and text that is none.

    Raises
    ------
    ValueError
        If the value is not of the default's type.

    Examples
    --------
    >>> parse_value("codebook_sizes", "[64, 64]", [256, 256, 256])
    [64, 64]
    >>> parse_value("captioner", "embedded", "embedded")
    'embedded'
    """
    if isinstance(default, str):
        return text
    try:
        value = literal(text)
    except ValueError:
        if default is None:
            return text
        raise ValueError(
            f"{name} = {text!r} is not a value of type {type(default).__name__}, as {default!r} is"
        ) from None
    return check_value(name, value, default)


def literal(text: str) -> Any:
    """Return the value of a Python or JSON literal; ValueError where it is neither."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return json.loads(text)


def check_value(name: str, value: Any, default: Any) -> Any:
    """Return the value, of the type of the default: an int becomes a float and a tuple a list where it has to.

    Raises
    ------
    ValueError
        If the types differ otherwise.
    """
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is None or type(value) is type(default) or (isinstance(value, list) and isinstance(default, tuple)):
        return value
    raise ValueError(f"{name} = {value!r} is not a value of type {type(default).__name__}, as {default!r} is")


def resolve(
    notebooks: Sequence[Notebook],
    knobs: Mapping[str, str],
    profile: str | None = None,
    dataset: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return every notebook's parameters: its defaults, the data set's preset, the profile, then the given knobs.

    Parameters
    ----------
    notebooks
        As from `find_notebooks`.
    knobs
        Names and values as text; each must be declared by at least one notebook.
    profile, dataset
        As for `trialign.profiles.profile_parameters`.

    Returns
    -------
    dict
        Stage to parameters, without ``run``.

    Raises
    ------
    ValueError
        If a knob is unknown (the message lists the known ones with their notebooks) or has a value of another type.
    """
    known = {name for notebook in notebooks for name in notebook.defaults} - {"run"}
    unknown = sorted(knobs.keys() - known)
    if unknown:
        lines = [
            f"  {notebook.stage}: {', '.join(name for name in notebook.defaults if name != 'run') or 'none'}"
            for notebook in notebooks
        ]
        raise ValueError(f"no notebook has a parameter {', '.join(unknown)}; there are\n" + "\n".join(lines))
    chosen = profile_parameters(profile, knobs.get("dataset", dataset))
    resolved = {}
    for notebook in notebooks:
        values = {name: chosen.get(name, default) for name, default in notebook.defaults.items() if name != "run"}
        given = {name: parse_value(name, knobs[name], notebook.defaults[name]) for name in values if name in knobs}
        resolved[notebook.stage] = values | given
    return resolved
