"""Two tiny notebooks in the form of the project's, for tests of the runner."""

from pathlib import Path
from textwrap import dedent

import nbformat

NUMBERS = """
    from pathlib import Path
    import pandas as pd
    from PIL import Image
    from trialign.workspace import Workspace

    Path(log).open("a").write("01\\n")
    stage = Workspace(run).begin("01_numbers", {"count": count, "word": word, "log": log})
    stage.table("numbers", pd.DataFrame({"n": range(count), "word": word}), "The numbers")
    stage.figure("square", Image.new("RGB", (40, 30), "teal"), "A square")
    stage.commit({"count": count})
"""

SUMS = """
    import time
    from pathlib import Path
    import pandas as pd
    from trialign.workspace import Workspace

    Path(log).open("a").write("02\\n")
    workspace = Workspace(run)
    stage = workspace.begin("02_sums", {"scale": scale, "sizes": sizes, "seed": seed, "log": log}, ["01_numbers"])
    numbers = pd.read_parquet(workspace.artifact("01_numbers") / "numbers.parquet")["n"]
    while Path(log).with_name("wait").exists():
        time.sleep(0.05)
    total = scale * float(numbers.sum()) + seed + 0 / len(sizes)
    stage.json("total", total)
    stage.commit({"score": {"ndcg@10": total}})
"""


def write_notebook(path: Path, parameters: str, code: str) -> None:
    """Write a notebook with a parameters cell and one code cell."""
    cells = [
        nbformat.v4.new_code_cell(dedent(parameters).strip(), metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(dedent(code).strip()),
    ]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def write_fake_notebooks(folder: Path) -> Path:
    """Write the two notebooks into ``folder/notebooks``; they append to ``folder/log`` when they are run."""
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    log = f'log = "{folder / "log"}"'
    write_notebook(notebooks / "01_numbers.ipynb", f'run = "notebook"\ncount = 3\nword = "a"\n{log}', NUMBERS)
    write_notebook(notebooks / "02_sums.ipynb", f'run = "notebook"\nscale = 2.0\nsizes = [8, 8]\nseed = 0\n{log}', SUMS)
    return notebooks
