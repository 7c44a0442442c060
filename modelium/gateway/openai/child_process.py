"""Processes beside the controller, for what comes with a model from somewhere: a program enters, a process of it leaves for
each who asks, and none of them outlives whoever asked, unless it is fit to be asked again.

A program says ``ready``, then answers messages; a message is its length (4 bytes) and so many bytes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from modelium.errors import ModeliumError

_START_SECONDS = 60.0
_AT_ONCE = 2
_MAX_ANSWER_BYTES = 128 * 2**20  # 16 MiB of text, each character of which JSON may write as six
# Secrets in the controller's environment are none of a model's business.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "LANG", "LC_ALL", "LC_CTYPE", "LC_TIME", "TZ")


class ChildFailed(ModeliumError):
    """A process beside the controller does not start."""


@dataclass(slots=True, eq=False)
class Child:
    """One process. Who asked says with ``keep`` that it may be asked again, else it is ended."""

    process: Process
    keep: bool = False

    async def send(self, message: bytes) -> None:
        """Raises ``ConnectionError`` where it ended."""
        assert self.process.stdin is not None
        self.process.stdin.write(len(message).to_bytes(4) + message)
        await self.process.stdin.drain()

    async def receive(self) -> bytes:
        """Raises ``EOFError`` where it ended, ``ValueError`` for what is too long."""
        assert self.process.stdout is not None
        size = int.from_bytes(await self.process.stdout.readexactly(4))
        if size > _MAX_ANSWER_BYTES:
            raise ValueError("a longer answer than any")
        return await self.process.stdout.readexactly(size)

    @property
    def is_there(self) -> bool:
        """Does it still run, and can it answer?"""
        return self.process.returncode is None and self.process.stdout is not None and not self.process.stdout.at_eof()

    async def end(self) -> None:
        """Nothing of the process remains, neither a zombie nor a pipe."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.stdin.close()
        await self.process.wait()
        with suppress(ConnectionError):
            while await self.process.stdout.read(2**20):
                pass


@dataclass(slots=True)
class Children:
    """Starts processes of ``program`` when they are first needed; ``close`` ends them.

    What has the same name is asked once at a time, so that one hostile model cannot keep all processes from the others.
    """

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _idle: list[Child] = field(default_factory=list)
    _busy: set[Child] = field(default_factory=set)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    @asynccontextmanager
    async def one(self, name: str) -> AsyncIterator[Child]:
        """Raises ``ChildFailed``."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock, self._turns:
            child = await self._take()
            try:
                yield child
            finally:  # after a cancellation as well: an answer that nobody waits for must not become the next one's
                self._busy.discard(child)
                keep, child.keep = child.keep, False
                if keep:
                    self._idle.append(child)
                else:
                    await child.end()

    async def close(self) -> None:
        """End all of them, those at work too."""
        for child in self._busy:  # whoever waits for it takes leave of it
            with suppress(ProcessLookupError):
                child.process.kill()
        while self._idle:
            await self._idle.pop().end()

    async def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.is_there:
                self._busy.add(child)
                return child
            await child.end()
        child = await self._start()
        self._busy.add(child)
        return child

    async def _start(self) -> Child:
        inherited = {name: value for name in _PASSED_ON if (value := os.environ.get(name)) is not None}
        # -P: a folder in front of the import path would put Modelium's module names before those of the standard library.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-X", "utf8", str(self.program),
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={**inherited, **self.environment}, limit=2**20,
        )  # fmt: skip
        child = Child(process)
        started = False
        try:
            async with asyncio.timeout(_START_SECONDS):
                await child.receive()
            started = True
        except (TimeoutError, EOFError):
            raise ChildFailed(f"{self.program.stem} does not start; is Modelium's installation whole?") from None
        finally:
            if not started:
                await child.end()
        return child
