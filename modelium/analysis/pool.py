"""The workers and who has which: a candidate enters, its analysis leaves, whatever becomes of the process that looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import sys

from modelium.analysis.notebook import Notebook, mark_of
from modelium.analysis.wire import MAX_ANSWER_BYTES, SPENT, BadAnswer, decode
from modelium.values import Analysis, Candidate, Incomplete, ModelOverride, Unsupported

log = logging.getLogger(__name__)

WALL_S = 10.0
_START_S = 60.0
_AT_ONCE = 2
_LARGE_BYTES = 256 * 1024  # such an answer is parsed beside the loop
_HINT = "no model needs so much: copy it again from its source, or take it out"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class _Over(Exception):
    """A limit was gone beyond; the words for the user."""


class _Killed(Exception):
    """The worker ended, and not by what it did."""


class Analysts:
    """At most two workers, each started when it is first needed. For one event loop; ``close`` ends them."""

    def __init__(self, notebook: Notebook | None = None, *, wall_s: float = WALL_S) -> None:
        self._notebook = notebook or Notebook()
        self._wall_s = wall_s
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._idle: list[asyncio.subprocess.Process] = []

    def is_suspect(self, candidate: Candidate) -> bool:
        """To be looked at after all others: Modelium ended while it did."""
        return self._notebook.is_suspect(mark_of(candidate))

    async def analyze(self, candidate: Candidate, override: ModelOverride) -> Analysis:
        """What ``candidate`` is; never raises."""
        mark = mark_of(candidate)
        async with self._free:
            if (why := self._notebook.why_not(mark)) is not None:
                return _unsupported(candidate, why)
            self._notebook.begin(mark)
            over = None
            try:
                return await self._look(candidate, override)
            except _Over as limit:
                over = str(limit)
                log.warning("%s: %s; it is not looked at again until it changes", candidate.path, over)
                return _unsupported(candidate, over)
            except (_Killed, OSError, BadAnswer, TimeoutError) as error:
                why = f"it could not be looked at ({str(error) or type(error).__name__}); it is tried again"
                return Incomplete(name=candidate.name, path=candidate.path, why=why)
            finally:
                self._notebook.end(mark, over)

    async def close(self) -> None:
        while self._idle:
            await _end(self._idle.pop())

    async def _look(self, candidate: Candidate, override: ModelOverride) -> Analysis:
        worker = self._idle.pop() if self._idle else None
        if worker is None or worker.returncode is not None:
            worker = await _start()
        fit = False
        try:
            answer = await self._ask(worker, pickle.dumps((candidate, override)))
            fit = answer != SPENT
        finally:
            if fit:
                self._idle.append(worker)
            else:
                await _end(worker)
        if not fit:
            raise _Over("to look at it took more than 512 MiB of memory")
        return await asyncio.to_thread(decode, answer) if len(answer) > _LARGE_BYTES else decode(answer)

    async def _ask(self, worker: asyncio.subprocess.Process, request: bytes) -> bytes:
        assert worker.stdin is not None
        try:
            async with asyncio.timeout(self._wall_s):
                worker.stdin.write(len(request).to_bytes(4) + request)
                return await _receive(worker)
        except TimeoutError:
            raise _Over(f"to look at it took more than {self._wall_s:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await worker.wait()
            if code == -signal.SIGXCPU:
                raise _Over("to look at it took more than 10 s of a processor") from None
            if code in (-signal.SIGKILL, -signal.SIGTERM):
                raise _Killed("the process that looked at it was killed") from None
            raise _Over(f"the process that looked at it broke (exit code {code})") from None


async def _receive(worker: asyncio.subprocess.Process) -> bytes:
    assert worker.stdout is not None
    size = int.from_bytes(await worker.stdout.readexactly(4))
    if size > MAX_ANSWER_BYTES:
        raise _Over("what it says of itself is too long")
    return await worker.stdout.readexactly(size)


async def _start() -> asyncio.subprocess.Process:
    """A worker that is ready. Raises ``OSError``, ``TimeoutError``, ``_Killed``."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # the directory that Modelium was started in may be a model's
        "-m",
        "modelium.analysis.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    )
    try:
        async with asyncio.timeout(_START_S):
            await _receive(worker)
    except asyncio.IncompleteReadError:
        raise _Killed(f"no process to look at it could be started (exit code {await worker.wait()})") from None
    except BaseException:
        await _end(worker)
        raise
    return worker


async def _end(worker: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    if worker.stdin is not None:
        worker.stdin.close()
    await worker.wait()


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
