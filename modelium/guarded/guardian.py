"""The tiny process between Modelium and a program of its own (tritonserver, Ray) that outlives both and leaves nothing behind.

What enters: one line of JSON (``Orders``) on standard input, which then stays open as the leash: "stop", or its end
(Modelium is gone, even by kill -9), ends the server. What leaves: one JSON line when the server has started and one when
everything is gone. Standard library only.

Triton's python stubs die with the server, but vLLM's EngineCore and workers live on for ever with gigabytes of (GPU)
memory, and the shared memory stays as well. So the guardian is the *subreaper* of the tree: what loses its parent becomes
its child.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from modelium.guarded.hidden import CannotHide, ask_to_be_traced, reveal, with_hidden
from modelium.guarded.processes import (
    ProcessRow,
    boot_id,
    descendants,
    kill_all,
    mapped_shared_memory,
    read_process,
    read_register,
    send,
    sweep_shared_memory,
)
from modelium.guarded.shared_memory import PrivateMemory

_OOM_SCORE = "500"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# A process that lost its parent inside the server's tree gets this long: Python's resource tracker cleans up after its
# dead parent in that time; an EngineCore without its stub never ends.
_ORPHAN_GRACE_S = 5.0
# One that calls itself so has work to do when its parent has ended: it deletes what that has deployed on Ray.
_GUARD = "modelium-guard"
_GUARD_GRACE_S = 35.0
_ORPHAN_CHECK_S = 1.0
_AGAIN_AFTER_S = 1.0  # since its last start, if a program is killed again and again
_KILL_WITHIN_S = 5.0
# A model that prints on every request must not fill the disk of a server that runs for months.
_LOG_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What to run and how to end it. ``record`` is the file that tells the next start what to clean up, should we be killed."""

    command: list[str]
    environment: dict[str, str]
    directory: str
    log: str
    record: str
    shm_prefix: str
    grace_s: float
    owner: int
    hidden: dict[str, str]  # arguments as ``ps`` shows them, and as the program gets them
    register: str  # a directory with a file for each process that goes on when the program is killed, or nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Enough to find what a killed guardian left: everything runs in its session."""

    boot: str
    owner: int
    guardian: int
    guardian_started: int
    shm_prefix: str
    run_mark: str


RUN_MARK = "MODELIUM_RUN"


