"""Whether Triton took this process over after it started; one that it gave up ends.

Triton's python backend (2.51) listens for a heartbeat while ``initialize`` runs. If none comes for a second (this process is
forked on a busy machine, or the machine was suspended), it takes the process for dead and waits for its end before it answers
the load. A process that is well never ends, so the load would hang until its timeout (measured: once in some 25 starts at six
times as many runnable threads as cores). Modelium ends such a process where it sees it (``modelium/controller/handover.py``);
this is for a Triton in another container, or without Modelium.

What enters: how to see that Triton serves the model. What leaves: nothing, or the end of this process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

_LOOK_S = 0.5
WITHIN_S = 20.0  # Triton needs milliseconds


def end_unless_taken(is_taken: Callable[[], bool], end: Callable[[], object], *, within_s: float = WITHIN_S) -> None:
    """Call ``end`` from a thread when ``is_taken()`` was not True in time. Call this last in ``initialize``."""

    def watch() -> None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):  # a server that stops answers nothing
                if is_taken():
                    return
            time.sleep(_LOOK_S)
        end()

    threading.Thread(target=watch, name="vllm-handover", daemon=True).start()
