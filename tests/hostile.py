"""Forty kinds of folders from somebody who means no good, or whose tool broke: a path and a size enter, files are written.

``megabytes`` is the size of those that are heavy by their mass; the others are small and say something that is not so.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

BERT = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
    "max_position_embeddings": 64,
    "vocab_size": 32,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "vocab_size": 32,
}
TOKENIZER = json.dumps({"version": "1.0", "model": {"type": "WordPiece", "vocab": {"[UNK]": 0}}})

Content = Mapping[str, str | bytes]
MIB = 2**20


def lay(folder: Path, files: Content) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    return folder


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def good_weights() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}}).encode()
    return safetensors(header, b"\1" * 128)


def model(config: str | Mapping[str, object], files: Content | None = None) -> Content:
    text = config if isinstance(config, str) else json.dumps(config)
    return {"config.json": text, "tokenizer.json": TOKENIZER, "model.safetensors": good_weights(), **(files or {})}


def torch_zip(path: Path, pickled: bytes) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
        archive.writestr("model/version", "3\n")
    data = path.read_bytes()
    path.unlink()
    return data


# -- YAML ----------------------------------------------------------------------------------------------------------------


def yaml_aliases(levels: int = 40) -> str:
    """A list of lists of … of the same list: 2^40 parts in some hundred bytes."""
    lines = ["args:", "  a0: &a0 [x, x]"]
    lines += [f"  a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def yaml_merges(levels: int = 40) -> str:
    lines = ["args:", "  a0: &a0 {x: 1}"]
    lines += [f"  a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], y{n}: 1}}" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


# -- pickles -------------------------------------------------------------------------------------------------------------


def pickle_of_a_long_name(levels: int = 40) -> bytes:
    """A tuple of two of a tuple of two …, taken for the name of a function."""
    doubled = b"".join(b"\x86q" + bytes([n]) + b"h" + bytes([n]) for n in range(levels))
    return b"\x80\x02" + b")q\xffh\xff" + doubled + b"\x86\x8c\x01x\x93."


def pickle_of_lists(megabytes: int) -> bytes:
    return b"\x80\x02" + b"]" * (megabytes * MIB) + b"."


# -- ONNX ----------------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def delimited(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx_model(graph: bytes) -> bytes:
    return b"\x08\x08" + delimited(7, graph) + delimited(8, b"\x10\x11")


def onnx_value(name: str) -> bytes:
    shape = delimited(2, delimited(1, b"\x08\x01"))
    return delimited(1, name.encode()) + delimited(2, delimited(1, b"\x08\x01" + shape))


def onnx_of_inputs(count: int) -> bytes:
    return onnx_model(delimited(11, onnx_value("x")) * count + delimited(12, onnx_value("y")))


def onnx_of_empty_fields(megabytes: int) -> bytes:
    return onnx_model(b"\x0a\x00" * (megabytes * MIB // 2) + delimited(11, onnx_value("x")) + delimited(12, onnx_value("y")))


# -- JSON ----------------------------------------------------------------------------------------------------------------


def json_of_lists(megabytes: int) -> str:
    return '{"architectures":["BertModel"],"model_type":"bert","x":[' + "[]," * (megabytes * MIB // 3) + "[]]}"


def header_of_tensors(count: int) -> bytes:
    entry = ',"t%d":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    return ("{" + "".join(entry % (n, 4 * n, 4 * n + 4) for n in range(count))[1:] + "}").encode()


def index_of_shards(count: int) -> str:
    return json.dumps({"weight_map": {f"t{n}": f"s{n}.safetensors" for n in range(count)}})


def skops_bomb(path: Path, megabytes: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = '{"__class__":"Pipeline","content":[' + "[]," * (megabytes * MIB // 3) + "[]]}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", schema)
    data = path.read_bytes()
    path.unlink()
    return data


def _odd_name(folder: Path, _megabytes: int) -> None:
    lay(folder, model(BERT))
    bad = os.fsencode(folder) + b"/caf\xe9-\xff.txt"
    with open(bad, "wb") as stream:  # noqa: PTH123 – bytes, which a Path does not take
        stream.write(b"x")


def _link_out(folder: Path, _megabytes: int) -> None:
    lay(folder, {"config.json": json.dumps(BERT), "tokenizer.json": TOKENIZER})
    (folder / "model.safetensors").symlink_to("/etc/passwd")


def _loop(folder: Path, _megabytes: int) -> None:
    lay(folder, model(BERT))
    (folder / "again").symlink_to(folder, target_is_directory=True)


def _pipe(folder: Path, _megabytes: int) -> None:
    lay(folder, {"tokenizer.json": TOKENIZER, "model.safetensors": good_weights()})
    os.mkfifo(folder / "config.json")


def _many_files(folder: Path, _megabytes: int) -> None:
    lay(folder, {f"part-{number}.bin": b"x" for number in range(300)})


def _files(make: Callable[[Path, int], Content]) -> Callable[[Path, int], None]:
    def write(folder: Path, megabytes: int) -> None:
        lay(folder, make(folder, megabytes))

    return write


def _config(**said: object) -> Callable[[Path, int], None]:
    return _files(lambda _folder, _mb: model({**BERT, **said}))


def _generator(**said: object) -> Callable[[Path, int], None]:
    return _files(lambda _folder, _mb: model({**LLAMA, **said}))


def _weights(make: Callable[[int], bytes]) -> Callable[[Path, int], None]:
    return _files(lambda _folder, mb: model(BERT, {"model.safetensors": make(mb)}))


def _pickled(make: Callable[[int], bytes]) -> Callable[[Path, int], None]:
    def files(folder: Path, mb: int) -> Content:
        return {
            "config.json": json.dumps(BERT),
            "tokenizer.json": TOKENIZER,
            "pytorch_model.bin": torch_zip(folder / ".zip", make(mb)),
        }

    return _files(files)


def _onnx(make: Callable[[int], bytes]) -> Callable[[Path, int], None]:
    return _files(lambda _folder, mb: {"model.onnx": make(mb)})


def _tensor(dtype: str, shape: list[int]) -> bytes:
    return safetensors(json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, 4]}}).encode(), b"\1" * 4)


KINDS: dict[str, Callable[[Path, int], None]] = {
    "yaml-aliases": _files(lambda _f, _mb: {"modelium.yaml": yaml_aliases(), "serve_app.py": "app = 1\n"}),
    "yaml-merges": _files(lambda _f, _mb: {"modelium.yaml": yaml_merges(), "serve_app.py": "app = 1\n"}),
    "yaml-deep": _files(lambda _f, _mb: {"modelium.yaml": "args: " + "[" * 20_000}),
    "yaml-digits": _files(lambda _f, _mb: {"modelium.yaml": "args: {n: " + "9" * 50_000 + "}"}),
    "python-deep": _files(lambda _f, _mb: {"serve_app.py": "app = " + "(" * 50_000}),
    "pickle-long-name": _pickled(lambda _mb: pickle_of_a_long_name()),
    "pickle-lists": _pickled(pickle_of_lists),
    "pickle-calls": _pickled(lambda _mb: b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."),
    "pickle-cut": _pickled(lambda _mb: b"\x80\x02}q\x00("),
    "json-lists": _files(lambda _f, mb: model(json_of_lists(mb))),
    "json-deep": _files(lambda _f, mb: model("[" * (mb * MIB))),
    "json-digits": _files(lambda _f, _mb: model('{"hidden_size": ' + "9" * 4_000 + "}")),
    "json-surrogates": _config(architectures=["Bert\ud83dModel"], model_type="be\udc00rt"),
    "label-surrogate": _config(id2label={"0": "half \ud83d", "1": "whole"}),
    "labels-many": _files(lambda _f, mb: model({**BERT, "id2label": {str(n): f"label {n}" for n in range(mb * 20_000)}})),
    "label-long": _config(id2label={"0": "x" * MIB, "1": "y"}),
    "label-count": _config(num_labels=2**70),
    "class-name-long": _files(lambda _f, mb: model({**BERT, "architectures": ["B" * (mb * MIB)]})),
    "model-type-long": _files(lambda _f, mb: model({**BERT, "architectures": [], "model_type": "b" * (mb * MIB)})),
    "code-name-long": _files(
        lambda _f, mb: model({**BERT, "architectures": ["X"], "auto_map": {"AutoModel": "x.X" * (mb * MIB // 3)}})
    ),
    "width-huge": _config(architectures=["BertModel"], hidden_size=10**30),
    "llm-layers": _generator(num_hidden_layers=2**39),
    "llm-heads": _generator(num_attention_heads=2**39, num_key_value_heads=2**39, head_dim=2**39),
    "llm-context": _generator(max_position_embeddings=2**63),
    "stages-huge": _config(
        architectures=["SwinModel"], model_type="swin", embed_dim=10**3000, depths=[1] * 16, hidden_size=None
    ),
    "header-tensors": _weights(lambda mb: safetensors(header_of_tensors(mb * 20_000))),
    "header-metadata": _weights(lambda mb: safetensors(b'{"__metadata__":[' + b"[]," * (mb * MIB // 3) + b"[]]}")),
    "header-long": _weights(lambda _mb: struct.pack("<Q", 2**62) + b"{}"),
    "parameters-huge": _weights(lambda _mb: _tensor("X1", [2**40, 2**40])),
    "dtype-long": _weights(lambda mb: _tensor("X" * (mb * MIB), [1])),
    "tensor-name-long": _weights(lambda mb: safetensors(b'{"' + b"n" * (mb * MIB) + b'":1}')),
    "index-shards": _files(
        lambda _f, mb: {"config.json": json.dumps(BERT), "model.safetensors.index.json": index_of_shards(mb * 20_000)}
    ),
    "index-outside": _files(
        lambda _f, _mb: {
            "config.json": json.dumps(BERT),
            "model.safetensors.index.json": json.dumps({"weight_map": {"a": "../../../etc/passwd"}}),
        }
    ),
    "onnx-inputs": _onnx(lambda mb: onnx_of_inputs(mb * MIB // 20)),
    "onnx-empty-fields": _onnx(onnx_of_empty_fields),
    "skops-bomb": _files(lambda f, mb: {"model.skops": skops_bomb(f / ".zip", mb)}),
    "name-not-utf8": _odd_name,
    "link-outside": _link_out,
    "link-to-itself": _loop,
    "a-pipe": _pipe,
    "many-files": _many_files,
}
