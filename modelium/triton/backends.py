"""The backend directory of the embedded server: what enters are the wheel's python backend and ``triton/backends/``, what
leaves is one directory for ``--backend-directory``.

The wheel keeps the backend and the stubs for each Python apart, and files in environments made by uv are hard links into
its cache, so they are copied, never linked or changed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from modelium.values import VllmFacts

_STAMP = ".stamp"
_BYTECODE = shutil.ignore_patterns("__pycache__", "*.pyc")
_STUB = "triton_python_backend_stub"


def compose_backends(
    destination: Path, *, tritonserver: Path, stub: Path, python_backends: Path, nursery: Path
) -> frozenset[str]:
    """Make ``destination`` hold the python backend with ``stub`` and every Python-based backend, each with what its models are
    born from (``nursery``: the package of triton/nursery/); the names are returned.

    Nothing is copied when the sources are as they were. A running server may have the old directory open: the new one is
    written beside it and takes its name.
    """
    backend = tritonserver.parent.parent / "backends" / "python"
    ours = (
        sorted(path for path in python_backends.iterdir() if (path / "model.py").is_file()) if python_backends.is_dir() else []
    )
    stamp = _stamp_of([backend, stub, nursery, *ours])
    names = frozenset({"python", *(path.name for path in ours)})
    current = destination / _STAMP
    if current.is_file() and current.read_text() == stamp:
        return names
    destination.parent.mkdir(parents=True, exist_ok=True)
    fresh = destination.with_name(destination.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(backend, fresh / "python")
    shutil.copyfile(stub, fresh / "python" / _STUB)
    (fresh / "python" / _STUB).chmod(0o755)  # unpacking a wheel by hand loses the run bits
    for path in ours:
        shutil.copytree(path, fresh / path.name, ignore=_BYTECODE)
        shutil.copytree(nursery, fresh / path.name / nursery.name, ignore=_BYTECODE)
    (fresh / _STAMP).write_text(stamp)
    shutil.rmtree(destination, ignore_errors=True)
    fresh.rename(destination)
    return names


def usable_backends(composed: frozenset[str], vllm: VllmFacts) -> frozenset[str]:
    """Those of the backend directories whose packages are in the model runtime."""
    return composed - {"vllm"} if vllm.missing else composed


def _stamp_of(sources: list[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        for file in _files_of(source):
            seen = file.stat()
            digest.update(f"{file}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files_of(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
    else:
        yield from sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