class Guardian:
    """One server's life, from fork to the last unlinked file."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._server = 0
        self._status: int | None = None  # waitpid's word, once the server has ended
        self._told = False
        self._started = 0.0
        self._orphans: dict[ProcessRow, float] = {}  # and since when
        self._mapped: set[Path] = set()  # shared memory seen in the tree before it was told to end

    def run(self) -> None:
        """Start the server, wait for its end or for ours, clean up."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # A stop comes through the leash only: Ctrl-C in a terminal is for Modelium, which drains first.
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._note_signal)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
        self._write_record()
        memory = PrivateMemory(libc, self._orders.shm_prefix)
        shown = False
        try:
            self._start(libc, hide=bool(self._orders.hidden))
        except CannotHide:
            self._start(libc, hide=False)
            shown = True
        _say({"event": "started", "pid": self._server, "shown": shown})
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            if memory.descriptor is not None:
                selector.register(memory.descriptor, selectors.EVENT_READ)
            owner = _open_process(self._orders.owner)
            if owner is not None:
                selector.register(owner, selectors.EVENT_READ)
            while not self._told and (self._status is None or self._starts_again(libc)):
                for key, _ in selector.select(_ORPHAN_CHECK_S):
                    if key.fd == wake_read:
                        _drain(wake_read)
                    elif key.fd == memory.descriptor:
                        memory.close_new()
                    else:  # "stop", the end of the leash, or the end of Modelium
                        self._told = True
                self._reap()
                self._end_orphans()
                _cut_log(Path(self._orders.log))
        told = self._told
        if self._status is None:
            self._ask_server_to_end()
        mapped = kill_all(lambda: descendants(os.getpid()), within_s=_KILL_WITHIN_S, reap=self._reap)
        swept = sweep_shared_memory(self._orders.shm_prefix, mapped | self._mapped)
        Path(self._orders.record).unlink(missing_ok=True)
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        _say({"event": "ended", "code": code, "told": told, "swept": len(swept)})

    def _starts_again(self, libc: ctypes.CDLL) -> bool:
        """Somebody has killed a program whose processes can do without it: they go on, and it is started again."""
        assert self._status is not None
        if not self._orders.register or not os.WIFSIGNALED(self._status):
            return False
        time.sleep(max(0.0, self._started + _AGAIN_AFTER_S - time.monotonic()))
        self._status = None
        self._start(libc, hide=False)
        _say({"event": "started again", "pid": self._server})
        return True

    def _note_signal(self, _signum: int, _frame: object) -> None:
        self._told = True

    def _start(self, libc: ctypes.CDLL, *, hide: bool) -> None:
        orders, guardian = self._orders, os.getpid()
        self._started = time.monotonic()
        log = os.open(orders.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        refused_read, refused_write = os.pipe()  # closed by an exec, written to where nobody may be traced
        pid = os.fork()
        if pid:
            for descriptor in (log, nothing, refused_write):
                os.close(descriptor)
            refused = os.read(refused_read, 1)
            os.close(refused_read)
            if refused:
                os.waitpid(pid, 0)
                raise CannotHide("a child cannot be traced here")
            self._server = pid
            if hide:
                self._status = reveal(libc, pid, orders.hidden)
            return
        try:
            # If we are killed with -9, the server is told to unload and end by itself; its models can then end their engines.
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != guardian:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.dup2(nothing, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(orders.directory)
            with contextlib.suppress(
                OSError
            ):  # where memory ends, the kernel takes what takes most of it: a model, not Modelium
                Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
            if hide:
                ask_to_be_traced(libc)
                os.execve(orders.command[0], orders.command, with_hidden(orders.environment, orders.hidden))
            command = [orders.hidden.get(argument, argument) for argument in orders.command]
            os.execve(orders.command[0], command, orders.environment)
        except CannotHide:
            os.write(refused_write, b"!")
        except OSError as error:
            os.write(2, f"cannot start {orders.command[0]}: {error}\n".encode())
        finally:
            os._exit(127)

    def _write_record(self) -> None:
        me = read_process(os.getpid())
        record = Record(
            boot=boot_id(),
            owner=self._orders.owner,
            guardian=os.getpid(),
            guardian_started=me.started if me else 0,
            shm_prefix=self._orders.shm_prefix,
            run_mark=self._orders.environment.get(RUN_MARK, ""),
        )
        path = Path(self._orders.record)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(record)))
        fresh.replace(path)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._server:
                self._status = status

    def _end_orphans(self) -> None:
        """Children of ours other than the server have lost their parent; after a while they and theirs are ended."""
        now = time.monotonic()
        going_on = read_register(self._orders.register)
        orphans = {
            process
            for process in _children()
            if process.pid != self._server and not process.zombie and going_on.get(process.pid) != process.started
        }
        self._orphans = {process: self._orphans.get(process, now) for process in orphans}
        for process, since in self._orphans.items():
            grace_s = _GUARD_GRACE_S if process.name == _GUARD else _ORPHAN_GRACE_S
            if now - since > grace_s:
                doomed = [process, *descendants(process.pid)]
                mapped = set().union(*(mapped_shared_memory(each.pid) for each in doomed))
                for each in doomed:
                    send(each, signal.SIGKILL)
                _wait_gone(doomed, within_s=1.0)
                self._reap()
                sweep_shared_memory("", mapped)

    def _ask_server_to_end(self) -> None:
        # What only an already ended process had mapped can't be seen later: look before.
        tree = descendants(os.getpid())
        self._mapped = set().union(*(mapped_shared_memory(process.pid) for process in tree))
        os.kill(self._server, signal.SIGTERM)
        deadline = time.monotonic() + self._orders.grace_s
        while self._status is None and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
            self._reap()


def _cut_log(log: Path) -> None:
    """Move an overlong log's content to ``.1``. Its writers append, so they go on at the start of the emptied file."""
    try:
        if log.stat().st_size <= _LOG_BYTES:
            return
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        os.truncate(log, 0)
    except OSError:
        pass  # the disk is full, or somebody removed the file: the server matters more


def _children() -> list[ProcessRow]:
    """Our direct children. The kernel's own list, where it has one, spares reading all of /proc."""
    me = os.getpid()
    try:
        listed = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    except OSError:
        return [process for process in descendants(me) if process.parent == me]
    return [process for pid in listed if (process := read_process(int(pid))) is not None]


def _wait_gone(processes: list[ProcessRow], *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if all((now := read_process(p.pid)) is None or now.zombie or now.started != p.started for p in processes):
            return
        time.sleep(0.01)


def _open_process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _drain(descriptor: int) -> None:
    while True:
        try:
            if not os.read(descriptor, 4096):
                return
        except BlockingIOError:
            return


def _say(event: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(1, (json.dumps(event) + "\n").encode())


def _read_orders() -> Orders | None:
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(0, 1)  # byte by byte: what follows the line belongs to the selector
        if not part:
            return None
        line += part
    return Orders(**json.loads(line))


def main() -> None:
    """Entry point: orders on standard input."""
    os.umask(0o077)  # shared memory and files of models are nobody else's
    orders = _read_orders()
    if orders is not None:
        Guardian(orders).run()


if __name__ == "__main__":
    main()
    sys.exit(0)
