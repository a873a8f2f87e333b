"""Captioners and miners behind any server that speaks the OpenAI chat protocol: vLLM, Ollama, llama.cpp, the clouds.

Requests run side by side in threads. Busy and broken answers (429, 5xx, time-outs) are asked again with growing,
jittered waits; what a request can't mend (a wrong key, an unknown model) stops the run; what concerns one item (a
refused image) fails that item. The key comes from OPENAI_API_KEY and is written nowhere, not even in an error.
"""

import base64
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import stamina

from trialign.describe.backends import JSON, gather, retry_temperature
from trialign.describe.prompts import CAPTION_PROMPT, INTEREST_PROMPT, interest_prompt
from trialign.describe.transport import BoundedTransport
from trialign.describe.views import ItemError, ItemView, load_image


class ServerCaptioner:
    """Captions by a vision-language model behind a server (CMSA).

    Parameters
    ----------
    model
        The model's name on the server.
    base_url
        The server's address, usually ending in ``/v1``. Not part of the cache's key: a server that moves costs
        nothing.
    concurrency
        Requests in flight.
    max_tokens
        Most tokens of a caption.
    temperature
        Of sampling; None leaves it to the server, for models that refuse the parameter.
    max_side
        Larger images are scaled down to so many pixels on the longer side before they are sent.
    timeout
        Seconds until an unanswered request counts as failed; the whole answer must have come by then.
    attempts
        How often a request is sent before its item counts as failed.
    wait
        Seconds until a request is sent again; they double from time to time, to thirty at most, with jitter.
    extra
        More fields of the request, such as ``{"seed": 1}``.
    prompt
        What is asked.

    Raises
    ------
    ValueError
        If the address is none, or contains a password.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        concurrency: int = 8,
        max_tokens: int = 120,
        temperature: float | None = 0.0,
        max_side: int = 1024,
        timeout: float = 120.0,
        attempts: int = 6,
        wait: float = 0.5,
        extra: Mapping[str, JSON] | None = None,
        prompt: str = CAPTION_PROMPT,
    ):
        self._chat = _Chat(model, base_url, concurrency, timeout, attempts, wait)
        self.model = model
        self.prompt = prompt
        self.batch_size = concurrency
        self.settings: dict[str, JSON] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "max_side": max_side,
            "extra": dict(extra or {}),
        }

    def caption(self, views: Sequence[ItemView]) -> list[str]:
        """Return the model's answer for each item's image; ItemError if the server refuses one."""
        return gather(self.stream(views), len(views))

    def stream(self, views: Sequence[ItemView], attempt: int = 0) -> Iterator[tuple[int, str | ItemError]]:
        """Yield answers as they arrive."""
        return self._chat.stream(views, self._content, _fields(self.settings, self.settings["temperature"]))

    def _content(self, view: ItemView) -> list[dict[str, JSON]]:
        image = {"url": data_url(view, self.settings["max_side"])}
        return [{"type": "image_url", "image_url": image}, {"type": "text", "text": self.prompt}]


class ServerMiner:
    """Interests by a chat model behind a server (MDIM).

    Parameters
    ----------
    model, base_url, concurrency, timeout, attempts, wait, extra
        As in ServerCaptioner.
    max_tokens
        Most tokens of an answer, reasoning included.
    temperature
        Of the first attempt; an item whose answer was not valid is asked again, warmer. None leaves it to the server.
    prompt
        What is asked, with ``{item}`` where the item's JSON goes.

    Raises
    ------
    ValueError
        If the address is none, or contains a password.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        concurrency: int = 8,
        max_tokens: int = 700,
        temperature: float | None = 0.0,
        timeout: float = 120.0,
        attempts: int = 6,
        wait: float = 0.5,
        extra: Mapping[str, JSON] | None = None,
        prompt: str = INTEREST_PROMPT,
    ):
        self._chat = _Chat(model, base_url, concurrency, timeout, attempts, wait)
        self.model = model
        self.prompt = prompt
        self.batch_size = concurrency
        self.settings: dict[str, JSON] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "extra": dict(extra or {}),
        }

    def mine(self, views: Sequence[ItemView], attempt: int) -> list[str]:
        """Return the model's answer for each item; ItemError if the server refuses one."""
        return gather(self.stream(views, attempt), len(views))

    def stream(self, views: Sequence[ItemView], attempt: int = 0) -> Iterator[tuple[int, str | ItemError]]:
        """Yield answers as they arrive."""
        first = self.settings["temperature"]
        temperature = None if first is None else max(first, retry_temperature(attempt))
        return self._chat.stream(views, self._content, _fields(self.settings, temperature))

    def _content(self, view: ItemView) -> str:
        return interest_prompt(view, self.prompt)


