"""`trialign lab`: a notebook server runs any code it is sent, so nobody else may reach it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

TOKEN = "a-token-of-this-test"
#: As the kernel writes 127.0.0.1, and the state of a socket that listens.
LOOPBACK, LISTENS = "0100007F", "0A"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server started by the command, in spite of a configuration that opens it to everybody."""
    folder = tmp_path_factory.mktemp("jupyter")
    settings = {"ip": "0.0.0.0", "allow_root": True, "open_browser": False}
    (folder / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": settings}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("trialign"), "lab", "--port", str(port)],
        env={**os.environ, "JUPYTER_CONFIG_DIR": str(folder), "JUPYTER_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(process, port)
    yield port
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(process: subprocess.Popen, port: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended by itself"
        try:
            httpx.get(f"http://127.0.0.1:{port}/api")
        except httpx.ConnectError:
            time.sleep(0.3)
        else:
            return
    pytest.fail(f"no server on port {port} within {seconds} s")


def test_it_asks_for_the_token(server):
    contents = f"http://127.0.0.1:{server}/api/contents"
    assert httpx.get(contents).status_code == 403
    assert httpx.get(contents, params={"token": "wrong"}).status_code == 403
    answer = httpx.get(contents, params={"token": TOKEN})
    assert answer.status_code == 200
    assert "01_catalogue.ipynb" in {entry["name"] for entry in answer.json()["content"]}


@pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="reads what listens where from /proc")
def test_it_listens_on_loopback_alone(server):
    sockets = [
        line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    addresses = {fields[1] for fields in sockets if fields[3] == LISTENS and fields[1].endswith(f":{server:04X}")}
    assert addresses == {f"{LOOPBACK}:{server:04X}"}
