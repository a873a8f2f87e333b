"""Files that are cut, overwritten, deleted or may not be written, and clocks that jump."""

import errno
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from faults import Row
from faults.kills import describe, tokenize
from faults.processes import Job, Tally, finish, start
from faults.stubs import small_training
from trialign.catalogue import Catalogue
from trialign.datasets import load
from trialign.describe import DescriptionCache
from trialign.describe.cache_repair import repair, verify
from trialign.recommend import GenerativeRecommender
from trialign.sids import SemanticIds, load_quantizer
from trialign.sids.tokenization import Tokenization
from trialign.workspace import Workspace

#: Of a user that may write nowhere but in its own folders.
_NOBODY = 65534


def rows(times: int, seed: int) -> Iterator[Row]:
    """Damage every kind of artifact, so many times each."""
    with tempfile.TemporaryDirectory() as root:
        made = make_artifacts(Path(root))
        for name, (folder, read) in made.items():
            yield damaged(f"{name}: a file cut, emptied, deleted or filled with noise", folder, read, times, seed)
    yield changed_outputs(times, seed)
    yield cut_cache(times, seed)
    yield overwritten_cache(times, seed)
    yield full_disk(times, seed)
    yield no_permission(max(1, times // 5))
    yield clock_jump(max(1, times // 5))


Reader = Callable[[Path], object]


def make_artifacts(root: Path) -> dict[str, tuple[Path, Reader]]:
    """Write one of each kind of artifact, with what reads it."""
    tokenize(root)
    model, tasks, sids = small_training()
    GenerativeRecommender(model, tasks.vocabulary, sids).save(root / "model")
    load("atelier").select(np.arange(12)).save(root / "catalogue", copy_images=True)
    space = Workspace("demo", root / "runs")
    stage = space.begin("01_s", {"seed": 0})
    stage.table("t", pd.DataFrame({"n": [1, 2]}))
    stage.commit()
    return {
        "semantic IDs": (root / "made" / "sids", SemanticIds.load),
        "quantizer": (root / "made" / "quantizer", load_quantizer),
        "tokenization": (root / "made", Tokenization.load),
        "recommender": (root / "model", GenerativeRecommender.load),
        "catalogue": (root / "catalogue", Catalogue.load),
        "manifest of a stage": (
            root / "runs" / "demo" / "01_s",
            lambda folder: Workspace("demo", folder.parents[1]).manifest("01_s"),
        ),
    }


def hurt(path: Path, draw: random.Random) -> str:
    """Damage a file in one of four ways."""
    content, way = path.read_bytes(), draw.choice(["cut", "emptied", "deleted", "noise"])
    if way == "cut":
        path.write_bytes(content[: draw.randrange(max(1, len(content)))])
    elif way == "emptied":
        path.write_bytes(b"")
    elif way == "deleted":
        path.unlink()
    else:
        path.write_bytes(draw.randbytes(max(1, len(content))))
    return way


def damaged(name: str, folder: Path, read: Reader, times: int, seed: int) -> Row:
    """Damage a random file of an artifact; reading it must give the same, or an error of ours."""
    draw, tally, refused = random.Random(seed), Tally(), 0
    for _ in range(times):
        with tempfile.TemporaryDirectory() as root, tally.timed():
            copy = Path(root, *folder.parts[-3:])
            shutil.copytree(folder, copy)
            path = draw.choice(sorted(path for path in copy.rglob("*") if path.is_file()))
            way = hurt(path, draw)
            try:
                read(copy)
                tally.survived += 1
            except (ValueError, FileNotFoundError) as error:
                named = any(str(part) in str(error) for part in (path, path.name, copy, copy.name))
                tally.survived += named
                refused += 1
                if not named:
                    print(f"{path.name} {way}: {type(error).__name__}: {error}")
            except Exception as error:  # a library's own is what must not come out
                print(f"{path.name} {way}: {type(error).__name__}: {error}")
    note = (
        f"{refused} times refused by an error that names file and remedy; else what was hurt is not needed to read it"
    )
    return Row(name, tally.injected, tally.survived, 0, 0, tally.worst, note)


def changed_outputs(times: int, seed: int) -> Row:
    """Change one byte of a stage's output; the next run must notice."""
    draw, tally = random.Random(seed), Tally()
    for _ in range(times):
        with tempfile.TemporaryDirectory() as root, tally.timed():
            space = Workspace("demo", root)
            stage = space.begin("01_s", {"seed": 0})
            path = stage.table("t", pd.DataFrame({"n": range(100)})).relative_to(stage.folder)
            target = stage.commit() / path
            content = bytearray(target.read_bytes())
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            target.write_bytes(content)
            tally.survived += space.reason_to_run("01_s", {"seed": 0}) is not None
    note = "the stage is no longer current, and is made again"
    return Row("a bit flipped in a stage's output", tally.injected, tally.survived, 0, 0, tally.worst, note)


def _filled_cache(folder: Path) -> Path:
    describe(folder)
    with DescriptionCache(folder / "cache.sqlite") as cache:
        cache._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "cache.sqlite"


def _mended(path: Path, tally: Tally) -> int:
    """Verify, repair if need be, and count a survival; returns how many entries are left."""
    if verify(path).sound:
        tally.survived += 1
        return 60
    report, kept = repair(path)
    with DescriptionCache(path) as cache:
        tally.survived += kept.exists() and len(cache) == report.ok and verify(path).sound
        return len(cache)


def cut_cache(times: int, seed: int) -> Row:
    """Cut the file of the descriptions anywhere."""
    draw, tally, left = random.Random(seed), Tally(), []
    with tempfile.TemporaryDirectory() as root:
        whole = _filled_cache(Path(root)).read_bytes()
        for number in range(times):
            path = Path(root, f"{number}.sqlite")
            path.write_bytes(whole[: draw.randrange(len(whole))])
            with tally.timed():
                left.append(_mended(path, tally))
    note = f"`trialign cache repair` saves {np.mean(left):.0f} of 60 entries on average; the damaged file is kept"
    return Row("descriptions: the file cut anywhere", tally.injected, tally.survived, 0, 0, tally.worst, note)


def overwritten_cache(times: int, seed: int) -> Row:
    """Overwrite a page of the file of the descriptions with noise."""
    draw, tally, left = random.Random(seed), Tally(), []
    with tempfile.TemporaryDirectory() as root:
        whole = _filled_cache(Path(root)).read_bytes()
        for number in range(times):
            path, place = Path(root, f"{number}.sqlite"), draw.randrange(len(whole) // 512) * 512
            path.write_bytes(whole[:place] + draw.randbytes(512) + whole[place + 512 :])
            with tally.timed():
                left.append(_mended(path, tally))
    note = f"repair saves {np.mean(left):.0f} of 60 entries on average, each checked against its answer"
    return Row("descriptions: 512 bytes overwritten", tally.injected, tally.survived, 0, 0, tally.worst, note)


def _limited(job: Job, size: int) -> Job:
    """Return the job in a process whose files may not grow beyond so many bytes, as on a full disk."""

    def limited(folder: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            job(folder)
        except (OSError, ValueError) as error:
            os.write(1, f"REFUSED {type(error).__name__} {error}\n".encode()[:size])
            os._exit(3)
        except Exception as error:
            os.write(1, f"LEAKED {type(error).__name__} {error}\n".encode()[:size])
            os._exit(4)

    return limited


def full_disk(times: int, seed: int) -> Row:
    """Let files grow to a random size only, then give room again."""
    draw, tally, refused, lost = random.Random(seed), Tally(), 0, 0
    for number in range(times):
        job, sizes = (describe, (4096, 60_000)) if number % 2 else (tokenize, (1024, 40_000))
        with tempfile.TemporaryDirectory() as root, tally.timed():
            folder = Path(root)
            worker = start(_limited(job, draw.randint(*sizes)), folder)
            worker.join()
            refused += worker.exitcode == 3
            before = _answers(folder)
            again = finish(start(job, folder))
            lost += max(0, before - _answers(folder))
            tally.survived += worker.exitcode in (0, 3) and again
            if worker.exitcode not in (0, 3):
                print((folder / "said").read_text()[-300:])
    note = f"{refused} times the limit was met, and told; with room again the run goes on from what is there"
    return Row("no room left for describe and tokenize", tally.injected, tally.survived, lost, 0, tally.worst, note)


def _answers(folder: Path) -> int:
    path = folder / "cache.sqlite"
    if not path.exists() or not path.stat().st_size:
        return 0
    with DescriptionCache(path) as cache:
        return len(cache)


def no_permission(times: int) -> Row:
    """Write where nobody may: a folder without the right to write, as another user than root."""
    tally, jobs = Tally(), (describe, tokenize, _stage)
    for number in range(times):
        job = jobs[number % len(jobs)]
        with tempfile.TemporaryDirectory() as root, tally.timed():
            folder = Path(root, "locked")
            folder.mkdir()
            Path(root).chmod(0o755)
            (folder / "said").touch()
            (folder / "said").chmod(0o666)
            folder.chmod(0o555)

            def as_nobody(place: Path, job: Job = job) -> None:
                if os.geteuid() == 0:
                    os.setgid(_NOBODY)
                    os.setuid(_NOBODY)
                try:
                    job(place)
                except OSError as error:
                    told = error.errno in (errno.EACCES, errno.EROFS, errno.EPERM) or "locked" in str(error)
                    os._exit(3 if told else 4)
                except Exception as error:
                    print(f"LEAKED {type(error).__name__} {error}")
                    os._exit(3 if "locked" in str(error) else 4)

            worker = start(as_nobody, folder)
            worker.join()
            tally.survived += worker.exitcode == 3
            if worker.exitcode != 3:
                print((folder / "said").read_text()[-300:])
            folder.chmod(0o755)
    note = "refused by an error that names the folder"
    return Row("a folder that may not be written", tally.injected, tally.survived, 0, 0, tally.worst, note)


def _stage(folder: Path) -> None:
    Workspace("demo", folder / "runs").begin("01_s", {}).commit()


def clock_jump(times: int) -> Row:
    """Date files and entries into the future and the past; nothing is asked again, nothing is out of date."""
    tally, repeated = Tally(), 0
    for number in range(times):
        with tempfile.TemporaryDirectory() as root, tally.timed():
            folder, when = Path(root), time.time() + (10**9 if number % 2 else -(10**9))
            describe(folder)
            _stage(folder)
            with DescriptionCache(folder / "cache.sqlite") as cache:
                cache._connection.execute("UPDATE entries SET created = ?", ("2099-01-01T00:00:00+00:00",))
            for path in folder.rglob("*"):
                os.utime(path, (when, when))
            (folder / "asked").unlink()
            describe(folder)
            repeated += (folder / "asked").exists()
            tally.survived += Workspace("demo", folder / "runs").is_current("01_s", {}, [])
    note = "times are told, never compared"
    return Row("clock and file times far off", tally.injected, tally.survived, 0, repeated, tally.worst, note)
