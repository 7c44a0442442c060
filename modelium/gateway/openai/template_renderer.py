"""Chat templates rendered in processes beside the controller: a template and its variables enter, its text leaves.

However a template loops or grows, it is ended after some seconds, and meanwhile the controller's own loop keeps turning.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

import orjson

from modelium.errors import ModeliumError
from modelium.gateway.openai.errors import Refused
from modelium.values import JsonValue

RENDER_SECONDS = 5.0
_START_SECONDS = 60.0
_PROCESSES = 2
_PROGRAM = Path(__file__).with_name("template_process.py")
_MAX_ANSWER_BYTES = 128 * 2**20  # 16 MiB of text, each character of which JSON may write as six
# Secrets in the controller's environment are none of a template's business.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "LANG", "LC_ALL", "LC_CTYPE", "LC_TIME", "TZ")


class RendererFailed(ModeliumError):
    """The process that renders chat templates does not start."""


@dataclass(slots=True)
class Renderer:
    """Starts its processes when they are first needed; ``close`` ends them.

    A template is rendered once at a time, so that a hostile one cannot keep all processes from the others.
    """

    seconds: float = RENDER_SECONDS
    _idle: list[Process] = field(default_factory=list)
    _busy: set[Process] = field(default_factory=set)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PROCESSES))
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def render(self, template: str, variables: Mapping[str, JsonValue]) -> str:
        """Raises ``Refused`` with the template's own words, or when it is no template, or takes too much."""
        try:
            # The process ends itself a little later than it is ended: that is for when the controller is gone.
            request = orjson.dumps({"template": template, "variables": variables, "seconds": self.seconds + 1})
        except TypeError as error:
            raise Refused(f"messages: the chat template cannot be given them: {error}", param="messages") from None
        lock = self._locks.setdefault(template, asyncio.Lock())
        async with lock, self._turns:
            answer = await self._ask(request)
        match answer:
            case {"text": str(text)}:
                return text
            case {"error": "broken", "words": words}:
                raise Refused(f"this model's chat template is broken: {words}")
            case {"error": "refuses", "words": words}:
                raise Refused(f"messages: this model's chat template refuses them: {words}", param="messages")
            case {"error": "stopped", "words": words}:
                raise _stopped(words)
            case _:
                words = answer["words"]
                raise Refused(f"messages: this model's chat template cannot render them: {words}", param="messages")

    async def close(self) -> None:
        for process in self._busy:  # whoever waits for it takes leave of it
            with suppress(ProcessLookupError):
                process.kill()
        while self._idle:
            await _end(self._idle.pop())

    async def _ask(self, request: bytes) -> dict[str, str]:
        process = await self._take()
        done = False
        try:
            async with asyncio.timeout(self.seconds):
                answer: dict[str, str] = orjson.loads(await _exchange(process, request))
            done = "spent" not in answer
        except TimeoutError:
            raise _stopped("it did not end in time") from None
        except (EOFError, ConnectionError, ValueError):
            raise _stopped("its process ended, most likely for lack of memory") from None
        finally:  # after a cancellation as well: an answer that nobody waits for must not become the next one's
            self._busy.discard(process)
            if done:
                self._idle.append(process)
            else:
                await _end(process)
        return answer

    async def _take(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None and process.stdout is not None and not process.stdout.at_eof():
                self._busy.add(process)
                return process
            await _end(process)
        process = await _start()
        self._busy.add(process)
        return process


async def _start() -> Process:
    environment = {name: value for name in _PASSED_ON if (value := os.environ.get(name)) is not None}
    # -P: a folder in front of the import path would put Modelium's module names before those of the standard library.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-X", "utf8", str(_PROGRAM), stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, limit=2**20
    )  # fmt: skip
    started = False
    try:
        async with asyncio.timeout(_START_SECONDS):
            await _receive(process)
        started = True
    except (TimeoutError, EOFError):
        raise RendererFailed(
            "the process that renders chat templates does not start; is Modelium's installation whole?"
        ) from None
    finally:
        if not started:
            await _end(process)
    return process


async def _exchange(process: Process, request: bytes) -> bytes:
    assert process.stdin is not None
    process.stdin.write(len(request).to_bytes(4) + request)
    await process.stdin.drain()
    return await _receive(process)


async def _receive(process: Process) -> bytes:
    assert process.stdout is not None
    size = int.from_bytes(await process.stdout.readexactly(4))
    if size > _MAX_ANSWER_BYTES:
        raise ValueError("a longer answer than any")
    return await process.stdout.readexactly(size)


async def _end(process: Process) -> None:
    """Nothing of the process remains, neither a zombie nor a pipe."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(ProcessLookupError):
        process.kill()
    process.stdin.close()
    await process.wait()
    with suppress(ConnectionError):
        while await process.stdout.read(2**20):
            pass


def _stopped(words: str) -> Refused:
    return Refused(f"messages: this model's chat template was stopped: {words}", param="messages")
