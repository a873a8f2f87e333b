"""Archives that climb out, downloads that are something else, a secret that must show nowhere, and calls never made."""

import ast
import base64
import hashlib
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pandas as pd

import trialign
from faults import Row
from faults.processes import Tally, finish, start
from faults.servers import Quiet, Server, listening, send, serving
from faults.stubs import item_views
from trialign.backbone import hub_tokenizer, make_backbone
from trialign.datasets.download import extract, get
from trialign.describe import DescriptionCache, mine_interests
from trialign.describe.hub import HubCaptioner, HubMiner
from trialign.describe.qwen_vl import qwen_vl_processor
from trialign.describe.server import ServerMiner
from trialign.embed import embedder
from trialign.knobs import find_notebooks, resolve
from trialign.report import write_report
from trialign.runs import Runner
from trialign.scratch import scratch_tokenizer
from trialign.vocabulary import SidVocabulary
from trialign.workspace import Workspace

_KEY = "sk-planted-3f9a1c77e2b84d5f"
_PACKAGE = Path(trialign.__file__).parent

#: Calls that would run what a file says, by dotted name.
_FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "yaml.load",
    "pandas.read_pickle",
    "pd.read_pickle",
}

#: Modules that run what a file says when they read it; none is imported.
_UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}


def rows(times: int, seed: int) -> Iterator[Row]:
    """Try each."""
    yield archives(4 * times, seed)
    yield downloads(times, seed)
    yield models_with_code()
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


def downloads(times: int, seed: int) -> Row:
    """Download a data set whose archive is another, longer, cut or unsafe: refused, and nothing of it stays."""
    draw, tally = random.Random(seed), Tally()
    good = _movielens()
    for _ in range(times):
        way = draw.choice(["other bytes", "longer", "cut", "page", "announces more", "climbs"])
        sent = {
            "other bytes": good[:-1] + bytes([good[-1] ^ 1]),
            "longer": good + b"\0" * draw.randrange(1, 50),
            "cut": good[: draw.randrange(1, len(good))],
            "page": b"<html>not here</html>",
            "climbs": _movielens("../../x"),
        }.get(way, good)
        known = f"sha256:{hashlib.sha256(good if way != 'climbs' else sent).hexdigest()}"
        with tempfile.TemporaryDirectory() as root, tally.timed(), _sending(sent, way == "announces more") as address:
            try:
                get("movielens-small", root, address, known_hash=known, progress=False)
                print(f"an archive of the kind {way!r} was taken")
            except (ValueError, httpx.HTTPError):
                tally.survived += not list(Path(root).rglob("*.csv")) and not Path(root, "ml-latest-small").exists()
    note = "other SHA-256, more bytes than announced or fewer, an unsafe archive: refused, nothing unpacked"
    return Row("downloads that are something else", tally.injected, tally.survived, 0, 0, tally.worst, note)


def _movielens(*others: str) -> bytes:
    """Return an archive like MovieLens', and further members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in ("ml-latest-small/movies.csv", "ml-latest-small/ratings.csv", *others):
            file.writestr(name, "userId,movieId,rating,timestamp\n")
    return buffer.getvalue()


@contextmanager
def _sending(content: bytes, announces_more: bool) -> Iterator[str]:
    """Serve one file on loopback; yields the address of its folder."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) + 100 * announces_more))
            self.end_headers()
            self.wfile.write(content)

    with listening(Handler) as address:
        yield f"{address}/"


def models_with_code() -> Row:
    """Load models that bring Python code by everything that loads one, and say yes to every question: none runs."""
    tally = Tally()
    for name, loads in LOADERS.items():
        with tempfile.TemporaryDirectory() as root, tally.timed():
            folder, ran = Path(root, "model"), Path(root, "ran")
            write_model_with_code(folder, ran)
            with mock.patch("builtins.input", return_value="y") as asked:
                try:
                    loads(str(folder))
                    print(f"{name} loaded the model")
                except Exception as error:  # code that did run may raise anything
                    refused = isinstance(error, ValueError) and "custom code" in str(error)
                    tally.survived += refused and not ran.exists() and not asked.called
    note = "captioner, miner, backbone, embedders, saved vocabulary: refused without a question, the code is not run"
    return Row("models that bring code", tally.injected, tally.survived, 0, 0, tally.worst, note)


