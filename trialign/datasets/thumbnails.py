"""Item images by address: many small downloads side by side that can be stopped and taken up again."""

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx
import pandas as pd
from PIL import Image

from trialign.datasets.transfer import TIMEOUT, fetch
from trialign.images import ImageError, open_rgb
from trialign.progress import tqdm

#: Endings by the format that Pillow finds in the file; what the address or the server says doesn't count.
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif"}


def file_stem(item_id: str) -> str:
    """Return an item's file name without ending: the id where it is safe as a file name, else a hash of it."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", item_id):
        return item_id
    return hashlib.sha256(item_id.encode()).hexdigest()[:32]


def images_there(folder: Path) -> dict[str, str]:
    """Return the names of the finished images of a folder by `file_stem`."""
    if not folder.is_dir():
        return {}
    return {path.stem: path.name for path in sorted(folder.iterdir()) if path.suffix in _ENDINGS.values()}


def download_images(
    addresses: Mapping[str, str],
    folder: str | Path,
    workers: int = 16,
    max_bytes: int = 10_000_000,
    attempts: int = 4,
    wait: float = 0.5,
    progress: bool = True,
) -> pd.DataFrame:
    """Download one image an item.

    Finished images are skipped, so that a stopped download is taken up where it was. An image is first written as
    ``.part``, decoded, and only then renamed. What fails is tried again with back-off, then listed.

    Parameters
    ----------
    addresses
        http(s) address by item id.
    folder
        Where the images go, made if need be.
    workers
        Downloads side by side.
    max_bytes
        A longer file counts as failed.
    attempts
        Tries for each image.
    wait
        Seconds before the second try; doubled each time, with jitter.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row an item, in the order of `addresses`: item_id, url, file ("" where it failed), status ("made", "kept" or
        "failed"), error.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    there = images_there(folder)
    rows = {item: (item, url, there.get(file_stem(item), ""), "kept", "") for item, url in addresses.items()}
    missing = [item for item, row in rows.items() if not row[2]]
    # The plain bytes of the file are wanted; a compressed answer could also be far larger than it says.
    client = httpx.Client(follow_redirects=True, timeout=TIMEOUT, headers={"accept-encoding": "identity"})
    with client, ThreadPoolExecutor(workers) as pool:
        jobs = {
            pool.submit(_one, client, item, addresses[item], folder, max_bytes, attempts, wait): item
            for item in missing
        }
        try:
            for job in tqdm(as_completed(jobs), "images", total=len(jobs), disable=not progress):
                rows[jobs[job]] = job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # a stopped notebook cell shall not wait for the queue
            raise
    return pd.DataFrame(list(rows.values()), columns=["item_id", "url", "file", "status", "error"])


def _one(
    client: httpx.Client, item: str, url: str, folder: Path, max_bytes: int, attempts: int, wait: float
) -> tuple[str, str, str, str, str]:
    path = folder / file_stem(item)
    part = path.with_name(path.name + ".part")
    try:
        fetch(client, url, path, max_bytes, attempts, wait)
        name = path.name + _ending(part)
        part.replace(folder / name)
    except (httpx.HTTPError, httpx.InvalidURL, ImageError, ValueError, OSError) as error:
        part.unlink(missing_ok=True)
        part.with_name(part.name + ".version").unlink(missing_ok=True)
        return item, url, "", "failed", f"{type(error).__name__}: {error}"
    return item, url, name, "made", ""


def _ending(part: Path) -> str:
    open_rgb(part)  # whole and decodable, and not too large
    with Image.open(part) as image:
        kind = image.format or "unknown"
    if kind not in _ENDINGS:
        raise ImageError(part.name, f"the format {kind} is not used for photographs", "convert it to JPEG or PNG")
    return _ENDINGS[kind]
