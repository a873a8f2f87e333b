"""What is left out, added or spoilt: the variants of TriAlignGR (arXiv 2605.05249), by the question they answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from trialign.embed.ablation import representation_name
from trialign.tasks import TASKS

#: What two variants have in common: the tokens they are trained on, or the expected examples of each task they share.
Budget = Literal["compute", "examples"]

_NAMES = tuple(TASKS)
_VISUAL = {number for number, task in enumerate(TASKS.values(), start=1) if task.group == "visual"}


@dataclass(frozen=True)
class Variant:
    """One way to train: which tasks, which inputs of the semantic IDs, how good the captions are, how long.

    Attributes
    ----------
    tasks
        Numbers of the tasks in the paper's table, ascending; task 1, the one that is evaluated, is always trained.
    captions, interests, image
        What the embedding behind the semantic IDs has besides the catalogue's own text.
    shuffled
        Share of the captions that belong to other items, in the embedding and in tasks 7 and 8 alike, from 0 to 1.
    budget
        ``"compute"``: as many steps of as many tokens as the full model, so fewer tasks have more examples each.
        ``"examples"``: as many examples of each task as the full model expects, so fewer tasks have fewer steps.

    Raises
    ------
    ValueError
        If the tasks are not ascending numbers from 1 on, the share is none, or captions are needed and left out.
    """

    tasks: tuple[int, ...] = tuple(range(1, len(TASKS) + 1))
    captions: bool = True
    interests: bool = True
    image: bool = True
    shuffled: float = 0.0
    budget: Budget = "compute"

    def __post_init__(self) -> None:
        known = sorted(set(self.tasks) & set(range(1, len(TASKS) + 1)))
        if list(self.tasks) != known or known[:1] != [1]:
            raise ValueError(f"tasks must be ascending numbers from 1 to {len(TASKS)}, 1 among them; got {self.tasks}")
        if not 0 <= self.shuffled <= 1:
            raise ValueError(f"shuffled is a share from 0 to 1, got {self.shuffled}")
        if not self.captions and (self.shuffled or _VISUAL & set(self.tasks)):
            raise ValueError("without captions there is nothing to shuffle and no visual task: leave out tasks 7 and 8")
        if self.budget not in ("compute", "examples"):
            raise ValueError(f"budget must be 'compute' or 'examples', got {self.budget!r}")

    @property
    def task_names(self) -> list[str]:
        """Names of the tasks, as `trialign.tasks.TASKS` has them."""
        return [_NAMES[number - 1] for number in self.tasks]

    @property
    def inputs(self) -> str:
        """What is embedded, as `trialign.embed.ablation.representation_name` says it."""
        return representation_name(self.captions, self.interests, self.image)

    @property
    def slug(self) -> str:
        """A name for files; different variants have different ones.

        Examples
        --------
        >>> Variant((1, 5), interests=False, shuffled=0.25).slug
        'tasks-15_text+captions+image_shuffled-25'
        """
        parts = [f"tasks-{''.join(map(str, self.tasks))}", self.inputs.replace(" ", "")]
        parts += [f"shuffled-{100 * self.shuffled:g}"] if self.shuffled else []
        parts += [] if self.budget == "compute" else [f"equal-{self.budget}"]
        return "_".join(parts)


#: Everything the paper has.
FULL = Variant()


def without(group: str) -> Variant:
    """Return the full model without a group of tasks; of the recommendation group, task 1 stays.

    Examples
    --------
    >>> without("recommendation").tasks
    (1, 5, 6, 7, 8)
    """
    tasks = enumerate(TASKS.values(), start=1)
    return Variant(tuple(number for number, task in tasks if number == 1 or task.group != group))


def _first(tasks: int, budget: Budget) -> Variant:
    every = FULL.tasks
    return FULL if tasks == len(every) else Variant(every[:tasks], budget=budget)


def _one_by_one(budget: Budget) -> dict[str, Variant]:
    return {"1" if last == 1 else f"1-{last}": _first(last, budget) for last in FULL.tasks}


_TEXT_TASKS = tuple(number for number in FULL.tasks if number not in _VISUAL)

#: Question → label → variant, in the order of tables and figures. Equal variants are one and are trained once.
QUESTIONS: Mapping[str, Mapping[str, Variant]] = {
    "tasks": _one_by_one("compute"),
    "tasks, equal examples": _one_by_one("examples"),
    "components": {
        "full": FULL,
        "minus CMSA": Variant(_TEXT_TASKS, captions=False, image=False),
        "minus MDIM": Variant(interests=False),
        "minus recommendation tasks 2-4": without("recommendation"),
        "minus alignment tasks 5-6": without("text alignment"),
        "minus visual tasks 7-8": without("visual"),
    },
    "sids": {
        "original SID, tasks 1-6": Variant(_TEXT_TASKS, captions=False, interests=False, image=False),
        "new SID, tasks 1-6": Variant(_TEXT_TASKS),
        "new SID, all 8 tasks": FULL,
    },
    "noise": {f"{100 * share:g} %": Variant(shuffled=share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)},
}


def distinct(questions: Iterable[str] = tuple(QUESTIONS)) -> list[Variant]:
    """Return the variants that these questions need, each once, the full model first.

    Raises
    ------
    ValueError
        If there is no such question.
    """
    chosen = list(questions)
    unknown = [name for name in chosen if name not in QUESTIONS]
    if unknown:
        raise ValueError(f"no question {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    return list(dict.fromkeys([FULL, *(variant for name in chosen for variant in QUESTIONS[name].values())]))
