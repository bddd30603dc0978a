"""Alternating rounds, and the medians over them.

The machine is never quiet for a whole run, so competitors take turns (A, B, C, A, B, C, …) and
are compared with the turn next to theirs: a slow minute then slows everybody.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Figures = dict[str, float]
"""What one turn of one participant measured."""

Turn = tuple[str, Callable[[], Figures]]
"""A participant's name and how to measure it once."""

OFF = "off"
STOCK = "stock MLflow"
PSUTIL = "psutil direct"
BARE = "bare loop"
NATIVE = "ours native"
PSUTIL_BACKEND = "ours psutil backend"


class ParticipantFailedError(Exception):
    """A participant can't be measured here; the text says why in one line."""


@dataclass
class Samples:
    """Every turn of a measure, in the order in which it was taken."""

    turns: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, participant: str, figure: str) -> float | None:
        """Median of one figure over a participant's turns; None if it had no turn."""
        values = [turn[figure] for turn in self.turns.get(participant, [])]
        return statistics.median(values) if values else None

    def paired(
        self, first: str, second: str, combine: Callable[[Figures, Figures], float]
    ) -> float | None:
        """Median of `combine` over the neighbouring turns of two participants."""
        pairs = zip(self.turns.get(first, []), self.turns.get(second, []), strict=False)
        values = [combine(one, other) for one, other in pairs]
        return statistics.median(values) if values else None

    def ratio(self, numerator: str, denominator: str, figure: str) -> float | None:
        """Median quotient of one figure over the neighbouring turns of two participants."""
        return self.paired(numerator, denominator, lambda one, other: one[figure] / other[figure])

    def medians(self, figure: str, participants: Sequence[str]) -> dict[str, float]:
        """The medians of those participants that had a turn."""
        found = {name: self.median(name, figure) for name in participants}
        return {name: value for name, value in found.items() if value is not None}


def alternate(rounds: int, turns: Sequence[Turn], announce: Callable[[str], None]) -> Samples:
    """Takes all turns one after another, `rounds` times; who fails once is left out from then on.

    A participant may have several turns in a round.
    """
    samples = Samples()
    for number in range(1, rounds + 1):
        for participant, measure in turns:
            if participant in samples.failures:
                continue
            announce(f"round {number} of {rounds}: {participant}")
            try:
                figures = measure()
            except ParticipantFailedError as error:
                samples.failures[participant] = str(error)
                continue
            samples.turns.setdefault(participant, []).append(figures)
    return samples


def back_and_forth(*turns: Turn) -> list[Turn]:
    """A B B A: neighbours are A and B each time, and a drift of the machine favours neither."""
    return [*turns, *reversed(turns)]


def named(turns: Mapping[str, Callable[[], Figures]]) -> list[Turn]:
    """The usual case: one turn for each participant in a round."""
    return list(turns.items())
