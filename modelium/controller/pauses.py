"""For how long the event loop held everybody up: how late a timer came enters, the longest of the last minute leaves.

Everything that Modelium answers runs on one loop, so whatever holds it (a plan over thousands of models, a large answer put
into JSON) holds everybody. A timer that is due every 50 ms tells by how much.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

_EVERY_S = 0.05
_KEPT_S = 60.0


class Pauses:
    """``watch()`` until cancelled; ``longest_s()`` at any time, from any thread."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque()  # when, by how much; falling, so that the first is the longest

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            due = time.monotonic() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            now = time.monotonic()
            self.note(now, now - due)

    def note(self, now: float, late_s: float) -> None:
        """A timer came ``late_s`` after it was due."""
        while self._late and self._late[-1][1] <= late_s:
            self._late.pop()
        self._late.append((now, late_s))
        while self._late[0][0] <= now - _KEPT_S:
            self._late.popleft()

    def longest_s(self) -> float:
        """0 before the first."""
        late = list(self._late)
        return max(0.0, late[0][1]) if late else 0.0
