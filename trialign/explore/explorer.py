"""What explorers have in common: knobs above a page, and a still picture where nobody can turn the knobs."""

from typing import Any

import ipywidgets as widgets
from IPython import get_ipython

_STILL = (
    '<p style="color:#7A7A7A;font-size:12px">A still picture: run this cell in a live notebook to change what it shows.'
    "</p>"
)


class Explorer(widgets.VBox):
    """Knobs above a page that they change.

    In a notebook that a person has open it is shown as a widget. Executed headlessly (papermill, nbconvert, nbval) its
    output is the page alone, plain HTML with its images inside: it needs no kernel, no network and no saved widgets.

    Parameters
    ----------
    knobs
        What a person may change.
    page
        What it shows; its value is HTML in which everything from outside is escaped.
    """

    def __init__(self, knobs: widgets.Widget, page: widgets.HTML) -> None:
        super().__init__([knobs, page])
        self.page = page

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any] | None:
        if somebody_watches():
            return super()._repr_mimebundle_(**kwargs)
        return {"text/html": _STILL + self.page.value, "text/plain": f"{type(self).__name__}: a still picture"}


def somebody_watches() -> bool:
    """Return whether the running cell was sent by a front end that a person sits at.

    JupyterLab says with each request that it can answer a question; what executes notebooks headlessly says it can't.
    """
    shell = get_ipython()
    if getattr(shell, "kernel", None) is None:
        return False
    return bool(shell.get_parent().get("content", {}).get("allow_stdin", False))
