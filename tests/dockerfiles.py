"""Dockerfiles as instructions: a path enters, what it says leaves. (hadolint parses them for real; this is for asking.)"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    word: str
    rest: str

    @property
    def options(self) -> dict[str, str]:
        """``--from=build`` → ``{"from": "build"}``."""
        return dict(re.findall(r"(?<!\S)--([a-z-]+)=(\S+)", self.rest))

    @property
    def operands(self) -> list[str]:
        return [part for part in self.rest.split() if not part.startswith("--")]

    @property
    def command(self) -> list[str]:
        """Of the exec form: the words of the JSON list."""
        words: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return words


def read_dockerfile(path: Path) -> list[Instruction]:
    """Comments left out, continued lines joined, ``ARG`` defaults put into ``FROM``."""
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [Instruction(word=line.split()[0].upper(), rest=line.split(maxsplit=1)[1]) for line in joined.splitlines()]
    defaults = dict(one.rest.split("=", 1) for one in found if one.word == "ARG")
    return [
        Instruction(word=one.word, rest=re.sub(r"\$\{(\w+)\}", lambda m: defaults[m[1]], one.rest))
        if one.word == "FROM"
        else one
        for one in found
    ]


def read_environment(instructions: list[Instruction]) -> dict[str, str]:
    """What ``ENV`` sets."""
    pairs = [part for one in instructions if one.word == "ENV" for part in shlex.split(one.rest)]
    return dict(pair.split("=", 1) for pair in pairs)


def last(instructions: list[Instruction], word: str) -> Instruction:
    return [one for one in instructions if one.word == word][-1]
