"""Two notebooks in the form of the project's that take a moment each."""

from pathlib import Path

import nbformat

_FIRST = """
from pathlib import Path
import pandas as pd
from trialign.workspace import Workspace
stage = Workspace(run).begin("01_numbers", {"count": count, "log": log})
with Path(log).open("a") as file: file.write("01\\n")
stage.table("numbers", pd.DataFrame({"n": range(count)}))
stage.commit({"count": count})
"""

_SECOND = """
from pathlib import Path
import pandas as pd
from trialign.workspace import Workspace
space = Workspace(run)
stage = space.begin("02_sums", {"scale": scale, "log": log}, ["01_numbers"])
with Path(log).open("a") as file: file.write("02\\n")
total = scale * int(pd.read_parquet(space.artifact("01_numbers") / "numbers.parquet")["n"].sum())
stage.json("total", total)
stage.commit({"total": total})
"""


def write_two(folder: Path) -> Path:
    """Write the notebooks into ``folder/notebooks``, once; they append to ``folder/asked`` when they run."""
    notebooks, log = folder / "notebooks", folder / "asked"
    if not notebooks.is_dir():
        notebooks.mkdir()
        for name, knob, code in (("01_numbers", "count = 5", _FIRST), ("02_sums", "scale = 2", _SECOND)):
            knobs = f'run = "notebook"\n{knob}\nlog = "{log}"'
            cells = [
                nbformat.v4.new_code_cell(knobs, metadata={"tags": ["parameters"]}),
                nbformat.v4.new_code_cell(code.strip()),
            ]
            kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), notebooks / f"{name}.ipynb")
    return notebooks
