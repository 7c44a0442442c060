"""A folder → ``ModelProfile`` · ``AdapterProfile`` · ``Incomplete`` · ``Unsupported``, from headers and JSON alone.

What enters: a ``Candidate`` and what the user decided by hand. What leaves: an ``Analysis``, cleaned; no exception but a
``MemoryError``, which only ``analysis``, whose processes have a limit of it, can tell from a folder's fault.
Weights are never loaded, nothing from the folder is executed, torch and transformers are not imported. The fast path (a
whole folder of a dozen files, read before) takes about a millisecond: one listing, the small JSON files, one header;
the auto-mappings are parsed once a process.

An ``Incomplete`` may turn ``Unsupported`` by time alone (``FRESH_S`` after the last write): ask again then.
"""

from __future__ import annotations

import os
from pathlib import Path

from modelium.analyzers.cleaning import clean
from modelium.analyzers.folder import is_in_flight
from modelium.analyzers.gguf import profile_gguf_file
from modelium.analyzers.lone_file import refuse_file
from modelium.analyzers.onnx_model import profile_onnx_file
from modelium.analyzers.remembered import Remembered
from modelium.analyzers.required_files import FRESH_S, is_fresh
from modelium.analyzers.transformers_model import profile_folder
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.values import Analysis, Candidate, Incomplete, ModelOverride, Unsupported

__all__ = ["FRESH_S", "Remembered", "analyze", "is_in_flight"]

_AS_IT_IS = ModelOverride()


def analyze(candidate: Candidate, override: ModelOverride = _AS_IT_IS, remembered: Remembered | None = None) -> Analysis:
    """What ``candidate`` is. Raises nothing but ``MemoryError``. Safe to call from several threads.

    ``remembered``: what the last look at this folder found in its files, and then what this one did.
    """
    return clean(_look(candidate, override, remembered))


def _look(candidate: Candidate, override: ModelOverride, remembered: Remembered | None) -> Analysis:
    name, path = candidate.name, candidate.path
    if candidate.conflict:
        return Unsupported(name=name, path=path, why=candidate.conflict, hint="rename the folder")
    try:
        if path.suffix == ".onnx" and not path.is_dir():
            return profile_onnx_file(candidate, override)
        if path.suffix.lower() == ".gguf" and not path.is_dir():
            return profile_gguf_file(candidate, override)
        if path.is_file():
            raise refuse_file(path, candidate.root)
        return profile_folder(candidate, override, remembered)
    except NotYet as verdict:
        if verdict.hint_when_stale is not None and not is_fresh(candidate.newest_mtime):
            return Unsupported(name=name, path=path, why=verdict.why, hint=verdict.hint_when_stale)
        return Incomplete(name=name, path=path, why=verdict.why, missing=verdict.missing)
    except Rejected as verdict:
        return Unsupported(name=name, path=path, why=verdict.why, hint=verdict.hint)
    except FileNotFoundError as error:
        return Incomplete(name=name, path=path, why=f"{_relative(error, path)} vanished while it was read")
    except OSError as error:
        why = f"{_relative(error, path)} cannot be read: {error.strerror or error}"
        return Unsupported(name=name, path=path, why=why, hint="see its permissions and the disk")
    except MemoryError:
        raise
    except Exception as error:  # the last line: whatever lies in a folder must not stop the others
        why = f"it could not be analyzed: {type(error).__name__}: {error}"
        return Unsupported(name=name, path=path, why=why, hint="please report this folder: a clear reason is missing here")


def _relative(error: OSError, path: Path) -> str:
    named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if not named or named == os.fspath(path):
        return path.name
    return os.path.relpath(named, path) if named.startswith(os.fspath(path)) else named
