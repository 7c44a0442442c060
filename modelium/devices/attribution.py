"""Which processes serve which model: what enters is the server's process id, what leaves are its stubs and their offspring.

Measured on the embedded server: a stub's command line is ``STUB ENTRY/VERSION/FILE SHM … INSTANCE BACKEND``. The instance
is ``MODEL_0`` or ``MODEL_0_1``, for the throw-away stub of auto-complete plain ``MODEL``; for Python-based backends too the
path is the entry's. Model names may end like instances do (``bert_0``), so the path decides where the name ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelium.devices.nursery import Nursery
from modelium.devices.processes import Process, has_memory, read_command_line, read_row, read_rows

_STUB = "triton_python_b"  # the kernel keeps 15 characters of triton_python_backend_stub
_INSTANCE_SUFFIX = re.compile(r"(_\d+){1,2}")
_INSTANCE_ARGUMENT = -2


class ProcessMap:
    """Remembers who belonged to whom: when a stub dies, its offspring moves to another parent and lives on.

    As of the last look: ``own`` are the server and what is below it that is no model's, ``born`` those of the models' processes
    that were forked by the nursery, ``kin`` these and what they have started, and ``nursery`` is that itself.
    """

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._known: dict[Process, str] = {}
        self.own: tuple[int, ...] = ()
        self.born: frozenset[int] = frozenset()
        self.kin: frozenset[int] = frozenset()
        self.nursery: tuple[int, ...] = ()

    def read(self, server_pid: int) -> dict[str, tuple[Process, ...]]:
        """Model name → its living processes: the stubs, their offspring, then who was born in the nursery for them. One pass
        over /proc."""
        stubs = self._nursery.children()  # first: a child that begins meanwhile has its file before its stub knows of it
        nursery = self._nursery.processes()
        rows = read_rows()
        children: dict[int, list[int]] = {}
        for pid, row in rows.items():
            children.setdefault(row.parent, []).append(pid)

        def lives(process: Process) -> bool:
            row = rows.get(process.pid)
            return row is not None and row.created_at == process.created_at

        self.nursery = tuple(process.pid for process in nursery if lives(process))
        stubs = {child: stub for child, stub in stubs.items() if lives(child)}
        apart = {*self.nursery, *(child.pid for child in stubs)}
        found: dict[Process, str] = {}
        own = [server_pid]

        def walk(queue: list[tuple[int, str | None]]) -> list[int]:
            for pid, inherited in queue:
                row = rows[pid]
                model = inherited
                if row.command == _STUB:
                    model = model_of_command(read_command_line(pid)) or inherited
                if model is not None:
                    found[Process(pid, row.created_at)] = model
                else:
                    own.append(pid)
                queue += [(child, model) for child in children.get(pid, ()) if child not in apart]
            return [pid for pid, _ in queue]

        walk([(child, None) for child in children.get(server_pid, ()) if child not in apart])
        kin: list[int] = []
        for child, stub in sorted(stubs.items()):
            model = found.get(stub) or self._known.get(child) or self._known.get(stub)
            if model is not None:  # else it is another Triton's
                kin += walk([(child.pid, model)])
        for process, model in self._known.items():
            if process not in found and lives(process):
                found[process] = model
        self._known, self.own = found, tuple(own)
        self.born = frozenset(child.pid for child in stubs if child in found)
        self.kin = frozenset(kin)
        models: dict[str, list[Process]] = {}
        for process, model in found.items():
            models.setdefault(model, []).append(process)
        return {model: tuple(processes) for model, processes in models.items()}

    def orphans(self) -> frozenset[int]:
        """Those of ``born`` whose generation of the nursery has ended by now: what they shared with it is theirs alone.

        A generation serves until the last of its children has ended, and is their parent. It is another process's child of the
        nursery, which the keeper is not; that takes in who has lost its parent.
        """
        own = frozenset(self.nursery)

        def lives(generation: int) -> bool:
            row = read_row(generation) if generation in own else None
            return row is not None and row.parent in own and has_memory(generation)

        rows = {pid: read_row(pid) for pid in self.born}
        return frozenset(pid for pid, row in rows.items() if row is not None and not lives(row.parent))


def model_of_command(arguments: Sequence[str]) -> str | None:
    """The model that a stub's command line is about; None when it is no stub's.

    >>> model_of_command(["…/stub", "/repo/bert_0/1/model.onnx", "shm", "1", "1", "9", "/b", "336", "bert_0_0", "DEFAULT"])
    'bert_0'
    """
    if len(arguments) < 4:
        return None
    instance = arguments[_INSTANCE_ARGUMENT]
    for part in reversed(arguments[1].split("/")):
        if part and (instance == part or (instance.startswith(part) and _INSTANCE_SUFFIX.fullmatch(instance, len(part)))):
            return part
    return re.sub(r"(_\d+){1,2}$", "", instance) or None
