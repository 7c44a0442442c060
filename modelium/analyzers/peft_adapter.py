"""A PEFT adapter folder: ``adapter_config.json`` and its weights, without those of a base model.

What enters: a candidate and its folder. What leaves: an ``AdapterProfile``, or ``NotYet`` (a copy under way) / ``Rejected``
with what vLLM cannot do with it. To which model it belongs is not decided here.
"""

from __future__ import annotations

from modelium.analyzers.fingerprint import fingerprint_folder
from modelium.analyzers.folder import Folder
from modelium.analyzers.formats.json_text import JsonObject, integer, nested, read_object, text, texts
from modelium.analyzers.formats.safetensors_header import read_header
from modelium.analyzers.formats.tensor_tally import TensorTally
from modelium.analyzers.formats.torch_zip import read_torch_file
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.names import served_name
from modelium.values import Adapter, AdapterProfile, Candidate, MissingPart

CONFIG = "adapter_config.json"
LARGEST_RANK = 512  # vLLM's, 0.13 to 0.33
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MODELS = ("model.safetensors", "model-", "pytorch_model.bin", "pytorch_model-")
_MERGE = "merge it into its base model (merge_and_unload) and drop the result of save_pretrained()"
# These only set the first values of the weights; every other initialization has changed the base model's own.
_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_UNSERVED_SWITCHES = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "lora_bias": "LoRA with a bias",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
}


def is_adapter(folder: Folder) -> bool:
    """Some tools leave an ``adapter_config.json`` beside the merged model: that is a model."""
    return CONFIG in folder and not any(name.startswith(_MODELS) for name in (*folder.names(), *folder.in_flight))


def profile_adapter(candidate: Candidate, folder: Folder) -> AdapterProfile:
    """The LoRA adapter in ``folder``."""
    config = read_object(folder, CONFIG)
    _refuse_what_vllm_lacks(config)
    rank = _rank_of(config)
    name, tally = _read_weights(folder)
    if not any(".lora_" in tensor for tensor in tally.tensors):
        raise Rejected(f"{name} has no LoRA tensors", "copy the adapter again from its source")
    fingerprint = fingerprint_folder(folder, "")
    adapter = Adapter(
        name=adapter_name(candidate),
        path=candidate.path,
        rank=rank,
        base=text(config, "base_model_name_or_path"),
        target_modules=texts(config, "target_modules") or tuple(filter(None, (text(config, "target_modules"),))),
        weight_bytes=tally.data_bytes,
        fingerprint=fingerprint,
    )
    return AdapterProfile(name=candidate.name, path=candidate.path, adapter=adapter, fingerprint=fingerprint)


def adapter_name(candidate: Candidate) -> str:
    """Its folder's served name; of a folder called ``BASE:ADAPTER`` the part behind the colon."""
    _, colon, name = candidate.label.rpartition(":")
    return served_name(name) if colon and name else candidate.name


def _refuse_what_vllm_lacks(config: JsonObject) -> None:
    kind = text(config, "peft_type")
    if kind.upper() != "LORA":
        named = f"a {kind} adapter" if kind else "an adapter of a kind that its adapter_config.json does not say"
        raise Rejected(f"this is {named}; only LoRA adapters are served", _MERGE)
    for key, words in _UNSERVED_SWITCHES.items():
        if config.get(key):
            raise Rejected(f"this adapter uses {words} ({key}), which vLLM does not serve", _MERGE)
    if text(config, "bias") not in ("", "none"):
        raise Rejected(f"this adapter trains biases (bias: {text(config, 'bias')}), which vLLM does not serve", _MERGE)
    saved = [module for module in texts(config, "modules_to_save") if module not in ("classifier", "score")]
    if saved:
        raise Rejected(f"this adapter replaces whole modules ({', '.join(saved[:3])}), which vLLM does not serve", _MERGE)
    start = text(config, "init_lora_weights")
    if start and start.lower() not in _HARMLESS_STARTS:
        raise Rejected(f"this adapter began with {start}, which changed its base model's own weights", _MERGE)


def _rank_of(config: JsonObject) -> int:
    """The largest, where modules differ."""
    each = [value for value in nested(config, "rank_pattern").values() if isinstance(value, int)]
    rank = max([integer(config, "r") or 0, *each])
    if rank < 1:
        raise Rejected(f"{CONFIG} says no rank (r)", "copy the adapter again from its source")
    if rank > LARGEST_RANK:
        raise Rejected(f"this adapter has rank {rank}; vLLM serves up to {LARGEST_RANK}", _MERGE)
    return rank


def _read_weights(folder: Folder) -> tuple[str, TensorTally]:
    for name, read in zip(_WEIGHTS, (read_header, read_torch_file), strict=True):
        if name in folder:
            return name, read(folder.files[name])
    parts = [
        MissingPart(file=name, present_bytes=folder.in_flight[name].size if name in folder.in_flight else 0)
        for name in _WEIGHTS
        if name in folder.in_flight or name == _WEIGHTS[0]
    ]
    raise NotYet(f"{_WEIGHTS[0]}: not there yet", *parts, hint_when_stale=f"copy {_WEIGHTS[0]} into the folder too")
