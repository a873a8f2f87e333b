"""Campaigns of injected faults; each ``rows(times, seed)`` yields lines of the table in docs/reliability.md."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What came of one kind of fault.

    Attributes
    ----------
    fault
        What was done to what.
    injected
        How many times.
    survived
        How many of them ended well, or with the error that a user can act on where nothing better is possible.
    lost
        Finished work that was gone afterwards, or silently wrong.
    repeated
        Finished work that was done a second time, such as a model call for an item that had its answer.
    worst_seconds
        Longest wall time of one injection and the recovery from it.
    note
        What a reader should know: the error shown, the size of the catalogue.
    """

    fault: str
    injected: int
    survived: int
    lost: int
    repeated: int
    worst_seconds: float
    note: str = ""

    @property
    def whole(self) -> bool:
        """Whether there was a fault, all survived it, and nothing was lost or repeated."""
        return self.injected > 0 and (self.survived, self.lost, self.repeated) == (self.injected, 0, 0)