def data_url(view: ItemView, max_side: int) -> str:
    """Return an item's image as a ``data:`` address.

    JPEG, PNG and WebP files within `max_side` are sent byte for byte; others are scaled down and sent as JPEG.

    Raises
    ------
    ItemError
        If the image can't be read.
    """
    image = load_image(view)
    content = view.image.read_bytes() if view.image is not None else b""
    media_type = _media_type(content)
    if media_type is None or max(image.size) > max_side:
        image.thumbnail((max_side, max_side))
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=92)
        content, media_type = buffer.getvalue(), "image/jpeg"
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _media_type(content: bytes) -> str | None:
    """Return the media type that the file's first bytes state: an extension may lie."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return None


def _fields(settings: Mapping[str, JSON], temperature: float | None) -> dict[str, JSON]:
    """Return the fields of a request beside model and messages; those of `extra` win."""
    warmth = {} if temperature is None else {"temperature": temperature}
    return {"max_tokens": settings["max_tokens"], **warmth, **settings["extra"]}


class _Chat:
    """One model of one server, asked by several threads."""

    def __init__(self, model: str, base_url: str, concurrency: int, timeout: float, attempts: int, wait: float) -> None:
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"{base_url!r} is no address of a server; write it like http://localhost:8000/v1")
        if address.password is not None or address.username is not None:
            raise ValueError("the server's address contains a user or password; put the key in OPENAI_API_KEY")
        if concurrency < 1 or attempts < 1:
            raise ValueError(f"concurrency and attempts are at least 1, here {concurrency} and {attempts}")
        self.model, self.concurrency, self.attempts, self.wait = model, concurrency, attempts, wait
        self._key = os.environ.get("OPENAI_API_KEY") or "not-needed"  # local servers take any key
        # Retries are ours: the client's own would multiply with them.
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=self._key,
            max_retries=0,
            # Its newer releases name another package's client; they take whatever behaves like one.
            http_client=httpx.Client(  # type: ignore[arg-type]
                transport=BoundedTransport(timeout), timeout=timeout, follow_redirects=True
            ),
        )

    def stream(
        self, views: Sequence[ItemView], content_of: Callable[[ItemView], Any], fields: Mapping[str, JSON]
    ) -> Iterator[tuple[int, str | ItemError]]:
        """Yield (position, answer) as they arrive; an error that stops the run waits for the answers in flight."""

        def ask(position: int) -> str:
            return self._ask(content_of(views[position]), fields)

        positions = iter(range(len(views)))
        stopping: BaseException | None = None
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="trialign-chat")
        try:
            # Only so many are prepared at once: a catalogue's images, encoded, would not fit in memory.
            running: dict[Future[str], int] = {pool.submit(ask, p): p for p in islice(positions, self.concurrency)}
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    position, error = running.pop(future), future.exception()
                    if error is not None and not isinstance(error, ItemError):
                        stopping = stopping or error
                        continue
                    if stopping is None:
                        running |= {pool.submit(ask, following): following for following in islice(positions, 1)}
                    yield position, future.result() if error is None else error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if stopping is not None:
            raise stopping

    def _ask(self, content: Any, fields: Mapping[str, JSON]) -> str:
        """Return the answer to one message; ItemError if only this item fails, other errors if all would."""
        try:
            for attempt in stamina.retry_context(
                on=_wait_asked_for,
                attempts=self.attempts,
                timeout=None,
                wait_initial=self.wait,
                wait_max=30.0,
                wait_jitter=2 * self.wait,
            ):
                with attempt:
                    return self._ask_once(content, fields)
        except _BusyError as busy:
            if busy.unreachable:
                raise ConnectionError(f"{busy}; is the server running? What is done is kept") from None
            raise ItemError(f"{busy}, {self.attempts} times") from None
        raise AssertionError("the retry loop ends by return or raise")

    def _ask_once(self, content: Any, fields: Mapping[str, JSON]) -> str:
        request = {"model": self.model, "messages": [{"role": "user", "content": content}], **fields}
        try:
            completion = self._client.chat.completions.create(**request)
        except openai.OpenAIError as error:
            raise self._classified(error) from None  # the original may quote the request's headers
        except ValueError as error:
            raise _BusyError(f"the server's answer is no JSON: {self._public(error)}") from None
        choices = getattr(completion, "choices", None)
        text = choices[0].message.content if choices else None
        if not text:
            raise ItemError("the server's answer has no text")
        return text

    def _classified(self, error: openai.OpenAIError) -> Exception:
        """Return what an error of the client means for the run."""
        reason = self._public(error)
        if isinstance(error, openai.APITimeoutError):
            return _BusyError("the server did not answer in time")
        if isinstance(error, openai.APIConnectionError):
            # One that can't be reached at all fails every item; one that breaks off may only dislike this one.
            if isinstance(error.__cause__, httpx.ConnectError):
                return _BusyError(f"no connection to the server: {reason}", unreachable=True)
            return _BusyError(f"the server's answer broke off: {reason} ({self._public(error.__cause__ or error)})")
        if not isinstance(error, openai.APIStatusError):
            return _BusyError(f"the server's answer can't be read: {reason}")
        if error.status_code in (401, 402, 403, 404) or error.code == "insufficient_quota":
            return ValueError(
                f"the server refuses model {self.model}: {reason}; check OPENAI_API_KEY, model and address"
            )
        if error.status_code in (408, 409, 425, 429) or error.status_code >= 500:
            return _BusyError(reason, wait=_retry_after(error.response.headers.get("retry-after")))
        return ItemError(f"the server refuses this item: {reason}")

    def _public(self, error: BaseException) -> str:
        """Return an error's text, short and without the key, should a server quote it."""
        return " ".join(str(error).replace(self._key, "***").split())[:300]


class _BusyError(Exception):
    """The request may succeed later; `wait` is how many seconds the server asked for."""

    def __init__(self, reason: str, wait: float | None = None, unreachable: bool = False):
        super().__init__(reason)
        self.wait = wait
        self.unreachable = unreachable


def _wait_asked_for(error: Exception) -> bool | float:
    """Tell stamina whether to try again, and when, if the server said so."""
    if not isinstance(error, _BusyError):
        return False
    return True if error.wait is None else error.wait


def _retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, at most a minute; None without one, or for a date."""
    if header is None or not header.strip().isdigit():
        return None
    return min(float(header), 60.0)
