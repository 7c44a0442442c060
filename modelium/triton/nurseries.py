"""The warm processes that models are born from: what models will need enters, a guarded process for each kind leaves.

A nursery (``triton/nursery/``) runs in the model runtime beside Triton, and outlives it: after a crash of Triton, its models
come back as quickly as ever. The stubs of models find it through ``MODELIUM_NURSERY``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from modelium.brain.runtimes.choice import SUPPORTS
from modelium.guarded import Command, GuardedProgram
from modelium.guarded.directories import make_private
from modelium.guarded.processes import read_process
from modelium.guarded.program import NotStarted
from modelium.resources import nursery_package, templates_directory, triton_directory
from modelium.values import Runtime

_log = logging.getLogger(__name__)

DIRECTORY = "nursery"  # in the state directory
_CHILDREN, _OWN = "children", "nurseries"  # as in modelium_nursery.register
_COMING = ".coming"  # as in modelium_nursery.places, as the next line
_PROTOCOL = 3  # the next line as in its client (tests/unit/triton/test_nurseries.py)
_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from modelium_nursery.keeper import main; main()"
_GRACE_S = 1.0  # it ends at once; its models end with their stubs
_AGAIN_AFTER_S = 5.0
_STEADY_S = 10.0  # one that served so long is started again at once, and loads wait for it
_WRITING = threading.Lock()  # around the files of expected modules: several threads add to one
_TOLD_WITHIN_S = 120.0  # one that is still importing hears it when it is warm


@dataclass(slots=True)
class _Wanted:
    modules: set[str] = field(default_factory=set)
    keeping: asyncio.Task[None] | None = None
    program: GuardedProgram | None = None


class Nurseries:
    """One nursery for each kind that is expected, from ``begin`` to ``stop``."""

    def __init__(self, state: Path) -> None:
        self.directory = state / DIRECTORY
        self._wanted: dict[str, _Wanted] = {}
        self._place: tuple[Path, Mapping[str, str]] | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def end_leftovers(self) -> None:
        """End what an earlier run left; blocking."""
        for record in self.directory.glob("*.json"):
            GuardedProgram(record, grace_s=_GRACE_S).end_leftovers()
        for left in self.directory.glob(f"*{_COMING}"):
            left.unlink(missing_ok=True)

    def begin(self, python: Path, environment: Mapping[str, str]) -> None:
        """Start those that are expected, and from now on each when it is."""
        self._place = python, environment
        for kind in self._wanted:
            self._keep_one(kind)

    def expect(self, kind: Runtime, modules: Iterable[str]) -> None:
        """A model has come that needs these modules. The nursery of its kind warms in the background; a load waits for it."""
        if not SUPPORTS[kind].is_born:
            return
        wanted = self._wanted.setdefault(kind.value, _Wanted())
        if new := set(modules) - wanted.modules:
            wanted.modules |= new
            if wanted.keeping is not None:
                task = asyncio.create_task(asyncio.to_thread(_tell, self.directory, kind.value, sorted(new)))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)
        if self._place is not None:
            self._keep_one(kind.value)

    def listens(self, kind: Runtime) -> bool:
        """Can a model of that kind be born now?"""
        return kind.value in self._wanted and (self.directory / _socket_name(kind.value)).exists()

    def importing(self) -> dict[str, float]:
        """The kinds whose nursery has a socket, and no process that serves it yet: births wait there. And since when, on the
        monotonic clock. Blocking."""
        keepers = {kind: wanted.program.pid for kind, wanted in self._wanted.items() if wanted.program is not None}
        own = map(read_process, _registered(self.directory))
        serving = {process.parent for process in own if process is not None and not process.zombie}
        return {
            kind: _generation_began(keeper, self.directory / _CHILDREN)
            for kind, keeper in keepers.items()
            if keeper is not None and keeper not in serving and (self.directory / _socket_name(kind)).exists()
        }

    async def stop(self) -> None:
        """End all of them; ``begin`` starts them again."""
        self._place = None
        for wanted in self._wanted.values():
            if wanted.keeping is not None:
                wanted.keeping.cancel()
                await asyncio.gather(wanted.keeping, return_exceptions=True)
                wanted.keeping = None
        for kind in self._wanted:
            self._announce(kind, False)
        await asyncio.gather(*(wanted.program.stop() for wanted in self._wanted.values() if wanted.program is not None))

    def _keep_one(self, kind: str) -> None:
        wanted = self._wanted[kind]
        if wanted.keeping is None and self._place is not None:
            self._announce(kind, True)  # before any load of that kind
            wanted.keeping = asyncio.create_task(self._keep(kind, wanted, *self._place), name=f"nursery {kind}")

    def _announce(self, kind: str, comes: bool) -> None:
        """To the stubs, which wait for one that comes."""
        path = self.directory / f"{kind}{_COMING}"
        with suppress(OSError):  # a disk that is full: then nobody waits
            if comes:
                make_private(self.directory)
                path.touch()
            else:
                path.unlink(missing_ok=True)

    async def _keep(self, kind: str, wanted: _Wanted, python: Path, environment: Mapping[str, str]) -> None:
        program = wanted.program = GuardedProgram(self.directory / f"{kind}.json", grace_s=_GRACE_S)
        command = Command(
            arguments=[
                *(str(python), "-I", "-X", "utf8", "-c", _BOOT, str(nursery_package().parent)),
                *(str(self.directory), kind, str(_imports_of(kind))),
            ],
            environment=environment,
            directory=self.directory,
            log=self.directory / f"{kind}.log",
            register=self.directory / _CHILDREN,
        )
        while True:
            began = time.monotonic()
            try:
                await asyncio.to_thread(make_private, self.directory)
                await asyncio.to_thread(_remember, self.directory, kind, sorted(wanted.modules))
                await asyncio.to_thread(program.end_leftovers)
                await program.start(command)
                code = await program.wait()
                how = _how(code)
                _log.warning("the nursery of %s models %s; it is started again", kind, how)
            except (NotStarted, OSError) as error:
                _log.warning("the nursery of %s models does not start (%s): models load without it", kind, error)
            if time.monotonic() - began < _STEADY_S:
                self._announce(kind, False)
                await asyncio.sleep(_AGAIN_AFTER_S)
            self._announce(kind, True)


def _how(code: int | None) -> str:
    """How a program ended, by its exit code."""
    if code is None:
        return "was ended, since its guardian was killed"
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _imports_of(kind: str) -> Path:
    """The file that a nursery of that kind runs first; kinds are runtimes."""
    if kind == "python":
        return templates_directory() / "python" / "1" / "warm.py"
    return triton_directory() / "backends" / kind / "warm.py"


def _socket_name(kind: str) -> str:
    return f"{kind}-{_PROTOCOL}.sock"


def _registered(directory: Path) -> list[int]:
    """The keepers, and the processes below them that serve: each enters itself when it is warm."""
    try:
        return [int(path.name) for path in (directory / _OWN).iterdir() if path.name.isdecimal()]
    except OSError:
        return []


def _generation_began(keeper: int, children: Path) -> float:
    """When the process was forked that imports now: the newest below the keeper that is no model's, else itself."""
    try:
        below = [int(word) for word in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()]
    except OSError:
        below = []
    found = [read_process(pid) for pid in (keeper, *below) if not (children / str(pid)).exists()]
    started = max((process.started for process in found if process is not None and not process.zombie), default=0)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    age_s = now - started / os.sysconf("SC_CLK_TCK") if started else 0.0
    return time.monotonic() - max(0.0, age_s)


def _remember(directory: Path, kind: str, modules: list[str]) -> None:
    """What a nursery imports at its start, besides what every model needs and what it knows itself (KIND.modules)."""
    path = directory / f"{kind}.expected"
    with _WRITING:
        try:
            known = json.loads(path.read_text())
        except (OSError, ValueError):
            known = []
        fresh = path.with_name(f".{path.name}")
        fresh.write_text(json.dumps(list(dict.fromkeys([*known, *modules]))))
        fresh.replace(path)


def _tell(directory: Path, kind: str, modules: list[str]) -> None:
    """To the nursery that runs; where none answers yet, to the one that starts."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_TOLD_WITHIN_S)
            connection.connect(f"/proc/self/fd/{descriptor}/{_socket_name(kind)}")  # a socket's path may have 107 bytes
            connection.send(json.dumps({"warming": {"modules": modules}}).encode())
            if b"refused" in connection.recv(1024):
                _remember(directory, kind, modules)
    except OSError:
        _remember(directory, kind, modules)
    finally:
        os.close(descriptor)
