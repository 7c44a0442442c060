"""The workers and who has which: a candidate enters, its analysis leaves, whatever becomes of the process that looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import pickle
import signal
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path

from modelium.analysis.line import Line
from modelium.analysis.notebook import Notebook, mark_of
from modelium.analysis.process import Ended, Worker
from modelium.analysis.wire import SPENT, BadAnswer, decode_both
from modelium.values import Analysis, Candidate, Incomplete, ModelOverride, Unsupported

log = logging.getLogger(__name__)

WALL_S = 10.0
FIRST_S = 1.0  # where others wait, a folder that takes longer goes behind them: nearly all take milliseconds
_MOST_WAITS = 6  # so often WALL_S, while it is the machine that keeps the worker waiting
_AT_ONCE = 2
_MOST_REMEMBERED = 64  # folders; of each a quarter of a mebibyte at most
_MOST_AT_A_TIME = 16
_MOST_READ_AT_A_TIME = 2**20  # bytes: heavy folders are handed over alone, so that others get their turns between them
_LARGE_BYTES = 256 * 1024  # such an answer is parsed beside the loop
_HINT = "no model needs so much: copy it again from its source, or take it out"


class _Over(Exception):
    """A limit was gone beyond; the words for the user."""


class _Slow(Exception):
    """It takes longer than others are to wait for it."""


class _Killed(Exception):
    """The worker ended, and not by what it did."""


@dataclass(slots=True, kw_only=True)
class _Look:
    """One folder to look at, and who waits for what is found. ``rank`` is its class in the line, those known to be slow come
    last; ``came`` is its number.
    """

    candidate: Candidate
    override: ModelOverride
    mark: str
    found: asyncio.Future[Analysis]
    rank: tuple[bool, bool]
    came: int
    was_cut_short: bool = False
    is_slow: bool = False


class Analysts:
    """At most ``at_once`` workers, each started when it is first needed. For one event loop; ``close`` ends them."""

    def __init__(
        self, notebook: Notebook | None = None, *, wall_s: float = WALL_S, first_s: float = FIRST_S, at_once: int = _AT_ONCE
    ) -> None:
        self._notebook = notebook or Notebook()
        self._wall_s = wall_s
        self._first_s = first_s
        self._at_once = at_once
        self._waiting = Line[_Look]()
        self._came = itertools.count()
        self._tending: set[asyncio.Task[None]] = set()
        self._alive: set[Worker] = set()
        self._idle: list[Worker] = []
        self._remembered: dict[Path, str] = {}  # the longest untouched first
        self._closing = False
        self.answered = 0  # folders that were looked at

    async def analyze(self, candidate: Candidate, override: ModelOverride, *, soon: bool = False) -> Analysis:
        """What ``candidate`` is; never raises. ``soon``: before what others wait for. Last is what Modelium ended over."""
        mark = mark_of(candidate)
        if (why := self._notebook.why_not(mark)) is not None:
            return _unsupported(candidate, why)
        found: asyncio.Future[Analysis] = asyncio.get_running_loop().create_future()
        rank, came = (self._notebook.is_suspect(mark), not soon), next(self._came)
        self._queue(_Look(candidate=candidate, override=override, mark=mark, found=found, rank=rank, came=came))
        return await found

    def warm(self) -> None:
        """Start a worker before it is needed: the first folder need not wait for it."""
        self._spawn(self._tend_after_a_start())

    async def close(self) -> None:
        """End the worker processes, whatever they are looking at."""
        self._closing = True
        for task in (tending := list(self._tending)):
            task.cancel()
        await asyncio.gather(*tending, return_exceptions=True)
        for worker in list(self._alive):
            await self._end(worker)

    def _queue(self, *looks: _Look) -> None:
        for look in looks:
            weight = look.candidate.reading_bytes
            self._waiting.push(look, (look.is_slow, *look.rank), came=look.came, reading_bytes=weight)
        if len(self._tending) < self._at_once:
            self._spawn(self._tend())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work, name="look at folders")
        self._tending.add(task)
        task.add_done_callback(self._tending.discard)

    async def _tend_after_a_start(self) -> None:
        with contextlib.suppress(_Killed, OSError, TimeoutError):
            self._idle.append(await self._worker())
        await self._tend()

    async def _tend(self) -> None:
        """Have what waits looked at, some at a time: to hand over each alone would take longer than to look at it."""
        while self._waiting:
            some = min(_MOST_AT_A_TIME, -(-len(self._waiting) // self._at_once))
            batch, read = deque([self._waiting.pop()]), 0
            while len(batch) < some and (read := read + batch[-1].candidate.reading_bytes) < _MOST_READ_AT_A_TIME:
                batch.append(self._waiting.pop())
            while batch:
                await self._look(batch)

    async def _look(self, batch: deque[_Look]) -> None:
        """Let one worker look at ``batch`` in turn, until that is empty or the child that looks is of no use any more."""
        worker = None
        try:
            worker = await self._worker()
            await worker.ask(
                pickle.dumps([(each.candidate, each.override, self._remembered.get(each.candidate.path, "")) for each in batch])
            )
            while batch:
                self._notebook.begin(batch[0].mark)
                answer = await self._answer_in_time(worker, hurry=not batch[0].is_slow and self._others_wait(batch))
                if answer == SPENT:
                    raise _Over("to look at it took more than 512 MiB of memory")
                large = len(answer) > _LARGE_BYTES
                found, remembered = await asyncio.to_thread(decode_both, answer) if large else decode_both(answer)
                self._remember(batch[0].candidate.path, remembered)
                self._finish(batch.popleft(), found)
        except _Slow:
            self._notebook.leave(batch[0].mark)
            batch[0].is_slow = True
            self._queue(*batch)
            batch.clear()
        except asyncio.CancelledError:
            if batch:
                self._notebook.leave(batch[0].mark)
            raise
        except _Over as limit:
            look = batch.popleft()
            log.warning("%s: %s; it is not looked at again until it changes", look.candidate.path, limit)
            self._finish(look, _unsupported(look.candidate, str(limit)), over=str(limit))
        except (_Killed, OSError, BadAnswer, TimeoutError) as error:
            if isinstance(error, _Killed) and not batch[0].was_cut_short:  # by whom ever; perhaps by what came before
                batch[0].was_cut_short = True
                return
            look = batch.popleft()
            why = f"it could not be looked at ({str(error) or type(error).__name__}); it is tried again"
            self._finish(look, Incomplete(name=look.candidate.name, path=look.candidate.path, why=why))
        finally:
            if worker is not None:
                await self._give_back(worker)

    def _remember(self, folder: Path, text: str) -> None:
        """For the next look at this folder alone: what one folder makes a worker say never reaches another's."""
        self._remembered.pop(folder, None)
        if text:
            self._remembered[folder] = text
            if len(self._remembered) > _MOST_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]

    def _others_wait(self, batch: deque[_Look]) -> bool:
        return len(batch) > 1 or ((best := self._waiting.best()) is not None and not best[0])

    def _finish(self, look: _Look, found: Analysis, over: str | None = None) -> None:
        self.answered += 1
        self._notebook.end(look.mark, over)
        if not look.found.done():  # else nobody waits any more
            look.found.set_result(found)

    async def _worker(self) -> Worker:
        """Raises ``OSError``, ``TimeoutError``, ``_Killed``."""
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                return worker
            await self._end(worker)
        try:
            worker = await Worker.start()
        except Ended as ended:
            raise _Killed(f"no process to look at it could be started ({ended})") from None
        self._alive.add(worker)
        return worker

    async def _give_back(self, worker: Worker) -> None:
        """For the next; ended where it does not leave what it does now, or where nobody is to look any more."""
        if not self._closing and worker.is_alive and await worker.break_off(self._first_s):
            self._idle.append(worker)
        else:
            await self._end(worker)

    async def _end(self, worker: Worker) -> None:
        await worker.end()
        self._alive.discard(worker)

    async def _answer_in_time(self, worker: Worker, *, hurry: bool) -> bytes:
        answering = asyncio.ensure_future(worker.answer())
        try:
            if hurry and not (await asyncio.wait({answering}, timeout=self._first_s))[0]:
                raise _Slow
            for _ in range(_MOST_WAITS):
                done, _ = await asyncio.wait({answering}, timeout=self._wall_s)
                if done:
                    return answering.result()
                if not worker.is_kept_waiting():
                    break
            raise _Over(f"to look at it took more than {self._wall_s:g} s")
        except Ended as ended:
            if ended.code == -signal.SIGXCPU:
                raise _Over("to look at it took more than 10 s of a processor") from None
            if ended.code in (0, -signal.SIGKILL, -signal.SIGTERM):  # 0: it retired
                raise _Killed("the process that looked at it was ended") from None
            raise _Over(f"the process that looked at it broke ({ended})") from None
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


def _unsupported(candidate: Candidate, why: str) -> Unsupported:
    return Unsupported(name=candidate.name, path=candidate.path, why=why, hint=_HINT)


def analyze_apart(candidate: Candidate, override: ModelOverride) -> Analysis:
    """One analysis within the same limits, for a verb; not from inside an event loop."""

    async def look() -> Analysis:
        analysts = Analysts()
        try:
            return await analysts.analyze(candidate, override)
        finally:
            await analysts.close()

    return asyncio.run(look())
