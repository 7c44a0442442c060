"""vLLM's engine in this process: a thread with its event loop, and the processes under it.

What enters: ``model.json``. What leaves: a running ``AsyncLLM``, word of its death, and an end within its time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any

from . import processes

_LOOK_S = 0.5


class Engine:
    """``start``, then ``watch``; ``stop`` ends both."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-engine", daemon=True)
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None
        self.llm: Any = None
        self.tasks: tuple[str, ...] = ()

    def start(self, arguments: Mapping[str, Any], record: Callable[[Any, Any], None] | None) -> None:
        """Returns when the engine answers. Raises what vLLM raises."""
        self._thread.start()
        self.run(self._start(arguments, record)).result()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """On the engine's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """On the engine's event loop, soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def watch(self, report: Callable[[str], None]) -> None:
        """Call ``report`` once, from a thread, when one of the engine's processes ends or the engine gives up by itself."""
        self._watcher = threading.Thread(target=self._watch, args=(report,), name="vllm-watch", daemon=True)
        self._watcher.start()

    def stop(self, *, within_s: float) -> None:
        """End every process of the engine. vLLM's own way takes 5 s and frees nothing that the end of a process does not.

        Only an engine that hands its KV cache to somebody else has something to finish: it is asked first.
        """
        self._over.set()
        if self.llm is not None:
            from . import compat

            compat.silence()  # what follows looks like an accident to vLLM
            if not compat.has_transfers(self.llm):
                processes.end_group(self._group)
            # Its sockets have to be closed too, or the interpreter's end waits for them. Any wait of vLLM's is bounded here.
            closing = threading.Thread(target=compat.shut_down, args=(self.llm, within_s), name="vllm-shutdown", daemon=True)
            closing.start()
            closing.join(timeout=within_s)
        processes.end_group(self._group)
        processes.remove_sockets()

    async def _start(self, arguments: Mapping[str, Any], record: Callable[[Any, Any], None] | None) -> None:
        from . import warm

        warm.up()  # imports vLLM: seconds, unless this process was forked from one that has; only now is the environment ready
        from . import compat

        self.llm = compat.start_engine(compat.engine_args(arguments), record)
        await self.llm.reset_mm_cache()  # the pictures that it was warmed up with
        self.tasks = tuple(await self.llm.get_supported_tasks())
        if "generate" in self.tasks:
            await compat.rehearse(self.llm)

    def _watch(self, report: Callable[[str], None]) -> None:
        watched = {}
        for pid, name in self._own().items():
            try:
                watched[os.pidfd_open(pid)] = f"{name} (process {pid}) ended"
            except ProcessLookupError:
                watched[-1] = f"{name} (process {pid}) ended"
        poll = select.poll()
        for descriptor in watched.keys() - {-1}:
            poll.register(descriptor, select.POLLIN)
        while not self._over.is_set():
            ended = [-1] if -1 in watched else [descriptor for descriptor, _ in poll.poll(_LOOK_S * 1000)]
            if self._over.is_set():
                break
            if ended:
                report(watched[ended[0]])
                break
            if self.llm.errored:
                report("it reports an error of its own")
                break
        for descriptor in watched.keys() - {-1}:
            os.close(descriptor)

    def _own(self) -> dict[int, str]:
        """The processes without which the engine is dead; multiprocessing's resource tracker is none of them."""
        children = {child.pid for child in multiprocessing.active_children()}
        found = processes.members(self._group)
        return {pid: name for pid, name in found.items() if name.startswith("VLLM::") or pid in children}
