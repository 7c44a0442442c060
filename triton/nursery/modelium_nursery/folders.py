"""Which files of a folder its weights are read from: a folder enters, paths leave. For stubs, so it imports little."""

from __future__ import annotations

import json
from pathlib import Path

LONGEST_HEADER = 100 * 2**20  # bytes; safetensors' own limit


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that its weights are read from, as transformers chooses them; none where that is unclear.

    Raises ``OSError`` and ``ValueError`` for an index that cannot be read.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file() or index.stat().st_size > LONGEST_HEADER:
        return []
    placed = json.loads(index.read_bytes())["weight_map"]
    names = {name for name in placed.values() if isinstance(name, str) and Path(name).name == name}
    return [path for name in sorted(names) if (path := folder / name).is_file()]
