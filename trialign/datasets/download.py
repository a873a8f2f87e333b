"""Public data sets by name, from where they are published to a folder that `trialign.datasets.load` reads."""

import json
import re
import shutil
import stat
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import httpx
import pooch

from trialign.datasets.transfer import TIMEOUT, fetch

#: Where GroupLens publishes MovieLens.
MOVIELENS = "https://files.grouplens.org/datasets/movielens"

#: Where the McAuley lab publishes the raw files of Amazon Reviews 2023.
AMAZON_2023 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw"

#: The largest archive, its largest content, and the largest raw file that are accepted, in bytes.
MAX_ARCHIVE, MAX_CONTENT, MAX_RAW = 50_000_000, 500_000_000, 40_000_000_000

#: What can be had by name; `<Category>` is one of the data set's own category names.
NAMES = ("movielens-small", "amazon-2023:<Category>")


def get(
    name: str,
    destination: str | Path,
    base_url: str | None = None,
    known_hash: str | None = None,
    progress: bool = True,
) -> Path:
    """Download a public data set.

    What is there already is not downloaded again. No checksum is published that we could vouch for, so the SHA-256 of
    what came is printed and kept in ``source.json``; give it as `known_hash` to insist on the same file another time.

    Parameters
    ----------
    name
        "movielens-small", or "amazon-2023:" and a category, for example "amazon-2023:All_Beauty" (its images come
        afterwards, with `trialign.datasets.amazon2023.get_images`).
    destination
        The folder in which the data set's own folder is made, usually a data root.
    base_url
        Another place with the same files, for example a mirror; default: the publisher's.
    known_hash
        "sha256:..." of the archive or of the reviews file.
    progress
        Show progress bars.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    ValueError
        If the name is unknown or can't be had by link, the hash differs, or an archive is unsafe or too large.
    httpx.HTTPError
        If the download fails after several tries.
    """
    destination = Path(destination)
    if name == "movielens-small":
        return _movielens(destination, base_url or MOVIELENS, known_hash, progress)
    if name.startswith("amazon-2023:"):
        category = name.split(":", 1)[1]
        if not re.fullmatch(r"[A-Za-z0-9_]+", category):
            raise ValueError(f"{category!r} is no category name; fix: letters and underscores, for example All_Beauty")
        return _amazon(destination, category, base_url or AMAZON_2023, known_hash, progress)
    if name == "movielens-posters":
        raise ValueError(
            "movielens-posters can't be had by link: the posters belong to the film studios, who permit no copies; "
            "fix: bring your own folder as data/README.md describes, or get movielens-small, which has no images"
        )
    raise ValueError(f"{name!r} can't be downloaded; fix: give one of {', '.join(NAMES)}")


def _movielens(destination: Path, base_url: str, known_hash: str | None, progress: bool) -> Path:
    folder = destination / "ml-latest-small"
    if (folder / "source.json").is_file():
        return folder
    url = f"{base_url.rstrip('/')}/ml-latest-small.zip"
    destination.mkdir(parents=True, exist_ok=True)
    # Beside the final folder, so that renaming is enough; whatever fails, nothing half done stays behind.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=destination) as scratch:
        archive = _retrieve(url, Path(scratch), known_hash, MAX_ARCHIVE, progress)
        inner = extract(archive, Path(scratch) / "unpacked") / "ml-latest-small"
        if not (inner / "ratings.csv").is_file():
            raise ValueError(f"{url}: no ml-latest-small/ratings.csv in the archive; fix: check the address")
        _note(inner, [(url, archive, pooch.file_hash(str(archive)))])
        shutil.rmtree(folder, ignore_errors=True)
        inner.rename(folder)
    print(f"MovieLens is for research, not for commercial use; its terms are in {folder / 'README.txt'}")
    return folder


def _amazon(destination: Path, category: str, base_url: str, known_hash: str | None, progress: bool) -> Path:
    folder = destination / f"amazon_2023_{category}"
    base = base_url.rstrip("/")
    urls = [f"{base}/review_categories/{category}.jsonl.gz", f"{base}/meta_categories/meta_{category}.jsonl.gz"]
    hashes = [known_hash, None]
    files = [_retrieve(url, folder, known, MAX_RAW, progress) for url, known in zip(urls, hashes)]
    _note(folder, [(url, file, pooch.file_hash(str(file))) for url, file in zip(urls, files)])
    return folder


def _retrieve(url: str, folder: Path, known_hash: str | None, max_bytes: int, progress: bool) -> Path:
    """Download one file through pooch: checked against the hash, put in place at once and whole.

    The part of a download that was cut off lies beside the file, and is continued by the next call.
    """
    name = url.rsplit("/", 1)[-1]

    def downloader(address: str, output: str | Path, _: object) -> None:
        with httpx.Client(follow_redirects=True, timeout=TIMEOUT, headers={"accept-encoding": "identity"}) as client:
            fetch(client, address, folder / name, max_bytes, progress=progress).replace(output)

    return Path(pooch.retrieve(url, known_hash, fname=name, path=folder, downloader=downloader))


def _note(folder: Path, sources: list[tuple[str, Path, str]]) -> None:
    files = [
        {"url": url, "file": path.name, "bytes": path.stat().st_size, "sha256": digest} for url, path, digest in sources
    ]
    note = {"downloaded": datetime.now(UTC).isoformat(timespec="seconds"), "files": files}
    (folder / "source.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    for file in files:
        print(f"{file['file']}: {file['bytes']:,} bytes, sha256:{file['sha256']}")


def extract(archive: Path, folder: Path, max_bytes: int = MAX_CONTENT) -> Path:
    """Unpack a ZIP archive, refusing members that would leave the folder.

    Parameters
    ----------
    archive
        The file.
    folder
        Where to; made if need be.
    max_bytes
        Most bytes of all members together.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        If the file is no ZIP archive, a member is absolute, climbs with ``..``, is a link or a device, or there is too
        much.
        Nothing is written then.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            for member in members:
                _refuse_unsafe(archive.name, member)
            total = sum(member.file_size for member in members)
            if total > max_bytes:
                raise ValueError(
                    f"{archive.name}: unpacks to {total} bytes, more than {max_bytes}; fix: check its source"
                )
            file.extractall(folder)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive.name}: not a ZIP archive ({error}); fix: download it again") from None
    return folder


def _refuse_unsafe(archive: str, member: zipfile.ZipInfo) -> None:
    name = member.orig_filename
    path = PurePosixPath(name.replace("\\", "/"))
    climbs = path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name
    kind = stat.S_IFMT(member.external_attr >> 16)
    if climbs or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(
            f"{archive}: the member {name!r} would leave the folder, or is no file; fix: don't use this archive"
        )
