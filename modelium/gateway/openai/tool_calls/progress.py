"""Tool calls as they are written: pieces of JSON enter; a call's name leaves as soon as it is known, its arguments letter by
letter.

What is read is one object ``{"name": …, "arguments": {…}}`` (or ``parameters``), or several, in a list or one after another.
Text of any other form brings nothing: whoever has all of it may know another way to read it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_HEAD = re.compile(
    r'\s*\}?[\s,;\[]*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.){1,256}")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)', re.DOTALL
)
_LONGEST_HEAD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """``name`` is in the first part of each call only. ``arguments``: what comes next of the text of a JSON object."""

    arguments: str = ""
    name: str = ""


class CallStream:
    """Feed it the text piece by piece. ``begun``: how many calls have begun."""

    __slots__ = ("_buffer", "_depth", "_escaped", "_in_string", "_lost", "begun")

    def __init__(self) -> None:
        self.begun = 0
        self._buffer = ""  # what may become the head of a call
        self._depth = 0  # in the arguments; 0: between calls
        self._in_string = self._escaped = False
        self._lost = False  # this is something else

    def feed(self, text: str) -> list[Part]:
        """What is certain with ``text``."""
        found: list[Part] = []
        while text and not self._lost:
            if self._depth:
                arguments, text = self._take(text)
                found.append(Part(arguments=arguments))
                continue
            self._buffer += text
            head = _HEAD.match(self._buffer[:_LONGEST_HEAD])
            if head is None:
                self._lost = len(self._buffer) >= _LONGEST_HEAD
                break
            try:
                name = str(json.loads(head[1], strict=False))
            except ValueError:
                self._lost = True
                break
            text, self._buffer, self._depth = self._buffer[head.end() + 1 :], "", 1
            self.begun += 1
            found.append(Part(name=name, arguments="{"))
        return found

    def _take(self, text: str) -> tuple[str, str]:
        """As far as the arguments go, and the rest."""
        made: list[str] = []
        for at, letter in enumerate(text):
            made.append(letter)
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif letter == "\\":
                    self._escaped = True
                elif letter == '"':
                    self._in_string = False
                elif letter < " ":  # models write newlines into strings
                    made[-1] = json.dumps(letter)[1:-1]
            elif letter == '"':
                self._in_string = True
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
                if not self._depth:
                    return "".join(made), text[at + 1 :]
        return "".join(made), ""
