"""What an explorer shows in a live notebook, and what a headless run leaves of it."""

from collections.abc import Iterator

import ipywidgets as widgets
import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

from trialign.explore.explorer import Explorer, somebody_watches

VIEW = "application/vnd.jupyter.widget-view+json"

SHOW = """
import ipywidgets as widgets
from trialign.explore.explorer import Explorer
page = widgets.HTML("<b>the page</b>")
Explorer([widgets.IntSlider(description="knob"), page], lambda: page.value)
"""


def outputs_of(client, allow_stdin: bool) -> Iterator[dict]:
    outputs = []
    client.execute_interactive(SHOW, allow_stdin=allow_stdin, output_hook=outputs.append, timeout=60)
    return (message["content"]["data"] for message in outputs if message["msg_type"] == "execute_result")


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_person_gets_the_widget(kernel):
    (data,) = outputs_of(kernel, allow_stdin=True)
    assert VIEW in data
    assert "text/html" not in data


def test_a_request_that_nobody_can_answer_gets_the_page(kernel):
    (data,) = outputs_of(kernel, allow_stdin=False)
    assert VIEW not in data
    assert "<b>the page</b>" in data["text/html"]
    assert "still picture" in data["text/html"]


def test_a_notebook_that_was_executed_headlessly_shows_the_page_as_it_stands():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW)])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert VIEW not in output.data
    assert "<b>the page</b>" in output.data["text/html"]


def test_the_still_picture_is_of_the_page_as_it_is_now():
    page = widgets.HTML("first")
    explorer = Explorer([widgets.IntSlider(), page], lambda: page.value)
    page.value = "second"
    assert not somebody_watches()  # pytest is no notebook
    assert "second" in explorer._repr_mimebundle_()["text/html"]
