"""Entries on a disk that is full or read-only: an error that says what to do, and nothing half-written.

Each test runs in a process of its own, because what it limits is the whole process. The small disk is a mount of that process
alone, and with it a repository that is a mount point: nothing can be renamed into it from outside.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S

LIMITED = """
    import errno, os, resource, subprocess, sys
    from pathlib import Path
    from modelium.errors import EntryError
    from modelium.repository import ModelRepository
    from tests.unit.repository.test_repository import classifier, placement

    root = Path(sys.argv[1])
    def listing():
        return sorted(str(path.relative_to(root.parent)) for path in root.parent.rglob("*") if path.is_file())
    def failing_write(name):
        try:
            ModelRepository(root).write(classifier(name, fingerprint="2"), placement())
        except EntryError as error:
            return str(error)
        raise SystemExit("the write did not fail")
"""


def run_limited(script: str, root: Path, *wrapper: str) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(LIMITED) + textwrap.dedent(script)
    top = Path(__file__).parents[3]
    return subprocess.run(
        [*wrapper, sys.executable, "-c", code, str(root)],
        cwd=top,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_write_that_fails_in_the_middle_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    script = """
        ModelRepository(root).write(classifier("kept"), placement())
        before = listing()
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # as a full disk: the first bytes go, then no more
        for name in ("kept", "fresh"):
            message = failing_write(name)
            assert "File too large" in message and "free space" in message, message
        assert listing() == before, listing()
        assert ModelRepository(root).owned() == {"kept": "1"}
    """
    done = run_limited(script, tmp_path / "repository")
    assert done.returncode == 0, done.stderr


def test_a_full_disk_and_a_read_only_one_are_errors_that_say_what_to_do(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", root], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine does not let a process make a mount of its own")
    script = """
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root], check=True)
        ModelRepository(root).write(classifier("kept"), placement())
        names = [f"m{number}" for number in range(100)]
        for written, name in enumerate(names):
            try:
                ModelRepository(root).write(classifier(name), placement())
            except EntryError as error:
                assert "No space left on device" in str(error) and "free space" in str(error), error
                break
        else:
            raise SystemExit("the disk did not fill up")
        assert set(ModelRepository(root).owned()) == {"kept", *names[:written]}
        assert {path.name for path in root.iterdir()} == {"kept", *names[:written], ".staging"}
        assert list((root / ".staging").iterdir()) == []
        assert ModelRepository(root).remove("kept")

        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        message = failing_write("m0")
        assert "Read-only file system" in message and "right to write" in message, message
    """
    done = run_limited(script, root, "unshare", "-rm")
    assert done.returncode == 0, done.stderr
