"""Process trees and shared memory on this machine, with small processes of our own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

import pytest

from modelium.guarded.guardian import RUN_MARK
from modelium.guarded.leftovers import end_leftovers
from modelium.guarded.processes import (
    ProcessRow,
    awaited_children,
    boot_id,
    descendants,
    kill_all,
    mapped_shared_memory,
    read_process,
    same,
    send,
    sweep_shared_memory,
)
from tests.patience import PATIENCE_S

SHM = Path("/dev/shm")

# A child in a session of its own, and a grandchild; both say their names first.
_TREE = """
import os, subprocess, sys, time
if sys.argv[1] == "0":
    print(os.getpid(), flush=True)
else:
    print(os.getpid(), flush=True)
    subprocess.Popen([sys.executable, "-S", __file__, "0"], start_new_session=True)
time.sleep(1000)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[list[ProcessRow]]:
    script = tmp_path / "tree.py"
    script.write_text(_TREE)
    environment = {**os.environ, RUN_MARK: tmp_path.name}
    with subprocess.Popen(
        [sys.executable, "-S", script, "1"], stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment
    ) as root:
        assert root.stdout is not None
        found = [read_process(int(root.stdout.readline())) for _ in range(2)]
        processes = [process for process in found if process is not None]
        assert len(processes) == 2
        yield processes
        for process in processes:
            send(process, signal.SIGKILL)


def test_descendants_cross_sessions(tree: list[ProcessRow]) -> None:
    root, child = tree
    assert [process.pid for process in descendants(root.pid)] == [child.pid]
    assert child.session != root.session
    assert {root.pid, child.pid} <= {process.pid for process in descendants(os.getpid())}


def test_kill_all_ends_what_is_found(tree: list[ProcessRow]) -> None:
    kill_all(lambda: [process for process in tree if same(process)], within_s=PATIENCE_S)
    assert not any(same(process) for process in tree)


def test_later_process_with_the_same_id_is_not_signalled(tree: list[ProcessRow]) -> None:
    root, _ = tree
    other = ProcessRow(pid=root.pid, parent=root.parent, session=root.session, started=root.started - 1, zombie=False)
    send(other, signal.SIGKILL)
    assert same(root) and not same(other)


def test_leftovers_of_a_recorded_run_are_ended_by_their_mark(
    tree: list[ProcessRow], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = f"modelium_test_{uuid.uuid4().hex}_"
    (SHM / f"{prefix}1").write_text("")
    record = tmp_path / "server.json"
    values = {"boot": boot_id(), "owner": 1, "guardian": 2**22 + 1, "guardian_started": 0, "shm_prefix": prefix}
    record.write_text(json.dumps({**values, "run_mark": tmp_path.name}))
    assert end_leftovers(record, guardian_may_take_s=5) == 2
    assert "ending 2 processes that an earlier run left" in caplog.text
    assert not any(same(process) for process in tree)
    assert not (SHM / f"{prefix}1").exists()
    assert not record.exists()


def test_record_of_another_boot_or_another_run_ends_nobody(tree: list[ProcessRow], tmp_path: Path) -> None:
    record = tmp_path / "server.json"
    root = tree[0]
    values = {"owner": 1, "guardian": root.pid, "guardian_started": root.started, "shm_prefix": "modelium_no_such_"}
    record.write_text(json.dumps({**values, "boot": "another", "run_mark": tmp_path.name}))
    assert end_leftovers(record, guardian_may_take_s=5) == 0
    # The guardian's id is in use again by somebody else: only the mark would count.
    values |= {"guardian_started": root.started - 1}
    record.write_text(json.dumps({**values, "boot": boot_id(), "run_mark": "another"}))
    assert end_leftovers(record, guardian_may_take_s=5) == 0
    assert all(same(process) for process in tree)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": "x"}'])
def test_broken_record_is_no_obstacle(tmp_path: Path, text: str) -> None:
    record = tmp_path / "server.json"
    record.write_text(text)
    assert end_leftovers(record, guardian_may_take_s=5) == 0


def test_sweep_takes_its_prefix_and_what_nobody_has_mapped() -> None:
    prefix = f"modelium_test_{uuid.uuid4().hex}_"
    ours, dead, used = SHM / f"{prefix}a", SHM / f"test_{uuid.uuid4().hex}", shared_memory.SharedMemory(create=True, size=4096)
    used_path = SHM / used.name
    try:
        ours.write_text("")
        dead.write_text("")
        assert used_path in mapped_shared_memory(os.getpid())
        assert sweep_shared_memory(prefix, {dead, used_path}) == sorted([ours, dead])
        assert used_path.exists()
    finally:
        used.close()
        used.unlink()


def test_there_is_no_process_zero() -> None:
    assert read_process(2**22 + 1) is None
    assert mapped_shared_memory(2**22 + 1) == set()


_WAITS = """
import os, subprocess, sys, threading
children = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
threading.Thread(target=lambda: os.waitpid(children[1].pid, 0)).start()
print(*(child.pid for child in children), flush=True)
sys.stdin.read()
"""


def test_whom_a_thread_waits_for_is_found_and_nobody_else() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", _WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        other, awaited = map(int, parent.stdout.readline().split())
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not (found := awaited_children(parent.pid)):
                assert time.monotonic() < deadline
            assert found == {awaited}
        finally:
            for pid in (other, awaited):
                os.kill(pid, signal.SIGKILL)
            parent.stdin.close()
    assert awaited_children(other) == set()
