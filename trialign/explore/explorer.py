"""What explorers have in common: parts that a person works with, and a still picture where nobody can."""

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
from IPython import get_ipython

_STILL = (
    '<p style="color:#7A7A7A;font-size:12px">A still picture: run this cell in a live notebook to change what it shows.'
    "</p>"
)


class Explorer(widgets.VBox):
    """Widgets one below the other, and the same as plain HTML.

    In a notebook that a person has open it is shown as widgets. Executed headlessly (papermill, nbconvert, nbval) its
    output is the still picture alone: HTML with its images inside, which needs no kernel, no network and no saved
    widgets.

    Parameters
    ----------
    parts
        What a person sees and may change, top to bottom.
    still
        Returns what the parts show now as HTML in which everything from outside is escaped.
    """

    def __init__(self, parts: Sequence[widgets.Widget], still: Callable[[], str]) -> None:
        super().__init__(list(parts))
        self.add_class("trialign-explorer")
        self.still = still

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"  # a widget's own would spell all its parts

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any] | None:
        if somebody_watches():
            return super()._repr_mimebundle_(**kwargs)
        return {"text/html": _STILL + self.still(), "text/plain": f"{type(self).__name__}: a still picture"}


def somebody_watches() -> bool:
    """Return whether the running cell was sent by a front end that a person sits at.

    JupyterLab says with each request that it can answer a question; what executes notebooks headlessly says it can't.
    """
    shell = get_ipython()
    if getattr(shell, "kernel", None) is None:
        return False
    return bool(shell.get_parent().get("content", {}).get("allow_stdin", False))


def heading_html(text: str) -> str:
    """Return a heading of a part of an explorer as HTML, escaped."""
    return f'<p style="margin:8px 0 2px"><b>{html.escape(text)}</b></p>'


def status_html(text: str) -> str:
    """Return a line as HTML, escaped, that screen readers speak when it changes."""
    return f'<p role="status" aria-live="polite" style="margin:2px 0">{html.escape(text)}</p>'


def table_html(values: Sequence[Sequence[object]], columns: Sequence[str], label: str) -> str:
    """Return rows as an HTML table with a caption, every cell escaped.

    Parameters
    ----------
    values
        The rows.
    columns
        Their column names.
    label
        The caption, which screen readers speak first.
    """
    cell = 'style="text-align:left;padding:1px 14px 1px 0;vertical-align:top"'
    head = "".join(f'<th scope="col" {cell}>{html.escape(column)}</th>' for column in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td {cell}>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in values
    )
    return (
        f'<table style="font-size:12px"><caption style="text-align:left">{html.escape(label)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
