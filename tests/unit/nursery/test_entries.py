"""The code of entries is imported once where it is the same, in processes of their own: what is imported stays imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

_NURSERY = Path(__file__).parents[3] / "triton" / "nursery"
_INSTANCE = """
import triton_python_backend_utils as pb_utils
from .helper import WORD


def say():
    return WORD, pb_utils.Tensor
"""
_ALONE = """
def say():
    import triton_python_backend_utils as pb_utils

    return "alone", pb_utils.Tensor
"""
_ENTRY = {
    "warm.py": "raise SystemExit('this is no part of a model')",
    "model.py": "raise SystemExit('this is no part of a model')",
    "helper.py": "WORD = 'ours'",
    "instance.py": _INSTANCE,
    "wants_more.py": "import no_such_library",
}
_PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from modelium_nursery import entries, pb

entries.begin(sys.argv[2])
entries.import_all(Path(sys.argv[2]))
before = sys.modules["modelium_entry.instance"]
pb.make_module(None, "")
loaded = entries.load(sys.argv[3], "instance")
word, tensor = loaded.say()
print(word, tensor is pb.Tensor, "once" if loaded is before else "anew", sys.modules["modelium_entry.helper"].__file__)
"""


def write(directory: Path, files: Mapping[str, str]) -> Path:
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ("ours", "once", "nursery")),
        ({"model.py": "# a stub's", "another.py": ""}, ("ours", "once", "nursery")),
        ({"helper.py": "WORD = 'theirs'"}, ("theirs", "anew", "entry")),
        ({"helper.py": "WORD = 'ours'\n"}, ("ours", "anew", "entry")),
    ],
)
def test_an_entry_that_says_the_same_is_not_imported_again(
    tmp_path: Path, change: Mapping[str, str], expected: tuple[str, str, str]
) -> None:
    kept, entry = write(tmp_path / "nursery", _ENTRY), write(tmp_path / "entry", {**_ENTRY, **change})
    command = [sys.executable, "-c", _PROGRAM, str(_NURSERY), str(kept), str(entry)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    word, is_filled, when, file = done.stdout.split()
    assert (word, when, Path(file).parent.name) == expected and is_filled == "True"


def test_an_entry_that_lacks_a_file_is_imported_by_itself(tmp_path: Path) -> None:
    kept = write(tmp_path / "nursery", _ENTRY)
    entry = write(tmp_path / "entry", {"instance.py": _ALONE})
    program = _PROGRAM.replace('sys.modules["modelium_entry.helper"].__file__', '"modelium_entry.helper" in sys.modules')
    command = [sys.executable, "-c", program, str(_NURSERY), str(kept), str(entry)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["alone", "True", "anew", "False"]
