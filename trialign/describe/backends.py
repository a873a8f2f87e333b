"""What a captioner and a miner are, and the factories that make one by name.

A backend answers for a batch (`caption`, `mine`). One whose answers arrive one at a time, such as a server asked by
many threads, also has `stream`: the run then keeps each answer the moment it is there.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from trialign.describe.views import ItemError, ItemView

#: A value of a backend's settings: whatever JSON can hold.
JSON = Any

CAPTIONERS = ("embedded", "recorded:<descriptions.jsonl or data set>", "hub:<name or folder>", "server:<model>@<url>")
MINERS = ("embedded", "retrieval", "smollm2", *CAPTIONERS[1:])


class Describer(Protocol):
    """What captioners and miners have in common.

    Attributes
    ----------
    model
        Who writes the descriptions, as every table and cache entry says it.
    settings
        Everything beside prompt and item that an answer depends on; part of the cache's key.
    prompt
        The prompt, or what stands for one; part of the cache's key.
    batch_size
        Most items in one call.
    """

    @property
    def model(self) -> str: ...  # noqa: D102

    @property
    def settings(self) -> Mapping[str, JSON]: ...  # noqa: D102

    @property
    def prompt(self) -> str: ...  # noqa: D102

    @property
    def batch_size(self) -> int: ...  # noqa: D102


class Captioner(Describer, Protocol):
    """Describes the images of items (CMSA, pathway 1)."""

    def caption(self, views: Sequence[ItemView]) -> list[str]:
        """Return one raw answer an item; ItemError if an item can't be described."""
        ...


class Miner(Describer, Protocol):
    """Names the deep interests of items (MDIM)."""

    def mine(self, views: Sequence[ItemView], attempt: int) -> list[str]:
        """Return one raw answer an item: reasoning, then ``{"interests": [...]}`` on the last line.

        `attempt` counts from 0; a sampling model gets warmer with it, so that a bad answer is not repeated.
        """
        ...


@runtime_checkable
class Streaming(Protocol):
    """A captioner or miner whose answers arrive one at a time, in any order."""

    def stream(self, views: Sequence[ItemView], attempt: int = 0) -> Iterator[tuple[int, str | ItemError]]:
        """Yield (position in `views`, raw answer or the reason why there is none), each position once."""
        ...


def gather(answers: Iterator[tuple[int, str | ItemError]], count: int) -> list[str]:
    """Return streamed answers in the order of the items: how a streaming backend offers the batch form.

    Raises
    ------
    ItemError
        The first error among the answers.
    """
    ordered = [""] * count
    for position, answer in answers:
        if isinstance(answer, ItemError):
            raise answer
        ordered[position] = answer
    return ordered


def retry_temperature(attempt: int) -> float:
    """Return the sampling temperature of an attempt: 0 (greedy) at first, then 0.4, 0.8 and at most 1."""
    return min(0.4 * attempt, 1.0)


def captioner(name: str, **options: Any) -> Captioner:
    """Make a captioner by name.

    Parameters
    ----------
    name
        ``embedded`` (small, ships with the package, no vision-language model), ``recorded:`` a file of descriptions or
        the name of a data set that has one, ``hub:`` a transformers image-text-to-text model by name or folder, or
        ``server:<model>@<base url>`` for any server that speaks the OpenAI chat protocol.
    **options
        Keyword options of the backend's class.

    Returns
    -------
    Captioner
        The backend.

    Raises
    ------
    ValueError
        If there is no backend of that name; the message lists the choices.

    Examples
    --------
    >>> captioner("emboded")
    Traceback (most recent call last):
        ...
    ValueError: no captioner is called 'emboded'; the choices are embedded, ...
    """
    kind, _, target = name.partition(":")
    makers: dict[str, Callable[..., Captioner]] = {
        "recorded": _recorded_captioner,
        "hub": _hub_captioner,
        "server": _server_captioner,
    }
    if name == "embedded":
        from trialign.describe.embedded import EmbeddedCaptioner

        return EmbeddedCaptioner(**options)
    if kind in makers and target:
        return makers[kind](target, **options)
    raise ValueError(f"no captioner is called {name!r}; the choices are {', '.join(CAPTIONERS)}")


def miner(name: str, **options: Any) -> Miner:
    """Make an interest miner by name.

    Parameters
    ----------
    name
        ``embedded`` (the default of the embedded profile, which is ``retrieval``), ``retrieval`` (nearest interests of
        a written list), ``smollm2`` (a 135 M parameter language model), or ``recorded:``, ``hub:`` and ``server:`` as
        for `captioner`; ``hub:`` is a transformers chat model here.
    **options
        Keyword options of the backend's class.

    Returns
    -------
    Miner
        The backend.

    Raises
    ------
    ValueError
        If there is no backend of that name; the message lists the choices.
    """
    kind, _, target = name.partition(":")
    makers: dict[str, Callable[..., Miner]] = {
        "recorded": _recorded_miner,
        "hub": _hub_miner,
        "server": _server_miner,
    }
    if name in ("embedded", "retrieval"):
        from trialign.describe.retrieval import RetrievalMiner

        return RetrievalMiner(**options)
    if name == "smollm2":
        from trialign.describe.smollm2 import SmolLM2Miner

        return SmolLM2Miner(**options)
    if kind in makers and target:
        return makers[kind](target, **options)
    raise ValueError(f"no miner is called {name!r}; the choices are {', '.join(MINERS)}")


# The imports stay inside: a run with recorded descriptions needs neither transformers nor a server's client.


def _recorded_captioner(source: str, **options: Any) -> Captioner:
    from trialign.describe.recorded import RecordedCaptioner

    return RecordedCaptioner(source, **options)


def _recorded_miner(source: str, **options: Any) -> Miner:
    from trialign.describe.recorded import RecordedMiner

    return RecordedMiner(source, **options)


def _hub_captioner(name_or_folder: str, **options: Any) -> Captioner:
    from trialign.describe.hub import HubCaptioner

    return HubCaptioner(name_or_folder, **options)


def _hub_miner(name_or_folder: str, **options: Any) -> Miner:
    from trialign.describe.hub import HubMiner

    return HubMiner(name_or_folder, **options)


def _server_captioner(target: str, **options: Any) -> Captioner:
    from trialign.describe.server import ServerCaptioner

    return ServerCaptioner(*_model_and_url(target), **options)


def _server_miner(target: str, **options: Any) -> Miner:
    from trialign.describe.server import ServerMiner

    return ServerMiner(*_model_and_url(target), **options)


def _model_and_url(target: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?P<model>.+?)@(?P<url>https?://.+)", target)
    if match is None:
        raise ValueError(
            f"'server:{target}' names no model and address; write it like server:qwen2.5vl:7b@http://localhost:11434/v1"
        )
    return match["model"], match["url"]
