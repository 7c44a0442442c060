"""Where a nursery is found: nothing but the environment enters, a private directory and the names of its files leave.

Modelium sets ``MODELIUM_NURSERY`` to a directory in its state directory and starts the nurseries itself; "off" stands for
none. Without it, there is one directory for each server and user, and the first stub starts the nursery.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

VARIABLE = "MODELIUM_NURSERY"
OFF = "off"
_MOST_WAITING = 64
PROTOCOL = 3  # part of the socket's name: a stub never speaks to a nursery that understands it otherwise


def managed() -> bool:
    """Does somebody else start the nurseries?"""
    return bool(os.environ.get(VARIABLE))


def directory(server: int) -> Path | None:
    """The directory of the nurseries of the server with that process id; None where there shall be none."""
    given = os.environ.get(VARIABLE, "")
    if given == OFF:
        return None
    if given:
        return Path(given)
    import tempfile  # which a stub of Modelium's does not need

    return Path(tempfile.gettempdir()) / f"modelium-nursery-{os.getuid()}-{server}"


def make_private(path: Path) -> None:
    """Make the directory, for this user alone. Raises ``OSError`` where it is another's, or open to others."""
    path.mkdir(mode=0o700, exist_ok=True)
    check_private(path.lstat(), path)


def check_private(seen: os.stat_result, path: Path) -> None:
    """Raises ``PermissionError`` where it is no directory of this user alone: somebody else could be listening there."""
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise PermissionError(f"{path} is not a directory of this user alone")


def socket_name(kind: str) -> str:
    """Of the nursery of that kind, in its directory."""
    return f"{kind}-{PROTOCOL}.sock"


def coming(directory: Path, kind: str) -> Path:
    """A file that is there as long as whoever starts the nurseries says that one of that kind serves, or will in a moment."""
    return directory / f"{kind}.coming"


class Reach:
    """A short name for a directory of this user alone: the path of a socket may have 107 bytes, and a state directory may have
    more. Raises ``PermissionError`` where it is open to others.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._descriptor = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            check_private(os.fstat(self._descriptor), self._path)
        except PermissionError:
            os.close(self._descriptor)
            raise
        return f"/proc/self/fd/{self._descriptor}"

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def listen(directory: Path, kind: str) -> socket.socket:
    """Open the socket of the nursery of that kind: who connects before it is warm waits until it is."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    name = socket_name(kind)
    with Reach(directory) as here:
        (directory / f".{name}").unlink(missing_ok=True)
        listener.bind(f"{here}/.{name}")
    (directory / f".{name}").chmod(0o600)
    listener.listen(_MOST_WAITING)
    listener.setblocking(False)
    (directory / f".{name}").replace(directory / name)
    return listener
