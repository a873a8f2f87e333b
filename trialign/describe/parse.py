"""Reading the answers of captioners and miners: what is kept, and what counts as no answer."""

import json
import re
from dataclasses import dataclass
from typing import Any

FEWEST, MOST = 2, 4
MOST_WORDS = 5
MOST_CHARACTERS = 60

#: What models write when they fill in the form and not the content.
_PLACEHOLDERS = re.compile(
    r"(interest|tag|phrase|item|string)s?([ _-]?\d+)?|(first|second|third|fourth)( interest| tag| phrase)?"
    r"|title|description|caption|text|none|null|n/a|unknown|example|json|true|false|array|object"
)
_MARKUP = re.compile(r"[{}\[\]<>\\\"`|]|[\x00-\x1f\x7f]")
_THINK_TAGS = re.compile(r"</?think(ing)?>")
_FENCE_OPEN = re.compile(r"```(json)?\s*$")


class InterestAnswerError(ValueError):
    """A miner's answer is not 2 to 4 valid interests; the message says what is wrong with it."""


@dataclass(frozen=True)
class Interests:
    """A miner's answer, read.

    Attributes
    ----------
    interests
        2 to 4 distinct lower-case phrases, the strongest first.
    reasoning
        What the model wrote before them; "" if nothing.
    """

    interests: list[str]
    reasoning: str


def parse_interests(answer: str, title: str = "") -> Interests:
    r"""Read a miner's answer: reasoning, then one JSON object with the key ``interests``.

    The last JSON object of the answer counts. Tags are lower-cased, white space is collapsed, repetitions are
    dropped.

    Parameters
    ----------
    answer
        The raw text of the model.
    title
        The item's title, which is no interest.

    Returns
    -------
    Interests
        The tags and the reasoning before them.

    Raises
    ------
    InterestAnswerError
        If there is no JSON object, it has no list of strings under ``interests``, or the tags are not 2 to 4 phrases
        of 1 to 5 words that name an interest.

    Examples
    --------
    >>> parse_interests('Calm and plain.\n{"interests": ["Slow mornings", "quiet design"]}')
    Interests(interests=['slow mornings', 'quiet design'], reasoning='Calm and plain.')
    """
    found, start = _last_object(answer)
    tags = found.get("interests")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InterestAnswerError(f'the JSON has no list of strings under "interests", it is {_shown(found)}')
    distinct = list(dict.fromkeys(_normalized(tag) for tag in tags))
    if not FEWEST <= len(distinct) <= MOST:
        raise InterestAnswerError(f"{len(distinct)} distinct interests, wanted {FEWEST} to {MOST}: {_shown(distinct)}")
    for tag in distinct:
        _check(tag, title)
    return Interests(distinct, _reasoning(answer[:start]))


def parse_caption(answer: str) -> str:
    r"""Return the caption in a captioner's answer: white space collapsed, enclosing quotes removed.

    Raises
    ------
    ValueError
        If nothing is left.

    Examples
    --------
    >>> parse_caption(' "A red mug\non a table." ')
    'A red mug on a table.'
    """
    caption = " ".join(answer.split())
    if len(caption) > 1 and caption[0] == caption[-1] == '"' and '"' not in caption[1:-1]:
        caption = caption[1:-1].strip()
    if not any(character.isalnum() for character in caption):
        raise ValueError(f"the answer has no words: {_shown(answer)}")
    return caption


def _last_object(answer: str) -> tuple[dict[str, Any], int]:
    """Return the last JSON object that is not part of another one, and where it starts."""
    decoder = json.JSONDecoder()
    last: tuple[dict[str, Any], int] | None = None
    start = answer.find("{")
    while start >= 0:
        end = start + 1
        try:
            value, end = decoder.raw_decode(answer, start)
            last = value, start
        except json.JSONDecodeError:
            pass  # not JSON from here on: look at the next brace
        except RecursionError as error:
            raise InterestAnswerError("the JSON is nested too deeply") from error
        start = answer.find("{", end)
    if last is None:
        raise InterestAnswerError(f"no JSON object in the answer, which ends {_shown(answer[-80:])}")
    return last


def _normalized(tag: str) -> str:
    return " ".join(tag.lower().split()).rstrip(".,;")


def _check(tag: str, title: str) -> None:
    """Raise InterestAnswerError unless the (normalized) tag can name an interest."""
    words = tag.split()
    if not any(character.isalpha() for character in tag):
        problem = "has no letters"
    elif _PLACEHOLDERS.fullmatch(tag):
        problem = "is a placeholder"
    elif _MARKUP.search(tag):
        problem = "contains markup"
    elif len(words) > MOST_WORDS or len(tag) > MOST_CHARACTERS:
        problem = f"is longer than {MOST_WORDS} words or {MOST_CHARACTERS} characters"
    elif tag == _normalized(title):
        problem = "is the item's title"
    else:
        return
    raise InterestAnswerError(f"interest {_shown(tag)} {problem}")


def _reasoning(text: str) -> str:
    """Return the text before the JSON without thinking tags and without the mark that opens a code block."""
    return _FENCE_OPEN.sub("", _THINK_TAGS.sub("", text).strip()).strip()


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:119] + "…"
