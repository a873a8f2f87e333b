"""One file over HTTP: bounded in size, tried again with back-off, and never half there under its own name."""

from pathlib import Path

import httpx
import stamina

from trialign.progress import tqdm

#: Answers worth another try; any other 4xx stays what it is.
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

#: Seconds without a byte after which a connection counts as dead.
TIMEOUT = httpx.Timeout(30.0)


class TooLargeError(ValueError):
    """Raised when a file has more bytes than allowed."""


def _is_transient(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, httpx.TransportError)


def fetch(
    client: httpx.Client,
    url: str,
    path: Path,
    max_bytes: int,
    attempts: int = 4,
    wait: float = 0.5,
    progress: bool = False,
) -> Path:
    """Download an address to ``<path>.part``.

    The caller checks what came and renames it, so that a file under its own name is always whole. A ``.part`` that is
    there is continued if the server knows ranges and still has the same version of the file (its ETag, kept in
    ``.part.version`` meanwhile); otherwise it is written anew.

    Parameters
    ----------
    client
        Makes the connection; one client serves many threads.
    url
        An http or https address; redirects are followed if the client does.
    path
        Where the file shall be in the end.
    max_bytes
        A longer file is refused.
    attempts
        Tries in all; after dead connections and the answers 408, 425, 429, 500, 502, 503, 504.
    wait
        Seconds before the second try; doubled each time, with jitter.
    progress
        Show a progress bar over the bytes.

    Returns
    -------
    Path
        The ``.part`` file.

    Raises
    ------
    httpx.HTTPError
        If the last try fails, or the answer is an error that will not go away.
    ValueError
        If the address is not http(s) or the file too large.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no http address; fix: correct the address")
    part = path.with_name(path.name + ".part")
    tries = stamina.retry_context(
        on=_is_transient, attempts=attempts, timeout=None, wait_initial=wait, wait_max=60 * wait, wait_jitter=wait
    )
    for attempt in tries:
        with attempt:
            _stream(client, url, part, max_bytes, progress)
    return part


def _stream(client: httpx.Client, url: str, part: Path, max_bytes: int, progress: bool) -> None:
    version = part.with_name(part.name + ".version")
    received = part.stat().st_size if part.exists() and version.exists() else 0
    headers = {"range": f"bytes={received}-", "if-range": version.read_text(encoding="utf-8")} if received else {}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            version.unlink(missing_ok=True)  # the part can't be continued: the next call starts afresh
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            received = 0
            _remember_version(response, version)
        announced = received + int(response.headers.get("content-length", 0))
        _bound(url, announced, max_bytes)
        with (
            part.open("ab" if received else "wb") as file,
            tqdm(total=announced or None, initial=received, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            # Raw bytes: a .gz file that the server labels "content-encoding: gzip" must not be unpacked on the way.
            for chunk in response.iter_raw():
                received += len(chunk)
                _bound(url, received, max_bytes)
                file.write(chunk)
                bar.update(len(chunk))
    version.unlink(missing_ok=True)


def _remember_version(response: httpx.Response, version: Path) -> None:
    """Note which version of the file a part belongs to; without a strong mark a part is never continued."""
    mark = response.headers.get("etag", "")
    if mark and not mark.startswith("W/"):
        version.write_text(mark, encoding="utf-8")
    else:
        version.unlink(missing_ok=True)


def _bound(url: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLargeError(
            f"{url}: more than {max_bytes} bytes; fix: raise max_bytes if the file is meant to be that large"
        )
