"""API keys: a file enters, whether a key is one of them leaves. The file is read again when it changes.

One key a line, a name in front where it shall have one (``ci: KEY``); empty lines and lines that begin with ``#`` do not
count. No key is kept in memory, printed or logged: of what was read only digests stay, and an error names the line.
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

log = logging.getLogger(__name__)

# What may follow "Bearer " (RFC 6750). No colon is among it, so a name in front is never taken for a part of the key.
_CHARACTERS = r"[A-Za-z0-9._~+/=-]+"
_LINE = re.compile(rf"(?:(?P<name>[A-Za-z0-9._-]{{1,64}}):\s*)?(?P<key>{_CHARACTERS})")
SHORTEST_KEY = 16  # fewer characters can be guessed

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One line of the file. ``name`` is the line's number where it has none; the key itself is in no representation."""

    name: str
    key: str = field(repr=False)


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
        self._digests = _digests(keys)

    def __len__(self) -> int:
        return len(self._digests)

    def know(self, sent: str) -> bool:
        """Is this one of the keys? Takes as long for a nearly right one as for any other."""
        self._refresh()
        digest = _digest(sent)
        known = False
        for candidate in self._digests:
            known |= hmac.compare_digest(candidate, digest)
        return known

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
        self._digests = _digests(keys)
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
            allowed = "letters, digits and - . _ ~ + / =, with `name:` in front of it or not"
            raise ConfigError(f"gateway.api_keys_file: line {number} of {path} is no key: {allowed}")
        if len(match["key"]) < SHORTEST_KEY:
            raise ConfigError(
                f"gateway.api_keys_file: the key in line {number} of {path} has fewer than {SHORTEST_KEY} characters; "
                "`openssl rand -hex 24` makes a good one"
            )
        yield ApiKey(name=match["name"] or f"line {number}", key=match["key"])


def _digests(keys: Iterable[ApiKey]) -> tuple[bytes, ...]:
    return tuple(_digest(key.key) for key in keys)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
