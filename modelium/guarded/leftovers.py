"""What an earlier run left, when even its guardian was killed: the record that it wrote enters, nothing of it stays.

Blocking; call it in a thread. Never touches another Modelium's run: the record lies in a state directory that only one
Modelium holds at a time, and each process is checked against it.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from pathlib import Path

from modelium.guarded.guardian import RUN_MARK, Record
from modelium.guarded.processes import ProcessRow, all_processes, boot_id, kill_all, read_process, send, sweep_shared_memory

_log = logging.getLogger(__name__)


def end_leftovers(record_path: Path, *, guardian_may_take_s: float, whose: str = "an earlier run") -> int:
    """End the processes and unlink the shared memory of the run in ``record_path``; the number of processes is returned.

    ``whose``: who has left them, for the log.

    A guardian that still works (its Modelium has just been killed) is given its time first.
    """
    record = _read(record_path)
    if record is None:
        return 0
    if record.boot == boot_id():
        guardian = read_process(record.guardian)
        if guardian is not None and guardian.started == record.guardian_started and not guardian.zombie:
            _wait_for_end(guardian, within_s=guardian_may_take_s)
            send(guardian, signal.SIGKILL)
        found = _survivors(record)
        if found:
            count = f"{len(found)} process{'' if len(found) == 1 else 'es'}"
            _log.warning("ending %s that %s left: %s", count, whose, [process.pid for process in found])
            for process in found:
                send(process, signal.SIGTERM)
            _wait_for_all(record, within_s=3.0)
        mapped = kill_all(lambda: _survivors(record), within_s=5.0)
        sweep_shared_memory(record.shm_prefix, mapped)
    else:
        found = []
    record_path.unlink(missing_ok=True)
    return len(found)


def _survivors(record: Record) -> list[ProcessRow]:
    leader = read_process(record.guardian)
    session_is_theirs = leader is None or leader.started == record.guardian_started
    found = []
    for process in all_processes():
        if process.zombie or process.pid == record.guardian:
            continue
        mark = _run_mark_of(process.pid)
        in_session = session_is_theirs and process.session == record.guardian and process.started >= record.guardian_started
        # A process that renames itself (vLLM's) overwrites its visible environment: then the session alone must do.
        if mark == record.run_mark or (mark is None and in_session):
            found.append(process)
    return found


def _run_mark_of(pid: int) -> str | None:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = RUN_MARK.encode() + b"="
    return next((variable[len(prefix) :].decode() for variable in variables if variable.startswith(prefix)), None)


def _wait_for_end(process: ProcessRow, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        now = read_process(process.pid)
        if now is None or now.started != process.started or now.zombie:
            return
        time.sleep(0.05)


def _wait_for_all(record: Record, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and _survivors(record):
        time.sleep(0.05)


def _read(path: Path) -> Record | None:
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        _log.warning("%s cannot be read; what an earlier run left, if anything, stays", path)
        return None
