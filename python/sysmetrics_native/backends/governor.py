"""How often each source is read, so that all of them stay inside a budget of CPU time.

What csrc/governor.h is to the C core, for sources that are read by Python: when they would take
more than the budget, the most expensive ones are read less often, the cheap ones are left as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_PERIOD_SECONDS = 1.0
_READINGS_THAT_TELL = 4.0
"""So many readings tell what one costs; fewer move the estimate a little."""
_ROUNDING = 1e-9
"""So that five readings are not four because of what a division lost."""


class Load:
    """One source, as far as its pace is concerned.

    A source that was slowed down is read `per_window` times a window, the last time at its end, or
    at the end of every `every_windows`-th window.
    """

    def __init__(self, usual_ticks: int) -> None:
        self.usual_ticks = usual_ticks
        self.cost = 0.0  # seconds of CPU time of one reading, as measured lately; 0: not known yet
        self.per_window = 0  # 0: as usual
        self.every_windows = 1
        self._lately_calls = 0
        self._lately_cost = 0.0

    @property
    def is_slowed(self) -> bool:
        return self.per_window > 0

    def count(self, cost: float) -> None:
        """Note a reading."""
        self._lately_calls += 1
        self._lately_cost += cost

    def estimate(self) -> None:
        """Draw from the readings since the last time what one costs."""
        if self._lately_calls == 0:
            return
        mean = self._lately_cost / self._lately_calls
        weight = min(1.0, self._lately_calls / _READINGS_THAT_TELL) if self.cost > 0.0 else 1.0
        self.cost += (mean - self.cost) * weight
        self.forget()

    def forget(self) -> None:
        """Drop the readings since the last estimate."""
        self._lately_calls = 0
        self._lately_cost = 0.0

    def next_tick(self, tick: int, window_ticks: int) -> int:
        """The tick that it is next read at, if not for the end of a window."""
        if not self.is_slowed:
            return (tick // self.usual_ticks + 1) * self.usual_ticks
        if self.every_windows > 1:
            stretch = window_ticks * self.every_windows
            return (tick // stretch + 1) * stretch
        in_window = tick % window_ticks
        k = in_window * self.per_window // window_ticks + 1
        return tick - in_window - (-window_ticks * k // self.per_window)

    def interval_ticks(self, window_ticks: int) -> float:
        """How far apart its readings are."""
        if not self.is_slowed:
            return self.usual_ticks
        return window_ticks * self.every_windows / self.per_window


class Governor:
    """Gives every load its pace.

    Attributes:
        share: of one core that the sources took in the last second or more; `None`: not known.
    """

    def __init__(self, budget: float, interval: float, window_ticks: int) -> None:
        self.share: float | None = None
        self._budget = budget
        self._interval = interval
        self._window_ticks = window_ticks
        self._spent = 0.0
        self._decided = -math.inf
        self._spent_for_share = 0.0
        self._share_from = -math.inf

    def start(self, now: float) -> None:
        """The first reading was made: what that cost tells nothing."""
        self._decided = self._share_from = now
        self._spent = 0.0

    def spend(self, cost: float) -> None:
        """Note a reading of any source."""
        self._spent += cost

    def is_due(self, now: float) -> bool:
        """Once a second, and sooner when what was spent since is a second's budget."""
        return now - self._decided >= _PERIOD_SECONDS or self._spent >= self._budget

    def decide(self, loads: Iterable[Load], now: float) -> None:
        """Set the pace of all of them."""
        loads = list(loads)
        for load in loads:
            load.estimate()
        self._note_share(now)
        fair = self._fair_share([self._usual_share(load) for load in loads])
        for load in loads:
            load.per_window = 0
            load.every_windows = 1
            if self._usual_share(load) > fair:
                self._set_pace(load, fair)
        self._decided = now
        self._spent = 0.0

    def _note_share(self, now: float) -> None:
        self._spent_for_share += self._spent
        passed = now - self._share_from
        if passed >= _PERIOD_SECONDS:
            self.share = self._spent_for_share / passed
            self._spent_for_share = 0.0
            self._share_from = now

    def _usual_share(self, load: Load) -> float:
        """The share of a core that a load takes when it is read as usual."""
        window = self._window_ticks
        if load.usual_ticks >= window:
            readings = 1.0 / window
        else:
            readings = 1.0 / load.usual_ticks + (1.0 / window if window % load.usual_ticks else 0.0)
        return load.cost * readings / self._interval

    def _fair_share(self, shares: Sequence[float]) -> float:
        """The largest share that a load may have, such that all of them take the budget."""
        fair = 0.0
        for _ in range(len(shares) + 1):
            above = sum(share > fair for share in shares)
            if above == 0:
                return math.inf
            left = (self._budget - sum(share for share in shares if share <= fair)) / above
            if left <= fair:
                break
            fair = left
        return fair

    def _set_pace(self, load: Load, share: float) -> None:
        readings = share * self._interval / load.cost * self._window_ticks * (1.0 + _ROUNDING)
        load.per_window = max(1, int(readings))
        load.every_windows = 1 if readings >= 1.0 else math.ceil(min(1.0 / readings, 1e9))
