"""One worker from outside: a list of requests enters, its answers leave one by one, or how the child that looked ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from modelium.analysis.wire import ANSWER, CHILD, ENDED, MAX_ANSWER_BYTES, BadAnswer

_START_S = 60.0
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


class Ended(Exception):
    """The child that looked ended, or the worker with it, before everything was answered; ``code`` as ``Popen.returncode``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Worker:
    """A process with everything imported, which looks at each list of folders in a child of its own (``worker``).

    So what a folder costs or breaks ends with that child, and the next list has a fresh one within milliseconds.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._child: int | None = None
        self._looks = False

    @classmethod
    async def start(cls) -> Worker:
        """A worker that is ready. Raises ``OSError``, ``TimeoutError``, ``Ended``."""
        worker = cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the directory that Modelium was started in may be a model's
                "-m",
                "modelium.analysis.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            )
        )
        try:
            async with asyncio.timeout(_START_S):
                await worker._receive()
        except BaseException:
            await worker.end()
            raise
        return worker

    @property
    def pid(self) -> int:
        """Of the worker itself, not of the children that it forks."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Has nobody seen it end yet?"""
        return self._process.returncode is None

    async def ask(self, requests: bytes) -> None:
        """Have a pickled list of requests looked at; each is answered by one ``answer()``. Raises ``OSError``, ``Ended``."""
        await self._be_through()
        assert self._process.stdin is not None
        self._process.stdin.write(len(requests).to_bytes(4) + requests)
        self._looks = True

    async def answer(self) -> bytes:
        """The next. Raises ``Ended`` when there will be none any more, ``BadAnswer`` for what is no message."""
        while True:
            kind, payload = await self._receive()
            if kind == ANSWER:
                return payload
            if kind == ENDED:
                self._looks, self._child = False, None
                raise Ended(int(payload))
            if kind == CHILD:
                self._child = int(payload)

    def is_kept_waiting(self) -> bool:
        """For a processor or for the disk: a busy machine is not the folder's fault; the kernel counts what it had."""
        with contextlib.suppress(OSError, IndexError):
            state = Path(f"/proc/{self._child or self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state in "RD"
        return False

    async def break_off(self, within_s: float) -> bool:
        """End the look under way. False when the worker did not, and is to be ended."""
        try:
            async with asyncio.timeout(within_s):
                self._process.send_signal(signal.SIGUSR1)
                await self._be_through()
        except (TimeoutError, ProcessLookupError, ConnectionError, Ended):
            return False
        return True

    async def end(self) -> None:
        """Kill it, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
        self._process._transport.close()  # type: ignore[attr-defined]  # what it sent and nobody read keeps its pipe open

    async def _be_through(self) -> None:
        """Pass over what was not asked for any more. Raises ``Ended`` when the worker itself ended."""
        while self._looks:
            try:
                await self.answer()
            except Ended:
                if self._looks:
                    raise

    async def _receive(self) -> tuple[bytes, bytes]:
        """Raises ``Ended`` of the worker itself."""
        assert self._process.stdout is not None
        try:
            head = await self._process.stdout.readexactly(5)
            if (size := int.from_bytes(head[1:])) > MAX_ANSWER_BYTES:
                raise BadAnswer("a message that is too long")
            return head[:1], await self._process.stdout.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Ended(await self._process.wait()) from None
