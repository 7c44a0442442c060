"""Reading tool calls out of a stream: pieces of generated text enter, text and calls leave as soon as they are certain.

However the text is cut into pieces, what leaves is the same: nothing is given out that might still become a marker.
"""

from __future__ import annotations

from collections.abc import Iterable

from modelium.gateway.openai.tool_calls.families import Family
from modelium.gateway.openai.tool_calls.formats import Call
from modelium.gateway.openai.tool_calls.progress import CallStream, Part

Found = str | Call | Part


class Scanner:
    """One generation's text. Space around calls belongs to nobody and is dropped; what turns out to be none stays as it was."""

    __slots__ = ("_begun", "_buffer", "_called", "_family", "_fed", "_inside", "_parts", "_space", "_stream")

    def __init__(self, family: Family, *, in_parts: bool = False) -> None:
        """``in_parts``: a call in JSON leaves while it is written, and what comes of it is not taken back; one in another form
        leaves when it is complete."""
        self._family = family
        self._parts = in_parts
        self._buffer = ""
        self._begun = False  # something other than space was seen
        self._called = False
        self._space = ""  # before the start marker of that call
        self._stream = CallStream()  # of the call that the buffer is in, which has seen so much of it:
        self._fed = 0
        self._inside: str | None = None  # the start marker of the call that the buffer is in ("" for an opening)

    def feed(self, text: str) -> list[Found]:
        """What is known for certain with ``text``; the rest is held back."""
        self._buffer += text
        return list(self._found(final=False))

    def finish(self) -> list[Found]:
        """The text is over: what was held back leaves."""
        found = list(self._found(final=True))
        if self._inside is not None:
            found += self._close(len(self._buffer), "")
        rest, self._buffer = self._buffer, ""
        if rest and not (self._called and not rest.strip()):
            found.append(rest)
        return found

    def _found(self, *, final: bool) -> Iterable[Found]:
        while True:
            if self._inside is not None:
                ended = self._end()
                if self._inside and self._parts:  # else a text that begins like a call, and may be none
                    yield from self._progress(ended[0] if ended else len(self._buffer) - (0 if final else self._held()))
                if not ended:
                    return
                yield from self._close(*ended)
                continue
            if not self._begun and self._opens():
                continue
            at, marker = self._earliest((*self._family.starts, *self._family.dropped))
            if marker:
                yield from self._text(at, at_marker=True)
                self._buffer = self._buffer[len(marker) :]
                if marker in self._family.starts:
                    self._inside, self._begun = marker, True
                    self._stream, self._fed = CallStream(), 0
                continue
            if not final:
                yield from self._text(len(self._buffer) - self._held(), at_marker=False)
            return

    def _progress(self, end: int) -> list[Part]:
        """What the call says up to ``end``."""
        text, self._fed = self._buffer[self._fed : end], max(end, self._fed)
        return self._stream.feed(text)

    def _opens(self) -> bool:
        """Does the text begin with a call? Decided at its first character that is no space."""
        stripped = self._buffer.lstrip()
        if any(stripped.startswith(opening) for opening in self._family.openings):
            self._space = self._buffer[: len(self._buffer) - len(stripped)]
            self._buffer, self._inside, self._begun = stripped, "", True
            self._stream, self._fed = CallStream(), 0
            return True
        return False

    def _text(self, end: int, *, at_marker: bool) -> Iterable[str]:
        """Text up to ``end`` leaves, but for the space at its end, which waits for what follows (a marker: it goes)."""
        text, rest = self._buffer[:end], self._buffer[end:]
        kept = text.rstrip()
        if kept:
            self._begun = True
            yield kept
        self._space = text[len(kept) :]
        self._buffer = rest if at_marker else self._space + rest

    def _held(self) -> int:
        """How much of the buffer's end may be the beginning of a marker."""
        end = (self._family.end,) if self._family.end is not None else ()
        markers = (*self._family.starts, *self._family.dropped, *(end if self._inside is not None else ()))
        longest = max(map(len, markers), default=0)
        for size in range(min(longest - 1, len(self._buffer)), 0, -1):
            if any(marker.startswith(self._buffer[-size:]) for marker in markers):
                return size
        return 0

    def _earliest(self, markers: Iterable[str]) -> tuple[int, str]:
        places = [(at, -len(marker), marker) for marker in markers if (at := self._buffer.find(marker)) >= 0]
        at, _, marker = min(places, default=(-1, 0, ""))
        return at, marker

    def _end(self) -> tuple[int, str] | None:
        """Where the call ends and by which marker; None while not seen. Without an end marker: where another begins."""
        end = self._family.end
        if end is not None and self._inside:
            at = self._buffer.find(end)
            return (at, end) if at >= 0 else None
        at, _ = self._earliest((*self._family.starts, *self._family.dropped))
        return (at, "") if at >= 0 else None

    def _close(self, end: int, marker: str) -> list[Found]:
        """What the call's stretch says; it stays text when it says nothing that can be read."""
        body, self._buffer = self._buffer[:end], self._buffer[end + len(marker) :]
        start, self._inside = self._inside or "", None
        calls = self._family.read(body)
        if self._stream.begun:
            self._called = True
            return [*(calls or ())][self._stream.begun :]
        if calls is None:
            given_back = self._space + start + body + marker
            return [given_back] if given_back else []
        self._called = True
        return list(calls)
