"""Published models, collected: what their authors say of them enters (``data/published``), folders of headers leave.

A folder has all that a download has but the weights themselves: its files are as long as their headers say, and empty. Of a
model's tensors the collection keeps one line for all that differ in a number (``scripts/derive_tensors.py`` wrote them).
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelium.analyzers import analyze
from modelium.values import Analysis, Candidate, ModelOverride, ModelProfile

COLLECTION = Path(__file__).parent / "data" / "published"
_SHARD_BYTES = 5 * 10**9
_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}
_TOKENIZER = json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}}})
_PREPROCESSOR = json.dumps({"image_processor_type": "X", "image_mean": [0.5], "feature_extractor_type": "X"})
_PREFIXES = {"T": 1e12, "B": 1e9, "M": 1e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is published. Parameters as the authors round them ("30.5B"); ``kv_bytes_per_token`` of the next token of a long
    request, in 16 bits. None: not said."""

    task: str
    parameters: str | None = None
    active_parameters: str | None = None
    context_length: int | None = None
    kv_bytes_per_token: int | None = None
    disk_bytes: int | None = None
    loaded_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    model: str  # its name at its publisher's
    sources: Mapping[str, str]  # of its config and of its facts
    config: Mapping[str, Any]
    facts: Facts
    tensors: Sequence[str]
    files: Mapping[str, Any] = field(default_factory=dict)
    stored: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return self.model.rpartition("/")[2]


@functools.cache
def collection() -> Mapping[str, Published]:
    """All of them, by name."""
    entries = [json.loads(path.read_text()) for path in sorted(COLLECTION.glob("*.json"))]
    found = [Published(**{**entry, "facts": Facts(**entry["facts"])}) for entry in entries]
    return {entry.name: entry for entry in found}


@functools.cache
def analysis_of(name: str) -> Analysis:
    """What the analyzers say of the model of that name."""
    with tempfile.TemporaryDirectory(prefix="modelium-published-") as top:
        return look(write(collection()[name], Path(top) / name))


def profile_of(name: str) -> ModelProfile:
    """The same, where it is a model that can be served."""
    found = analysis_of(name)
    assert isinstance(found, ModelProfile), found
    return found


def look(folder: Path) -> Analysis:
    candidate = Candidate(
        name=folder.name, label=folder.name, path=folder, root=folder.parent, signature="", newest_mtime=time.time() - 3600.0
    )
    return analyze(candidate, ModelOverride())


def write(entry: Published, folder: Path) -> Path:
    """The model's folder."""
    folder.mkdir(parents=True)
    files: dict[str, Any] = {
        "config.json": dict(entry.config),
        "tokenizer.json": _TOKENIZER,
        "preprocessor_config.json": _PREPROCESSOR,
        **entry.files,
    }
    for name, content in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content if isinstance(content, str) else json.dumps(content))
    shards = list(_shards(entry))
    if len(shards) == 1:
        _write_shard(folder / "model.safetensors", *shards[0])
        return folder
    placed: dict[str, str] = {}
    for number, (names, header, size) in enumerate(shards, start=1):
        shard = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / shard, names, header, size)
        placed |= dict.fromkeys(names, shard)
    total = sum(size for _, _, size in shards)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": placed}))
    return folder


def parameters(said: str) -> float:
    """``"30.5B"`` as a number."""
    return float(said[:-1]) * _PREFIXES[said[-1]]


def tensors_of(entry: Published) -> Iterator[tuple[str, str, list[int]]]:
    """Name, dtype and shape of each."""
    for line in entry.tensors:
        pattern, dtype, dims = line.split()
        shape = [] if dims == "-" else [int(dim) for dim in dims.split("x")]
        for name in _names(pattern):
            yield name, dtype, shape


def _names(pattern: str) -> Iterator[str]:
    parts = re.split(r"\{([0-9,-]+)\}", pattern)
    if len(parts) == 1:
        yield pattern
        return
    choices = [[text] if place % 2 == 0 else _numbers(text) for place, text in enumerate(parts)]
    yield from map("".join, itertools.product(*choices))


def _numbers(spelled: str) -> list[str]:
    found: list[str] = []
    for span in spelled.split(","):
        first, _, last = span.partition("-")
        found += [str(number) for number in range(int(first), int(last or first) + 1)]
    return found


def _shards(entry: Published) -> Iterator[tuple[list[str], str, int]]:
    names: list[str] = []
    entries: list[str] = []
    at = 0
    for name, dtype, shape in tensors_of(entry):
        count = 1
        for dim in shape:
            count *= dim
        size = count * _BYTES[dtype]
        if names and at + size > _SHARD_BYTES:
            yield names, ",".join(entries), at
            names, entries, at = [], [], 0
        names.append(name)
        dims = ",".join(map(str, shape))
        entries.append(f'"{name}":{{"dtype":"{dtype}","shape":[{dims}],"data_offsets":[{at},{at + size}]}}')
        at += size
    yield names, ",".join(entries), at


def _write_shard(path: Path, names: list[str], entries: str, size: int) -> None:
    header = f'{{"__metadata__":{{"format":"pt"}},{entries}}}'.encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + size)
