"""Archives that climb out, downloads that are something else, a secret that must show nowhere, and calls never made."""

import ast
import io
import json
import os
import random
import stat
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

import trialign
from faults import Row
from faults.processes import Tally, finish, start
from faults.servers import Server, serving
from faults.stubs import item_views
from trialign.datasets.download import extract
from trialign.describe import DescriptionCache, mine_interests
from trialign.describe.server import ServerMiner
from trialign.knobs import find_notebooks, resolve
from trialign.report import write_report
from trialign.runs import Runner
from trialign.workspace import Workspace

_KEY = "sk-planted-3f9a1c77e2b84d5f"
_PACKAGE = Path(trialign.__file__).parent

#: Calls that would run what a file says, by dotted name.
_FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "pickle.load",
    "pickle.loads",
    "dill.load",
    "joblib.load",
    "marshal.loads",
    "shelve.open",
    "os.system",
    "os.popen",
    "yaml.load",
    "pandas.read_pickle",
    "pd.read_pickle",
}


def rows(times: int, seed: int) -> Iterator[Row]:
    """Try each."""
    yield archives(4 * times, seed)
    yield planted_key(max(1, times // 10))
    yield calls()
    yield bandit()


def _archive(draw: random.Random) -> tuple[str, bytes]:
    """Return a ZIP archive with one member that must be refused, and what is wrong with it."""
    buffer, way = io.BytesIO(), draw.choice(["climbs", "absolute", "link", "bomb", "device", "drive", "cut", "noise"])
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("good.txt", "good")
        names = {"climbs": draw.choice(["../x", "a/../../x", "..\\x"]), "absolute": "/tmp/x", "drive": "C:\\x"}
        if way in names:
            file.writestr(names[way], "bad")
        elif way in ("link", "device"):
            member = zipfile.ZipInfo("x")
            member.external_attr = ((stat.S_IFLNK if way == "link" else stat.S_IFCHR) | 0o777) << 16
            file.writestr(member, "/etc/passwd")
        elif way == "bomb":
            file.writestr("x", b"\0" * 20_000_000)
    content = buffer.getvalue()
    if way == "cut":
        content = content[: draw.randrange(len(content))]
    elif way == "noise":
        content = draw.randbytes(200)
    return way, content


def archives(times: int, seed: int) -> Row:
    """Unpack bad archives: refused by an error of ours, nothing written anywhere."""
    draw, tally = random.Random(seed), Tally()
    for _ in range(times):
        way, content = _archive(draw)
        with tempfile.TemporaryDirectory() as root, tally.timed():
            path, folder = Path(root, "a.zip"), Path(root, "in", "side")
            path.write_bytes(content)
            try:
                extract(path, folder, max_bytes=10_000_000)
                print(f"an archive of the kind {way!r} was unpacked")
            except ValueError as error:
                written = [each for each in Path(root).rglob("*") if each.is_file() and each != path]
                tally.survived += not written and "fix:" in str(error)
    note = "members that climb, links, devices, bombs, cut files: refused before anything is written"
    return Row("archives that are unsafe", tally.injected, tally.survived, 0, 0, tally.worst, note)


def planted_key(times: int) -> Row:
    """Run everything that knows a key, with a server that quotes it, and look for it in all that was written."""
    tally, files = Tally(), 0
    for _ in range(times):
        with tempfile.TemporaryDirectory() as root, tally.timed():
            folder = Path(root)
            with mock.patch.dict(os.environ, {"OPENAI_API_KEY": _KEY, "HF_TOKEN": _KEY}):
                ended = finish(start(_with_key, folder))
            found = [path for path in folder.rglob("*") if path.is_file()]
            files += len(found)
            leaks = [path.name for path in found if _KEY.encode() in path.read_bytes()]
            tally.survived += ended and not leaks
            if leaks or not ended:
                print(leaks, (folder / "said").read_text()[-500:])
    note = (
        f"in none of {files} files: cache, logs, notebooks, manifests, report, output; the server quotes it in errors"
    )
    return Row("a planted API key", tally.injected, tally.survived, 0, 0, tally.worst, note)


def _quoting(handler: BaseHTTPRequestHandler) -> None:
    sent = handler.headers["Authorization"]
    body = json.dumps({"error": {"message": f"the key {sent} may not do this"}}).encode()
    handler.send_response(400)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _with_key(folder: Path) -> None:
    from rich.console import Console

    from faults.notebooks import write_two

    server = Server(_quoting, 0, broken_item="3")
    with serving(server) as address, DescriptionCache(folder / "cache.sqlite") as cache, warnings.catch_warnings():
        warnings.simplefilter("always")
        table = mine_interests(item_views(6), ServerMiner("m", address, timeout=2.0), cache, progress=False)
    assert (table["source"] == "failed").sum() == 1, "the server did quote the key"
    table.to_parquet(folder / "interests.parquet")
    print(table.to_string())
    found = find_notebooks(write_two(folder))
    space = Workspace("demo", folder / "runs")
    Runner(space, found, resolve(found, {}), Console(), threads=1).run()
    write_report(space)


def calls() -> Row:
    """Look for calls that would run what a file or a model's repository says."""
    started, found, looked = time.monotonic(), [], 0
    for path in sorted(_PACKAGE.rglob("*.py")):
        looked += 1
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _is_forbidden(node):
                found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)[:80]}")
    print(*found, sep="\n", end="\n" * bool(found))
    note = "no eval, no pickle (torch.load reads weights alone), no remote code, no shell"
    return Row("modules searched for unsafe calls", looked, looked - len(found), 0, 0, time.monotonic() - started, note)


def _is_forbidden(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    options = {keyword.arg: keyword.value for keyword in call.keywords}

    def says(option: str) -> bool:
        value = options.get(option)
        return isinstance(value, ast.Constant) and bool(value.value)

    unsafe = says("trust_remote_code") or says("allow_pickle") or says("shell")
    unpickles = name == "torch.load" and not says("weights_only")
    return name in _FORBIDDEN or unpickles or unsafe


def bandit() -> Row:
    """Let bandit look through the package; nothing of medium or high severity may be found."""
    started = time.monotonic()
    settings = _PACKAGE.parent / "pyproject.toml"
    command = [sys.executable, "-m", "bandit", "-r", str(_PACKAGE), "-c", str(settings), "-ll", "-q", "-f", "json"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    report: dict[str, Any] = json.loads(said)
    findings = pd.DataFrame(report["results"])
    if len(findings):
        print(findings[["test_id", "filename", "line_number", "issue_text"]].to_string())
    lines = report["metrics"]["_totals"]["loc"]
    note = f"{lines:,} lines; what is left out, and why, stands in pyproject.toml"
    return Row("bandit", 1, int(findings.empty), 0, 0, time.monotonic() - started, note)