def write_model_with_code(folder: Path, ran: Path) -> None:
    """Write a model's folder whose classes are in a Python file of its own, which writes the file `ran`."""
    SidVocabulary.add_to(scratch_tokenizer(["a red mug"] * 9), (4, 4)).save(folder)
    classes = "class C(PreTrainedConfig): model_type = 'own'\nclass T(PreTrainedTokenizerFast): pass\n"
    code = f"open({str(ran)!r}, 'w').close()\nfrom transformers import *\n{classes}class M(PreTrainedModel): pass\n"
    (folder / "own.py").write_text(code)
    models = ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForSeq2SeqLM")
    places = {"AutoConfig": "own.C", **dict.fromkeys(models, "own.M")}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": places}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": [None, "own.T"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


#: Everything that loads a model somebody names, by what it is for.
LOADERS: dict[str, Callable[[str], object]] = {
    "captioner": lambda folder: HubCaptioner(folder).caption([]),
    "miner": lambda folder: HubMiner(folder).mine([], 0),
    "processor": qwen_vl_processor,
    "tokenizer": hub_tokenizer,
    "backbone": lambda folder: make_backbone(folder, (4, 4), ["a"]),
    "vocabulary": SidVocabulary.load,
    "text embedder": lambda folder: embedder(f"text:{folder}").embed(["a"], [None], progress=False),
    "gme embedder": lambda folder: embedder(f"gme:{folder}").embed(["a"], [None], progress=False),
    "towers": lambda folder: embedder(f"towers:{folder}").embed(["a"], [None], progress=False),
}


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
            leaks = [path.name for path in found if holds(path, _KEY)]
            tally.survived += ended and not leaks
            if leaks or not ended:
                print(leaks, (folder / "said").read_text()[-500:])
    note = (
        f"in none of {files} files: cache, logs, notebooks, manifests, report, output; the server quotes it in errors"
    )
    return Row("a planted API key", tally.injected, tally.survived, 0, 0, tally.worst, note)


def holds(path: Path, key: str) -> bool:
    """Return whether a file holds a key: as it is, in base64, or in the cells of a Parquet table."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        content += pd.read_parquet(path).to_string().encode()
    # Where the key starts decides how base64 spells it: what its inner bytes become in each of three ways.
    spelled = [base64.b64encode(b"\0" * shift + key.encode())[4:-4] for shift in range(3)]
    return any(form in content for form in (key.encode(), *spelled))


def _quoting(handler: BaseHTTPRequestHandler) -> None:
    sent = handler.headers["Authorization"]
    send(handler, 400, json.dumps({"error": {"message": f"the key {sent} may not do this"}}).encode())


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
    started, sources = time.monotonic(), sorted(_PACKAGE.rglob("*.py"))
    found = {path: unsafe(path.read_text("utf-8")) for path in sources}
    for path, lines in found.items():
        print(*(f"{path.name}:{line}" for line in lines), sep="\n", end="\n" * bool(lines))
    clean = sum(not lines for lines in found.values())
    note = "no eval, no pickle (torch.load reads weights alone), no shell; each Auto class is told to trust no code"
    return Row("modules searched for unsafe calls", len(found), clean, 0, 0, time.monotonic() - started, note)


def unsafe(source: str) -> list[str]:
    """Return the unsafe calls and imports of a module, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        imports = any(name.split(".")[0] in _UNSAFE_MODULES for name in names)
        if imports or (isinstance(node, ast.Call) and _is_forbidden(node)):
            found.append(f"{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:80]}")
    return found


def _is_forbidden(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    options = {keyword.arg: keyword.value for keyword in call.keywords}

    def says(option: str, wanted: bool = True) -> bool:
        value = options.get(option)
        return isinstance(value, ast.Constant) and bool(value.value) is wanted

    # Without a word on it, transformers asks at the terminal whether to run a repository's code. A GGUF file has none.
    asks = name.startswith("Auto") and name.endswith(".from_pretrained") and not says("trust_remote_code", False)
    doubtful = any(option in options and not says(option, False) for option in ("trust_remote_code", "allow_pickle"))
    unpickles = name == "torch.load" and not says("weights_only")
    return name in _FORBIDDEN or unpickles or doubtful or says("shell") or (asks and "gguf_file" not in options)


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
    whole = findings.empty and not report["errors"]
    return Row("bandit", 1, int(whole), 0, 0, time.monotonic() - started, note)
