"""Ray Serve's replicas on this machine: the mark of our Triton enters, the processes of each model leave.

A replica names itself ``ray::ServeReplica:APPLICATION:DEPLOYMENT``, and while it works adds a method to that (Ray 2.60). The
application of an entry is called ``MODEL@MARK-PID``, after the Triton and the process that deployed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from modelium.devices.processes import Process, read_command_line, read_rows

_COMMAND = "ray::ServeReplica"[:15]
_TITLE = re.compile(r"ray::ServeReplica:(?P<model>[A-Za-z0-9._-]+)@(?P<owner>[A-Za-z0-9_]+)-[\d.]+:")


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of a model. ``processes``: its own, then what it started (those of a vLLM engine)."""

    processes: tuple[Process, ...]


def find_replicas(owner: str) -> dict[str, tuple[Replica, ...]]:
    """Model name → its replicas. Nothing for an unknown owner."""
    if not owner:
        return {}
    rows = read_rows()
    children: dict[int, list[int]] = {}
    for pid, row in rows.items():
        children.setdefault(row.parent, []).append(pid)
    models = {pid: model for pid, row in rows.items() if row.command == _COMMAND and (model := _model_of(pid, owner))}
    found: dict[str, list[Replica]] = {}
    for pid, model in models.items():
        if rows[pid].parent not in models:  # else it was forked, and has that title until it runs something else
            below = [pid]
            for each in below:
                below += children.get(each, ())
            replica = Replica(tuple(Process(each, rows[each].created_at) for each in below))
            found.setdefault(model, []).append(replica)
    return {model: tuple(replicas) for model, replicas in found.items()}


def processes_of(replicas: Iterable[Replica]) -> tuple[Process, ...]:
    """Of all of them."""
    return tuple(process for replica in replicas for process in replica.processes)


def _model_of(pid: int, owner: str) -> str:
    words = read_command_line(pid)
    title = _TITLE.match(words[0]) if words else None
    return title["model"] if title is not None and title["owner"] == owner else ""
