"""Modules that spoil a nursery, end it or never return: the others are imported, and those are not tried again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from modelium_nursery import client, imports, places, trials

from tests.patience import PATIENCE_S

THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()"
END = "import os; os._exit(0)"
CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment of its own, in which libraries can be installed."""
    venv.create(tmp_path / "env", symlinks=True)
    (site_packages(tmp_path) / "numpy.pth").write_text(str(Path(np.__file__).parents[1]))
    return tmp_path / "env" / "bin" / "python"


def site_packages(tmp_path: Path) -> Path:
    return tmp_path / "env" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def install(tmp_path: Path, **modules: str) -> None:
    for name, code in modules.items():
        (site_packages(tmp_path) / f"{name}.py").write_text(code)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 — the truth lies in other processes
            await asyncio.sleep(0.01)


@asynccontextmanager
async def nursery(python: Path, tmp_path: Path, *more: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """One that is warm."""
    warm, package = tmp_path / "warm.py", Path(trials.__file__).parents[1]
    warm.touch()
    keeper = subprocess.Popen(  # noqa: ASYNC220 — it is waited for in the end
        [python, "-I", "-X", "utf8", "-c", client._BOOT, package, tmp_path / "nursery", "python", warm, *more], cwd=tmp_path
    )
    try:
        await until(lambda: (tmp_path / "nursery" / places.socket_name("python")).exists())
        tell(tmp_path)
        yield keeper
    finally:
        keeper.kill()
        keeper.wait()
        await until(lambda: not any(map(lives, generations(tmp_path))))


def generations(tmp_path: Path) -> list[int]:
    return [int(path.name) for path in (tmp_path / "nursery" / "nurseries").glob("*") if path.name.isdigit()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def tell(tmp_path: Path, *modules: str) -> None:
    """Models that need those have come. It answers when it is warm."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, places.Reach(tmp_path / "nursery") as here:
        connection.settimeout(PATIENCE_S)
        connection.connect(f"{here}/{places.socket_name('python')}")
        connection.send(json.dumps({"warming": {"modules": modules}}).encode())
        assert connection.recv(1024) == b"{}"


def refused(tmp_path: Path) -> list[str]:
    path = tmp_path / "nursery" / "python.refused"
    found: list[str] = json.loads(path.read_text())["modules"] if path.exists() else []
    return found


def remembered(tmp_path: Path) -> list[str]:
    path = tmp_path / "nursery" / "python.modules"
    found: list[str] = json.loads(path.read_text()) if path.exists() else []
    return found


@pytest.mark.parametrize("code", [THREAD, END, CRASH])
async def test_a_module_that_spoils_the_first_generation_is_left_out(python: Path, tmp_path: Path, code: str) -> None:
    install(tmp_path, regex="", timm=code, soundfile="")
    places.make_private(tmp_path / "nursery")
    (tmp_path / "nursery" / "python.expected").write_text(json.dumps(["regex", "timm", "soundfile"]))
    async with nursery(python, tmp_path):
        assert refused(tmp_path) == ["timm"]


@pytest.mark.parametrize("code", [THREAD, END, CRASH])
async def test_a_module_that_spoils_a_successor_is_left_out(python: Path, tmp_path: Path, code: str) -> None:
    install(tmp_path, regex="", timm=code, soundfile="")
    async with nursery(python, tmp_path):
        tell(tmp_path, "regex", "timm", "soundfile")
        await until(lambda: remembered(tmp_path) == ["regex", "soundfile"])
        assert refused(tmp_path) == ["timm"]
        tell(tmp_path, "timm")
        tell(tmp_path)


def test_what_is_refused_is_tried_again_with_other_libraries(tmp_path: Path) -> None:
    imports.refuse(tmp_path, "python", "torch.nn")
    imports.refuse(tmp_path, "python", "timm")
    imports.remember(tmp_path, "python", ["timm", "torch.fft"])
    assert imports.refused(tmp_path, "python") == {"torch.nn", "timm"}
    assert imports.remembered(tmp_path, "python") == ["torch.fft"]
    path = tmp_path / "python.refused"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"libraries": []}))
    assert imports.remembered(tmp_path, "python") == ["timm", "torch.fft"]


def test_only_installed_libraries_are_imported_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child names modules; a file of its own that is called like a library is none."""
    (tmp_path / "timm.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "sentencepiece").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not imports.imported("timm")
    assert not imports.imported("sentencepiece")
    assert "timm" not in sys.modules
    assert imports.imported("numpy.fft")


def trial_of(code: Callable[[socket.socket], object], within_s: float = 60.0) -> trials.Trial:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if pid := os.fork():
        its.close()
        return trials.Trial(pid=pid, socket=ours, wanted=[], within_s=within_s)
    try:
        ours.close()
        code(its)
    finally:
        os._exit(1)


def never_return(parent: socket.socket) -> None:
    parent.send(b"timm")
    while True:
        signal.pause()


def test_an_import_that_does_not_return_is_ended() -> None:
    trial = trial_of(never_return, within_s=0.0)
    while trial.left_s() is None:
        trial.hear()
    assert trial.left_s() == 0
    trial.end_if_late()
    _, status = os.waitpid(trial.pid, 0)
    assert trial.culprit(status) == "timm"
    trial.socket.close()


def test_who_is_killed_by_others_has_no_culprit() -> None:
    trial = trial_of(never_return)
    while trial.left_s() is None:
        trial.hear()
    trial.end_if_late()
    os.kill(trial.pid, signal.SIGKILL)
    _, status = os.waitpid(trial.pid, 0)
    assert trial.culprit(status) is None
    assert trial.over
    trial.socket.close()


def test_who_is_ready_is_not_late() -> None:
    def imports_all(parent: socket.socket) -> None:
        parent.send(b"timm")
        parent.send(trials.READY)

    trial = trial_of(imports_all, within_s=0.0)
    while not trial.over:
        trial.hear()
    _, status = os.waitpid(trial.pid, 0)
    assert trial.ready
    assert trial.left_s() is None
    assert trial.culprit(status) is None
    trial.socket.close()


async def test_a_keeper_that_is_told_to_end_leaves_no_nursery(python: Path, tmp_path: Path) -> None:
    async with nursery(python, tmp_path) as keeper:
        keeper.terminate()
        assert keeper.wait(PATIENCE_S) == 0
        await until(lambda: not any(map(lives, generations(tmp_path))))


async def test_one_that_was_started_for_a_server_cleans_up_too(python: Path, tmp_path: Path) -> None:
    server = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # noqa: ASYNC220
    async with nursery(python, tmp_path, "--family", str(server.pid)) as keeper:
        own = generations(tmp_path)
        keeper.terminate()
        assert keeper.wait(PATIENCE_S) == 0
        assert not (tmp_path / "nursery").exists()
        assert not any(map(lives, own))
    server.communicate()
