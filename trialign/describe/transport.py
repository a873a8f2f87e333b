"""Connections that end: an answer that drips for ever or has no end is given up."""

import time
from collections.abc import Iterator
from typing import cast

import httpx

#: Largest answer that is read: a chat's answer has kilobytes.
MOST_BYTES = 4_000_000


class BoundedTransport(httpx.HTTPTransport):
    """A transport whose answers must be whole within a time, and of a sensible size.

    A time-out of httpx is between two bytes; a server that sends one now and then would hold a request for ever.

    Parameters
    ----------
    seconds
        From the request to the last byte of the answer.
    most_bytes
        Of an answer.
    """

    def __init__(self, seconds: float, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._seconds, self._most_bytes = seconds, most_bytes

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; httpx.ReadTimeout or httpx.ReadError while its answer is read, where it goes too far."""
        end = time.monotonic() + self._seconds
        response = super().handle_request(request)
        response.stream = _Bounded(cast(httpx.SyncByteStream, response.stream), end, self._most_bytes)
        return response


class _Bounded(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, end: float, most_bytes: int) -> None:
        self._stream, self._end, self._most_bytes = stream, end, most_bytes

    def __iter__(self) -> Iterator[bytes]:
        read = 0
        for part in self._stream:
            read += len(part)
            if read > self._most_bytes:
                raise httpx.ReadError(f"the answer has more than {self._most_bytes / 1e6:g} MB")
            if time.monotonic() > self._end:
                raise httpx.ReadTimeout("the answer was not whole in time")
            yield part

    def close(self) -> None:
        self._stream.close()
