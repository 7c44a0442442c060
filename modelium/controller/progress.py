"""How far loads are: their stages enter as they begin, an estimate leaves.

The estimate is the time since Triton was asked, against what the model's last load took. It is no measurement: weights are
mapped into memory, so how much of them was read is not cheaply known.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from modelium.values import LoadingStatus, LoadStage

_MOST = 0.99  # of what is not over yet


class Progress:
    """``told`` is called when a load enters another stage."""

    def __init__(self, told: Callable[[str, LoadStage], None], clock: Callable[[], float] = monotonic) -> None:
        self._told = told
        self._clock = clock
        self._began: dict[str, float] = {}
        self._stages: dict[str, tuple[LoadStage, float]] = {}

    def enters(self, key: str, stage: LoadStage) -> None:
        """The load of that model is at this stage now."""
        now = self._clock()
        if stage is LoadStage.PREPARING:
            self._began[key] = now
        self._began.setdefault(key, now)
        self._stages[key] = stage, now
        self._told(key, stage)

    def ends(self, key: str) -> None:
        """However it ended."""
        self._began.pop(key, None)
        self._stages.pop(key, None)

    def keys(self) -> tuple[str, ...]:
        """Which models' loads are under way."""
        return tuple(self._stages)

    def of(self, key: str, usual_s: float) -> LoadingStatus | None:
        """``usual_s``: what its last load took, from the moment when Triton was asked; 0: there was none."""
        if (at := self._stages.get(key)) is None:
            return None
        stage, since = at
        now = self._clock()
        share = remaining_s = None
        if usual_s > 0:
            gone_s = now - since if stage is LoadStage.LOADING else 0.0
            share = min(_MOST, gone_s / usual_s)
            remaining_s = max(0.0, usual_s - gone_s)
        return LoadingStatus(stage=stage, seconds=now - self._began[key], progress=share, remaining_s=remaining_s)
