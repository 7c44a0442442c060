"""Ray Serve's replicas on this machine: the mark of our Triton enters, the processes of each model leave.

A replica names itself ``ray::ServeReplica:APPLICATION:DEPLOYMENT``, and while it works adds a method to that (Ray 2.60). The
application of an entry is called ``MODEL@MARK-PID``, after the Triton and the process that deployed it.
"""

from __future__ import annotations

import os
import re

from modelium.devices.processes import Process, read_command_line, read_row

_COMMAND = "ray::ServeReplica"[:15]
_TITLE = re.compile(r"ray::ServeReplica:(?P<model>[A-Za-z0-9._-]+)@(?P<mark>[A-Za-z0-9._]+)-\d+:")


def find_replicas(mark: str) -> dict[str, tuple[Process, ...]]:
    """Replicas first, then what they started (the processes of a vLLM engine). Nothing for an unknown mark."""
    if not mark:
        return {}
    rows = {}
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - an object per entry would double the time
        if entry.isdigit() and (row := read_row(int(entry))) is not None:
            rows[int(entry)] = row
            children.setdefault(row.parent, []).append(int(entry))
    found: dict[str, list[Process]] = {}
    for pid, row in rows.items():
        if row.command == _COMMAND and (model := _model_of(pid, mark)):
            queue = [pid]
            for each in queue:
                found.setdefault(model, []).append(Process(each, rows[each].created_at))
                queue += children.get(each, ())
    return {model: tuple(processes) for model, processes in found.items()}


def _model_of(pid: int, mark: str) -> str:
    words = read_command_line(pid)
    title = _TITLE.match(words[0]) if words else None
    return title["model"] if title is not None and title["mark"] == mark else ""
