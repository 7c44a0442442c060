"""How an entry inside Triton finds Ray: an address enters, a file that only this user can read leaves.

Triton's environment is fixed when it starts, Ray may start later and again: so the environment names this file
(``MODELIUM_RAY_FILE``), and an entry reads it whenever it is loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "MODELIUM_RAY_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """``address`` of the GCS, ``dashboard`` as a URL. ``token`` "": none of ours. ``http_port``: where Serve's proxy of a
    Ray of our own shall listen, 0 for a cluster that has one already."""

    address: str
    dashboard: str
    token: str = ""
    http_host: str = ""
    http_port: int = 0


def connection_file(state: Path) -> Path:
    """Where it lies below the state directory."""
    return state / "ray.json"


def write_connection(state: Path, connection: Connection) -> None:
    """Put it into place in one rename."""
    path = connection_file(state)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as target:
        json.dump(asdict(connection), target)
    fresh.replace(path)


def forget_connection(state: Path) -> None:
    """Nobody who is started from now on finds it."""
    with contextlib.suppress(OSError):
        connection_file(state).unlink(missing_ok=True)
