"""Says which tensors each collected model's files hold, by building the model from its configuration without memory.

    .runtime/bin/python scripts/derive_tensors.py [NAME …]

What enters: ``tests/data/published/*.json``, each with a published ``config``. What leaves: the same files with their
``tensors``, compact: ``model.layers.{0-27}.mlp.up_proj.weight BF16 3072x1024``. It runs in the model runtime (torch and
transformers), once for each model: the tests need neither. ``stored`` says what the published files have besides the class:

- ``head``: a tied head that is stored all the same (true), ``drop``: a pattern of what the files lack, ``dtype``, ``prefix``.
- ``copies`` ("model.layers.60." → "model.layers.61.") and ``extra`` ("NAME DTYPE 7168x14336"): what the class does not have,
  such as layers that predict more than one token.
- ``class`` and ``model_type``: those of transformers that the model's own are equal to, where transformers lacks them.
- quantized weights are laid out as ``quantization_config`` says; ``plain`` is a pattern of the matrices that are not.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "published"
WORDS = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
NEVER_PACKED = (
    r"lm_head|shared_head|embed|router|\bgate\.|\bwte\b|vision|visual|norm|score|classifier|shared_expert_gate|eh_proj"
    r"|indexer\.weights_proj"
)

Tensor = tuple[str, tuple[int, ...]]  # dtype, shape


def build(entry: dict[str, Any]) -> dict[str, Tensor]:
    """Names, dtypes and shapes of the model's state, as its published files name them."""
    source = copy.deepcopy(entry["config"])
    stored = entry.get("stored", {})
    for part in (source, source.get("text_config") or {}):
        part.pop("quantization_config", None)
        part.pop("auto_map", None)
    source["model_type"] = stored.get("model_type") or source["model_type"]
    config = transformers.AutoConfig.for_model(**source)
    cls = getattr(transformers, stored.get("class") or source["architectures"][0])
    parts = (source, source.get("text_config") or {}, (source.get("thinker_config") or {}).get("text_config") or {})
    said = [part.get(key) for part in parts for key in ("torch_dtype", "dtype") if part.get(key)]
    word = str(stored.get("dtype") or next(iter(said), "float32"))
    dtype = getattr(torch, word.removeprefix("torch."))
    config.dtype = dtype
    with torch.device("meta"):
        model = cls(config)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    state = dict(model.state_dict())
    if not stored.get("head"):
        for tied in getattr(model, "all_tied_weights_keys", None) or {}:
            state.pop(tied, None)
    state = {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    if not stored.get("as_class"):
        state = revert_weight_conversion(model, state)
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        kept = dtype if tensor.dtype.is_floating_point else tensor.dtype
        found[stored.get("prefix", "") + name] = (WORDS[kept], tuple(tensor.shape))
    for old, new in stored.get("copies", []):
        found |= {new + name.removeprefix(old): tensor for name, tensor in found.items() if name.startswith(old)}
    for line in stored.get("extra", []):
        name, kept, dims = line.split()
        found[name] = (kept, tuple(int(dim) for dim in dims.split("x")))
    if drop := stored.get("drop"):
        found = {name: tensor for name, tensor in found.items() if not re.search(drop, name)}
    return found


def quantize(entry: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with its matrices packed as ``quantization_config`` says."""
    source = entry["config"]
    how = source.get("quantization_config") or (source.get("text_config") or {}).get("quantization_config")
    if not how:
        return state
    never = "|".join([NEVER_PACKED, *([entry["stored"]["plain"]] if entry.get("stored", {}).get("plain") else [])])
    found: dict[str, Tensor] = {}
    for name, (word, shape) in state.items():
        fused = bool(re.search(r"experts\.(gate_up_proj|down_proj)$", name))
        matrix = len(shape) == 2 and name.endswith(".weight") and not re.search(never, name)
        matrix = matrix and how.get("quant_method") != "mxfp4"
        if not (matrix or fused):
            found[name] = (word, shape)
            continue
        found.update(pack(how, name, shape))
    return found


def pack(how: dict[str, Any], name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Tensor]]:
    method, stem = how.get("quant_method"), name.removesuffix(".weight")
    out, width = shape[-2], shape[-1]
    if method == "fp8":
        yield name, ("F8_E4M3", shape)
        block = how.get("weight_block_size")
        if block:
            yield f"{name}_scale_inv", ("F32", (-(-out // block[0]), -(-width // block[1])))
        else:
            yield f"{name}_scale", ("F32", (1,))
            yield f"{stem}.input_scale", ("F32", (1,))
    elif method == "modelopt" and how.get("quant_algo") == "FP8":
        yield name, ("F8_E4M3", shape)
        yield f"{stem}.weight_scale", ("F32", ())
        yield f"{stem}.input_scale", ("F32", ())
    elif method == "modelopt":  # NVFP4
        yield name, ("U8", (out, width // 2))
        yield f"{stem}.weight_scale", ("F8_E4M3", (out, width // 16))
        yield f"{stem}.weight_scale_2", ("F32", ())
        yield f"{stem}.input_scale", ("F32", ())
    elif method == "awq":
        per, group = 32 // how["bits"], how["group_size"]
        yield f"{stem}.qweight", ("I32", (width, out // per))
        yield f"{stem}.qzeros", ("I32", (width // group, out // per))
        yield f"{stem}.scales", ("F16", (width // group, out))
    elif method == "gptq":
        per, group = 32 // how["bits"], how["group_size"]
        yield f"{stem}.qweight", ("I32", (width // per, out))
        yield f"{stem}.qzeros", ("I32", (-(-width // group), out // per))
        yield f"{stem}.scales", ("F16", (-(-width // group), out))
        yield f"{stem}.g_idx", ("I32", (width,))
    elif method == "mxfp4":  # the class has its experts transposed
        experts = shape[0]
        yield f"{name}_blocks", ("U8", (experts, width, out // 32, 16))
        yield f"{name}_scales", ("U8", (experts, width, out // 32))
    elif method == "bitsandbytes" and how.get("load_in_4bit"):
        count = out * width
        yield name, ("U8", (count // 2, 1))
        yield f"{name}.absmax", ("U8", (count // 64,))
        yield f"{name}.quant_map", ("F32", (16,))
        yield f"{name}.nested_absmax", ("F32", (-(-count // 64 // 256),))
        yield f"{name}.nested_quant_map", ("F32", (256,))
        yield f"{name}.quant_state.bitsandbytes__nf4", ("U8", (90,))
    elif method == "bitsandbytes":
        yield name, ("I8", shape)
        yield f"{stem}.SCB", ("F32", (out,))
    elif method == "compressed-tensors":
        weights = next(iter(how["config_groups"].values()))["weights"]
        if weights["num_bits"] == 4 and weights.get("type") == "int":
            group = weights.get("group_size") or width
            yield f"{stem}.weight_packed", ("I32", (out, width // 8))
            yield f"{stem}.weight_scale", ("BF16", (out, width // group))
            yield f"{stem}.weight_shape", ("I64", (2,))
        else:
            yield name, ("F8_E4M3" if weights.get("type") == "float" else "I8", shape)
            yield f"{stem}.weight_scale", ("BF16", (out, 1))
    else:
        raise SystemExit(f"no layout is known for {method}")


def compress(state: dict[str, Tensor]) -> list[str]:
    """One line for all tensors of a shape whose names differ in numbers alone."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[tuple[int, ...]]] = defaultdict(list)
    for name, (word, shape) in state.items():
        parts = name.split(".")
        template = ".".join("#" if part.isdigit() else part for part in parts)
        groups[template, word, shape].append(tuple(int(part) for part in parts if part.isdigit()))
    lines = []
    for (template, word, shape), found in groups.items():
        dims = "x".join(map(str, shape))
        for product in products(found):
            first, *rest = template.split("#")
            name = first + "".join(spell(numbers) + text for numbers, text in zip(product, rest, strict=True))
            lines.append(f"{name} {word} {dims if shape else '-'}")
    return lines


def products(numbers: list[tuple[int, ...]]) -> Iterator[list[list[int]]]:
    """The set as few products of sets: whole, or by its first number."""
    columns = [sorted(set(column)) for column in zip(*numbers, strict=True)]
    if len(set(numbers)) == len(list(itertools.product(*columns))):
        yield columns
        return
    by_rest: dict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
    by_first: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for first, *rest in numbers:
        by_first[first].append(tuple(rest))
    for first, rests in by_first.items():
        by_rest[tuple(sorted(rests))].append(first)
    for same, firsts in by_rest.items():
        for inner in products(list(same)):
            yield [sorted(firsts), *inner]


def spell(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    if len(found) == 1:
        return str(found[0])
    spans = []
    for _, run in itertools.groupby(enumerate(found), lambda pair: pair[1] - pair[0]):
        values = [value for _, value in run]
        spans.append(f"{values[0]}-{values[-1]}" if len(values) > 1 else f"{values[0]}")
    return "{" + ",".join(spans) + "}"


def main(names: list[str]) -> None:
    logging.disable(logging.WARNING)
    for path in sorted(FOLDER.glob("*.json")):
        entry = json.loads(path.read_text())
        if (names and path.stem not in names) or (not names and entry.get("tensors")):
            continue
        try:
            state = quantize(entry, build(entry))
        except Exception as error:  # one bad configuration must not hide the others
            print(f"{path.stem}: {type(error).__name__}: {str(error)[:200]}")
            continue
        entry["tensors"] = compress(state)
        path.write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n")
        count = sum(torch.Size(shape).numel() for _, shape in state.values())
        print(f"{path.stem}: {len(state):,} tensors, {count:,} elements, {len(entry['tensors'])} lines")


if __name__ == "__main__":
    main(sys.argv[1:])
