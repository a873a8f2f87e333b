"""JupyterLab in a real browser, for tests: a server on loopback, a page that opens notebooks and runs their cells."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import nbformat

TOKEN = "a-token-of-this-test"

#: Debian's name first; None where there is no browser.
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# WebGL is drawn by the processor, since test machines have no graphics card.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]

# Off: cells outside the window would not exist in the page. The rest keeps news and questions away.
_SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}

_CONNECTED = (
    "jupyterapp.shell.currentWidget?.sessionContext?.isReady && "
    "jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.connectionStatus === 'connected'"
)

# Code cells that have not run yet, or run now, or wait. Asked of the model: a folded cell has no prompt in the page.
_UNRUN = (
    "jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code' "
    "&& cell.model.sharedModel.source.trim() && cell.model.executionCount === null).length"
)

_FAILED = (
    "[...document.querySelectorAll('.jp-OutputArea-output[data-mime-type*=stderr]')]"
    ".filter(output => output.textContent.includes('Traceback'))"
)


@contextmanager
def jupyter_lab(
    folder: Path, theme: str = "JupyterLab Light", environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start JupyterLab in a folder; yields its address."""
    home = folder / ".jupyter"
    themes = {"@jupyterlab/apputils-extension/themes": {"theme": theme}}
    for name, values in (_SETTINGS | themes).items():
        path = home / "lab" / "user-settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--ServerApp.ip=127.0.0.1", f"--port={port}", "--allow-root", "--expose-app-in-browser"]
    log = (folder / "jupyter.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options],
        cwd=folder,
        env={**os.environ, "JUPYTER_CONFIG_DIR": str(home), "JUPYTER_TOKEN": TOKEN, **(environment or {})},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        _wait_for(process, port, folder / "jupyter.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # kernels too
        process.wait()
        log.close()


def _wait_for(process: subprocess.Popen, port: int, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise OSError(f"JupyterLab ended by itself:\n{log.read_text()}")
        try:
            httpx.get(f"http://127.0.0.1:{port}/api")
            return
        except httpx.ConnectError:
            time.sleep(0.3)
    raise OSError(f"no JupyterLab on port {port} within {seconds} s:\n{log.read_text()}")


def write_notebook(path: Path, *cells: str) -> Path:
    """Write a notebook of code cells, to be run by the interpreter of the tests."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


class LabPage:
    """A browser's page with one notebook open.

    Attributes
    ----------
    page : playwright.sync_api.Page
        Playwright's page.
    errors : list of str
        What the page's scripts raised.
    """

    def __init__(self, playwright, address: str, width: int = 1400, height: int = 1000):
        self.browser = playwright.chromium.launch(executable_path=BROWSER, args=_ARGUMENTS)
        self.page = self.browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(20_000)
        self.address = address
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, name: str) -> None:
        """Open a notebook and wait until its kernel is there."""
        self.page.goto(f"{self.address}/lab/tree/{name}?token={TOKEN}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        # The indicator shows an idle kernel before there is one; a cell run then asks which kernel to take.
        self.page.wait_for_function(_CONNECTED, timeout=60_000)
        self.page.keyboard.press("Control+B")  # the file browser takes room

    def run_all(self, seconds: float = 120) -> None:
        """Run all cells and wait for them; AssertionError with the text of the first one that failed."""
        self.page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.wait_for_function(f"{_UNRUN} === 0 || {_FAILED}.length", timeout=seconds * 1000)
        failed = self.page.evaluate(f"{_FAILED}.map(output => output.textContent)")
        assert not failed, failed[0]

    def explorer(self, index: int = 0):
        """Return the locator of an explorer, scrolled into view."""
        found = self.page.locator(".trialign-explorer").nth(index)
        found.wait_for()
        found.scroll_into_view_if_needed()
        return found

    def close(self) -> None:
        """Close the browser."""
        self.browser.close()
