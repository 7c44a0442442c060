"""A folder → a model on its device, its tokenizer, its processors. Nothing from the folder is executed unless allowed.

What enters: ``Settings``. What leaves: transformers objects, ready for inference. A folder whose weights are not what its
config says is refused here, with the tensors' names, instead of answering with random weights.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from .batching import Text
from .contract import Settings
from .onnx_weights import OnnxModel
from .sharing import weights_from_memory

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# Tensors that checkpoints commonly lack and that inference does not use, or that are computed.
_HARMLESS = re.compile(r"pooler|masked_spec_embed|position_ids|embed_positions|inv_freq|rotary|mask_token|num_batches_tracked")


def load_model(settings: Settings, auto_class: str) -> Any:
    """The weights of ``settings.model_path`` in the class that ``auto_class`` (``AutoModelFor…``) picks.

    A ``PreTrainedModel``, or for an ONNX graph what stands for one.
    """
    folder = _folder_of(settings)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=settings.custom_code)
    if settings.onnx_file:
        return OnnxModel(folder / settings.onnx_file, config, settings.device)
    with weights_from_memory():
        model, info = _class_for(config, auto_class).from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=settings.custom_code,
            weights_only=True,
            use_safetensors=not settings.pickled,
            dtype=torch.float32 if settings.device == "cpu" else "auto",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with the tensors' names, which the exception would not have
        )
    for name, found, wanted in sorted(info["mismatched_keys"]):
        raise RuntimeError(f"{name} is {_shape(found)} in the weights of {folder}, but {_shape(wanted)} by its config.json")
    missing = sorted(name for name in info["missing_keys"] if not _HARMLESS.search(name))
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise RuntimeError(f"the weights in {folder} lack tensors that {type(model).__name__} needs: {shown}")
    model.modelium_missing = frozenset(info["missing_keys"])
    return _own(model.eval().requires_grad_(False).to(settings.device), folder)


def _folder_of(settings: Settings) -> Path:
    """Raises ``RuntimeError`` when it is not there: transformers would take its path for the name of a repository."""
    folder = Path(settings.model_path)
    if not folder.is_dir():
        raise RuntimeError(
            f"the model's folder {folder} is not there; if Triton sees it elsewhere, set triton.path_mapping in modelium.yaml"
        )
    return folder


def load_text_model(settings: Settings, auto_class: str) -> tuple[Any, Text]:
    """A model and how it is given texts. The weights are brought to memory meanwhile, so what does not need them goes first."""
    tokenizer = load_processor(settings, "AutoTokenizer")
    model = load_model(settings, auto_class)
    return model, Text.of(tokenizer, settings, model)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """A file of tensors, read and not mapped: see ``_own``."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load

        return load(file.read_bytes())
    return torch.load(file, map_location="cpu", weights_only=True, mmap=False)


def _own(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Copy the weights that are the file's own pages, as those that are used in the file's dtype on the CPU are.

    Who writes over a mapped file changes the model that serves, and who cuts it ends its process (SIGBUS at the next request).
    """
    mapped = _mapped_ranges(folder)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and any(start <= tensor.data_ptr() < end for start, end in mapped):
            tensor.data = tensor.data.clone()
    return model


def _mapped_ranges(folder: Path) -> list[tuple[int, int]]:
    """Where this process has files of the folder in its memory. A cache's files are links to blobs elsewhere."""
    files = {os.fsencode(os.path.realpath(path)) for path in folder.rglob("*")}
    ranges = []
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5].removesuffix(b" (deleted)") in files:
            start, end = words[0].split(b"-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges


def load_processor(settings: Settings, auto_class: str) -> Any:
    """``AutoTokenizer``, ``AutoImageProcessor``, ``AutoFeatureExtractor`` or ``AutoProcessor`` of the folder."""
    _folder_of(settings)
    options = {"use_fast": True} if auto_class == "AutoTokenizer" else {}
    kind = getattr(transformers, auto_class)
    loaded = kind.from_pretrained(settings.model_path, local_files_only=True, trust_remote_code=settings.custom_code, **options)
    if not settings.custom_code:
        _forget_words(getattr(loaded, "tokenizer", loaded))
    return loaded


def _forget_words(tokenizer: Any) -> None:
    """A fast tokenizer has its words itself. transformers' classes keep what they made it of (MiniLM: 3 MiB), and read that
    again only to save it."""
    if isinstance(getattr(tokenizer, "_tokenizer", None), tokenizers.Tokenizer):
        for name in ("_vocab", "_merges", "_vocab_scores"):
            vars(tokenizer).pop(name, None)


def read_object(folder: str, name: str) -> dict[str, Any]:
    """A JSON file of the folder; empty where it is not there."""
    file = Path(folder) / name
    value = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return value if isinstance(value, dict) else {}


def _class_for(config: Any, auto_class: str) -> Any:
    """The auto class, except for encoders of encoder-decoders (sentence-t5), which ``AutoModel`` would load in full."""
    named = (getattr(config, "architectures", None) or [""])[0]
    if auto_class == "AutoModel" and named.endswith("EncoderModel") and hasattr(transformers, named):
        return getattr(transformers, named)
    return getattr(transformers, auto_class)


def move(inputs: dict[str, torch.Tensor], model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Inputs on the model's device; floating ones in its dtype."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor)
    }


def _shape(shape: Any) -> str:
    return "×".join(str(size) for size in shape)
