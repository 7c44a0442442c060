"""What happens to models, told to whoever listens: changes of state enter, news leaves, in order and numbered.

Nobody is waited for. A listener that falls behind by more than it may loses its place, and nobody else's news is late for that.
The last news is kept for those who come back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from modelium.values import LoadStage, State

_KEPT = 1024
_BEHIND = 256  # news that a listener may have unread


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """``state``: None where the model was removed. ``at``: in seconds of the wall clock."""

    number: int
    at: float
    model: str
    state: State | None
    reason: str
    stage: LoadStage | None


class Listener:
    """One who listens, to one model or to all (""). ``cut`` is called when it has fallen behind."""

    def __init__(self, model: str, cut: Callable[[], None]) -> None:
        self.model = model
        self._cut = cut
        self._unread: deque[News] = deque()
        self._came = asyncio.Event()
        self._ended = False

    @property
    def is_over(self) -> bool:
        """All was read, and there will be no more."""
        return self._ended and not self._unread

    def hear(self, news: News) -> None:
        """One more, if it is about what is listened to."""
        if self._ended or (self.model and self.model != news.model):
            return
        if len(self._unread) >= _BEHIND:
            self._unread.clear()
            self.end()
            self._cut()
            return
        self._unread.append(news)
        self._came.set()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._came.set()

    async def next(self, within_s: float) -> News | None:
        """The next news; None where there is none in that time, or no more."""
        if not self._unread and not self._ended:
            try:
                async with asyncio.timeout(within_s):
                    await self._came.wait()
            except TimeoutError:
                return None
        if not self._unread:
            return None
        news = self._unread.popleft()
        if not self._unread and not self._ended:
            self._came.clear()
        return news


class Newsroom:
    """``era``: of this process; numbers of another one mean nothing."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.era = f"{int(clock() * 1000):x}"
        self._number = 0
        self._kept: deque[News] = deque(maxlen=_KEPT)
        self._listeners: dict[Listener, None] = {}

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @property
    def last(self) -> int:
        """The number of the last news."""
        return self._number

    def tell(self, model: str, state: State | None, reason: str, stage: LoadStage | None = None) -> None:
        """It happened now."""
        self._number += 1
        news = News(number=self._number, at=self._clock(), model=model, state=state, reason=reason, stage=stage)
        self._kept.append(news)
        for listener in tuple(self._listeners):
            listener.hear(news)

    @contextmanager
    def listening(self, model: str, cut: Callable[[], None]) -> Iterator[Listener]:
        """From now on."""
        listener = Listener(model, cut)
        self._listeners[listener] = None
        try:
            yield listener
        finally:
            del self._listeners[listener]

    def since(self, number: int, model: str) -> list[News] | None:
        """What came after that number; None where some of it is forgotten, or it never was."""
        first = self._number - len(self._kept)
        if not first <= number <= self._number:
            return None
        return [news for news in self._kept if news.number > number and model in ("", news.model)]

    def close(self) -> None:
        """Whoever listens is told that there is no more."""
        for listener in self._listeners:
            listener.end()
