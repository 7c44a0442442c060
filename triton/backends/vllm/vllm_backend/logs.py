"""What the engine's processes print: line by line into Triton's log with the model's name in front, and the last error kept.

vLLM says "Engine core initialization failed. See root cause above." to whoever started it; the cause is only printed, by
another process. What enters is everything that arrives on stdout and stderr of this process and those that it starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading

# "(EngineCore pid=12) [name] ERROR 11-22 20:30:00 [core.py:12] ValueError: too little memory", or without all that in front
_ERROR = re.compile(r"(?:^|[\]\s])(?P<error>(?:[\w.]*\.)?\w*(?:Error|Exception|Interrupt)): (?P<text>.+)$")
_ELSEWHERE = re.compile(r"root cause|background process")
_KEPT = 50


def says_elsewhere(message: str) -> bool:
    """vLLM's way of saying that the cause was printed by another process; there is no class of error for it."""
    return _ELSEWHERE.search(message) is not None


class Log:
    """From ``capture`` to ``release``."""

    def __init__(self, model: str) -> None:
        self._prefix = f"[{model}] ".encode()
        self._errors: list[str] = []
        self._server = os.dup(2)
        self._stdout = os.dup(1)
        self._thread: threading.Thread | None = None

    def capture(self) -> None:
        out, into = os.pipe()
        os.dup2(into, 1)
        os.dup2(into, 2)
        os.close(into)
        self._thread = threading.Thread(target=self._copy, args=(out,), name="vllm-log", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """This process prints as before; the engine's last lines are waited for as long as it takes to copy them."""
        os.dup2(self._stdout, 1)
        os.dup2(self._server, 2)
        if self._thread is not None:
            self._thread.join(timeout=0.5)

    def say(self, words: str) -> None:
        """One line of this process's own."""
        with contextlib.suppress(OSError):
            os.write(self._server, self._prefix + words.encode() + b"\n")

    def cause(self) -> str | None:
        """The last error that was printed and was not only a reference to another one."""
        return self._errors[-1] if self._errors else None

    def _copy(self, out: int) -> None:
        with os.fdopen(out, "rb") as lines:
            for line in lines:
                text = line.decode("utf-8", "replace").rstrip()
                found = _ERROR.search(text)
                if found and not says_elsewhere(text):
                    self._errors = [*self._errors[-_KEPT:], f"{found['error'].rpartition('.')[2]}: {found['text']}"]
                with contextlib.suppress(OSError):
                    os.write(self._server, line if self._prefix in line else self._prefix + line)
