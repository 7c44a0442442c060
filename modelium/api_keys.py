"""API keys: a file enters, whether a key is one of them leaves. The file is read again when it changes.

One key a line, a name in front where it shall have one (``ci: KEY``), and behind it the highest priority that its requests may
have, where that shall be less than any (``batch: KEY priority=low``); empty lines and lines that begin with ``#`` do not count.
No key is kept in memory, printed or logged: of what was read only digests stay, and an error names the line.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from modelium.errors import ConfigError
from modelium.values import Asker, Priority, asker_of, priority_called

log = logging.getLogger(__name__)

# What may follow "Bearer " (RFC 6750). No colon is among it, so a name in front is never taken for a part of the key.
_CHARACTERS = r"[A-Za-z0-9._~+/=-]+"
_LINE = re.compile(
    rf"(?:(?P<name>[A-Za-z0-9._-]{{1,64}}):\s*)?(?P<key>{_CHARACTERS})(?:\s+priority=(?P<priority>high|normal|low))?"
)
SHORTEST_KEY = 16  # fewer characters can be guessed

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One line of the file. ``name`` is the line's number where it has none; the key itself is in no representation.
    ``priority``: what its requests have, and the most that they may ask for; None: they may ask for any."""

    name: str
    key: str = field(repr=False)
    priority: Priority | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """Whose key it is that a request was sent with."""

    name: str
    priority: Priority | None

    def asker(self, wanted: Priority | None) -> Asker:
        """Who asks with it, for a request that wants this priority (None: it does not say)."""
        return asker_of(self.name, wanted, self.priority)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of ``path``, which may be none. Raises ``ConfigError`` with the number of the line that is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"gateway.api_keys_file: {path} cannot be read: {why}") from None
    return tuple(_read_lines(path, text.splitlines()))


def is_key(text: str) -> bool:
    """Whether ``text`` may stand behind "Bearer "."""
    return re.fullmatch(_CHARACTERS, text) is not None


def readable_by_all(path: Path) -> bool:
    """Whether every user of this machine may read the file."""
    return bool(path.stat().st_mode & stat.S_IROTH)


class ApiKeys:
    """The keys of one file, as it is now.

    1. A file that can be read is the truth: a key that is taken out is refused from the next request on, and so is every
       key where none is left.
    2. A file that cannot be read, or has a line that is no key, changes nothing: the previous keys remain in effect, and the
       log says so.
    """

    def __init__(self, path: Path) -> None:
        """Raises ``ConfigError`` where the file is missing, malformed or without any key: then nobody could ask anything."""
        self._path = path
        self._signature = self._look()
        keys = read_keys(path)
        if not keys:
            raise ConfigError(f"gateway.api_keys_file: there is no key in {path}; write one on a line of its own")
        self._known = _known(keys)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, sent: str) -> KnownKey | None:
        """Whose key this is; None: nobody's. Takes as long for a nearly right one as for any other."""
        self._refresh()
        digest, found = _digest(sent), None
        for candidate, known in self._known:
            if hmac.compare_digest(candidate, digest):
                found = known
        return found

    def know(self, sent: str) -> bool:
        """Is this one of the keys?"""
        return self.find(sent) is not None

    def _refresh(self) -> None:
        """Blocking, and short: a ``stat`` of a few microseconds, and a read when that says so."""
        signature = self._look()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            keys = read_keys(self._path)
        except ConfigError as error:  # rule 2
            log.error("%s; the previous keys remain in effect", error)
            return
        self._known = _known(keys)
        log.info("gateway.api_keys_file: %s was read again: %d keys", self._path, len(keys))

    def _look(self) -> _Signature | None:
        """What changes when the file does: also when a link to it is moved, as Kubernetes does with a secret."""
        try:
            seen = os.stat(self._path)  # noqa: PTH116 — one call a request
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size


def _read_lines(path: Path, lines: Iterable[str]) -> Iterable[ApiKey]:
    for number, line in enumerate(lines, start=1):
        said = line.strip()
        if not said or said.startswith("#"):
            continue
        match = _LINE.fullmatch(said)
        if match is None:
            allowed = "letters, digits and - . _ ~ + / =, with `name:` in front and `priority=high|normal|low` behind, or not"
            raise ConfigError(f"gateway.api_keys_file: line {number} of {path} is no key: {allowed}")
        if len(match["key"]) < SHORTEST_KEY:
            raise ConfigError(
                f"gateway.api_keys_file: the key in line {number} of {path} has fewer than {SHORTEST_KEY} characters; "
                "`openssl rand -hex 24` makes a good one"
            )
        priority = priority_called(match["priority"]) if match["priority"] else None
        yield ApiKey(name=match["name"] or f"line {number}", key=match["key"], priority=priority)


def _known(keys: Iterable[ApiKey]) -> tuple[tuple[bytes, KnownKey], ...]:
    return tuple((_digest(key.key), KnownKey(name=key.name, priority=key.priority)) for key in keys)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
