"""One guarded program: a ``Command`` enters, a running process tree leaves, then the program's exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import modelium
from modelium.guarded.guardian import RUN_MARK, Orders
from modelium.guarded.leftovers import end_leftovers

_log = logging.getLogger(__name__)

# What the guardian may take beyond the program's own time: it kills what is left, and sweeps.
_CLEAN_UP_S = 8.0
_BOOTSTRAP = "import sys; sys.path.append(sys.argv.pop(1)); from modelium.guarded.guardian import main; main()"


class NotStarted(Exception):
    """The guardian could not be started, or ended before the program began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. ``shm_prefix``: files of that name in /dev/shm are this run's and go with it ("": it has none).

    ``hidden``: for an argument as everybody may see it, what the program gets in its place. ``register``: a directory with a
    file for each process that can do without the program; they go on when that is killed, and it is started again.
    """

    arguments: list[str]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    shm_prefix: str = ""
    hidden: Mapping[str, str] = field(default_factory=dict, repr=False)
    register: Path | None = None


class GuardedProgram:
    """One program at a time; may be started again after it has ended.

    ``record``: the file that tells the next start what to clean up, should the guardian be killed too. ``grace_s``: how long
    the program may take to end by itself when it is told to.
    """

    def __init__(self, record: Path, *, grace_s: float) -> None:
        self._record = record
        self._grace_s = grace_s
        self._guardian: asyncio.subprocess.Process | None = None
        self._end: asyncio.Task[int | None] | None = None
        self.pid: int | None = None  # the program's own, while it runs
        self.stopping = False  # it was told to end

    @property
    def running(self) -> bool:
        """Has it been started, and not ended?"""
        return self._end is not None and not self._end.done()

    def end_leftovers(self) -> None:
        """End what an earlier run left. Blocking."""
        self._end_leftovers("an earlier run")

    def _end_leftovers(self, whose: str) -> None:
        end_leftovers(self._record, guardian_may_take_s=self._grace_s + _CLEAN_UP_S, whose=whose)

    async def start(self, command: Command) -> None:
        """Return when the program runs (what it does then is its own affair). Raises ``NotStarted``."""
        self.stopping = False
        orders = Orders(
            command=command.arguments,
            environment={**command.environment, RUN_MARK: uuid.uuid4().hex[:12]},
            directory=str(command.directory),
            log=str(command.log),
            record=str(self._record),
            shm_prefix=command.shm_prefix,
            grace_s=self._grace_s,
            owner=os.getpid(),
            hidden=dict(command.hidden),
            register="" if command.register is None else str(command.register),
        )
        try:
            guardian = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _BOOTSTRAP, str(Path(modelium.__file__).parent.parent)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=None,
                env={"LC_ALL": "C.UTF-8"},
                # Ctrl-C in a terminal goes to the whole group: the program must outlive it, to be drained.
                start_new_session=True,
            )
        except OSError as error:
            raise NotStarted(f"its guardian cannot be started: {error}") from error
        assert guardian.stdin is not None and guardian.stdout is not None
        self._guardian = guardian
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._end = asyncio.create_task(self._follow(guardian, started.set_result), name=f"guarded {self._record.stem}")
        with contextlib.suppress(ConnectionError):
            guardian.stdin.write(json.dumps(asdict(orders)).encode() + b"\n")
            await guardian.stdin.drain()
        waits: set[asyncio.Future[Any]] = {started, self._end}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            raise NotStarted("its guardian ended at once")
        self.pid = started.result()

    async def wait(self) -> int | None:
        """Wait until the program and everything below it is gone: its exit code (negative for a signal), None when the guardian
        itself was killed."""
        assert self._end is not None, "it was not started"
        return await asyncio.shield(self._end)

    async def wait_beside(self, work: asyncio.Future[Any]) -> bool:
        """Wait for ``work`` or for the program's end, whichever comes first; True when it was the program's."""
        assert self._end is not None, "it was not started"
        waits: set[asyncio.Future[Any]] = {work, self._end}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return self._end.done()

    async def stop(self) -> None:
        """End the program and everything below it, even if all of it hangs."""
        self.stopping = True
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self._guardian.stdin.close()  # the leash: its end is the order
        if self._end is not None:
            try:
                async with asyncio.timeout(self._grace_s + _CLEAN_UP_S):
                    await asyncio.shield(self._end)
            except TimeoutError:
                if self._guardian is not None:
                    self._guardian.kill()
                await asyncio.shield(self._end)

    async def _follow(self, guardian: asyncio.subprocess.Process, on_started: Callable[[int], None]) -> int | None:
        """Read the guardian's words to the end; clean up in its place if it was killed."""
        assert guardian.stdout is not None
        code: int | None = None
        finished = False
        async for line in guardian.stdout:
            match json.loads(line):
                case {"event": "started", "pid": int(pid), "shown": bool(shown)}:
                    if shown:
                        _log.warning(
                            "whoever may list this machine's processes sees the secret of process %d (%s): this system forbids "
                            "ptrace, with which it is hidden",
                            pid,
                            self._record.stem,
                        )
                    on_started(pid)
                case {"event": "started again", "pid": int(pid)}:
                    _log.warning("%s was killed: it starts again", self._record.stem)
                    self.pid = pid
                case {"event": "ended", "code": int() | None as code}:
                    finished = True
        await guardian.wait()
        self.pid = None
        if not finished:
            await asyncio.to_thread(self._end_leftovers, f"the guardian of {self._record.stem}, which was killed,")
        return code
