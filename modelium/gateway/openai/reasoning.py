"""Reasoning: generated text enters, what stands between ``<think>`` and ``</think>`` leaves apart from the answer."""

from __future__ import annotations

START, END = "<think>", "</think>"


def reasons(template: str | None) -> bool:
    """Is this a model that thinks aloud before it answers?"""
    return template is not None and (START in template or END in template)


class Thoughts:
    """One generation's text. ``inside``: the prompt ended with ``<think>``, so the text begins in the middle of a thought."""

    __slots__ = ("_buffer", "_latest", "_phase")

    def __init__(self, *, inside: bool) -> None:
        self._buffer = ""
        self._phase = "think" if inside else "start"
        self._latest = (0, 0)  # characters that were fed, and of thoughts among them

    def feed(self, text: str) -> tuple[str, str]:
        """(thought, answer) that came to light."""
        thinking = self._phase == "think"
        self._buffer += text
        said = self._take(final=False)
        inside = len(text) if thinking and self._phase == "think" else min(len(said[0]), len(text))
        self._latest = (len(text), inside)
        return said

    def tokens_of(self, count: int) -> int:
        """How many of the ``count`` tokens that were fed last were thoughts: by the letter where only some were."""
        fed, inside = self._latest
        return count * inside // fed if fed else 0

    def finish(self) -> tuple[str, str]:
        """The thought and the text that were held back until the end."""
        return self._take(final=True)

    def _take(self, *, final: bool) -> tuple[str, str]:
        thought = ""
        if self._phase == "start":
            stripped = self._buffer.lstrip()
            if stripped.startswith(START):
                self._buffer, self._phase = stripped[len(START) :], "think"
            elif START.startswith(stripped) and not final:
                return "", ""
            else:
                self._phase = "answer"
        if self._phase == "think":
            at = self._buffer.find(END)
            if at < 0:
                cut = len(self._buffer) if final else len(self._buffer) - _partial(self._buffer)
                thought, self._buffer = self._buffer[:cut], self._buffer[cut:]
                return thought, ""
            thought, self._buffer = self._buffer[:at], self._buffer[at + len(END) :]
            self._phase = "gap"
        if self._phase == "gap":  # the empty line between thought and answer is neither's
            self._buffer = self._buffer.lstrip()
            if self._buffer:
                self._phase = "answer"
        answer, self._buffer = self._buffer, ""
        return thought, answer


def _partial(text: str) -> int:
    """How much of the end may be the beginning of ``</think>``."""
    return next((size for size in range(min(len(END) - 1, len(text)), 0, -1) if END.startswith(text[-size:])), 0)
