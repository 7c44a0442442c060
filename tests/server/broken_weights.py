"""A model with weights that are no numbers: a folder of a test model enters, a spoilt copy of it leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def broken(source: Path, folder: Path, number: float, only: str = "") -> Path:
    """A copy of a model whose weights (or those of one name) are that number."""
    shutil.copytree(source, folder)
    for file in folder.rglob("*.safetensors"):
        tensors = load_file(file)
        spoilt = {
            name: np.full_like(array, number) if array.dtype.kind == "f" and name.endswith(only) else array
            for name, array in tensors.items()
        }
        assert any(not np.isfinite(array).all() for array in spoilt.values())
        save_file(spoilt, file, metadata={"format": "pt"})
    return folder
