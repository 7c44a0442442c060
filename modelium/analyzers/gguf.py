"""A GGUF model: a single file, or a folder whose weights are one GGUF file or one numbered set of them.

What enters: a candidate. What leaves: its ``ModelProfile``. Its path is the (first) GGUF file: that is what an engine is
given. ``library`` is ``gguf`` where the file is all there is, ``transformers`` where the original model's config.json lies
beside it: vLLM since 0.24 takes configuration and tokenizer from there. Whether the vLLM of this machine reads GGUF is not
decided here.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from modelium.analyzers.fingerprint import fingerprint_files, fingerprint_folder
from modelium.analyzers.folder import File, Folder, file_of
from modelium.analyzers.formats.gguf_header import GgufHeader, read_gguf
from modelium.analyzers.formats.json_text import JsonObject
from modelium.analyzers.language import read_language_model
from modelium.analyzers.model_config import ModelConfig, read_config
from modelium.analyzers.required_files import read_optional
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.analyzers.weights import join_missing
from modelium.values import (
    AttentionKind,
    Candidate,
    LanguageModel,
    LayerGroup,
    MissingPart,
    ModelOverride,
    ModelProfile,
    Task,
    WeightFormat,
)

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf", re.IGNORECASE)
_MOST_PARTS = 1000
# llama.cpp's names → transformers' classes, of those that vLLM's plugin is tested with or maps by the same names.
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "falcon": "FalconForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "bloom": "BloomForCausalLM",
    "command-r": "CohereForCausalLM",
    "deepseek2": "DeepseekV2ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "granite": "GraniteForCausalLM",
    "nemotron": "NemotronForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "glm4": "Glm4ForCausalLM",
    "gpt-oss": "GptOssForCausalLM",
}
_NOT_MODELS = {"clip": "the image projector of a multimodal model", "adapter": "a LoRA adapter in GGUF"}
_ENCODERS = ("bert", "t5", "embed")


def profile_gguf_file(candidate: Candidate, override: ModelOverride) -> ModelProfile:
    """A single ``NAME.gguf`` among others."""
    file = file_of(candidate.path, candidate.root)
    if _PART.fullmatch(file.name):
        raise Rejected(f"{file.name} is one part of a model", "put all its parts into one folder, with the model's config.json")
    return _profile(candidate, override, [file], fingerprint_files([file]), None)


def profile_gguf_folder(candidate: Candidate, override: ModelOverride, folder: Folder) -> ModelProfile | None:
    """The GGUF model of a folder; None where it holds no GGUF file that could be one."""
    found = [name for name in folder.named(".gguf", ".GGUF") if not name.lower().startswith("mmproj")]
    if not found:
        return None
    parts = _parts_of(folder, found)
    config = read_optional(folder, "config.json") if "config.json" in folder else None
    return _profile(candidate, override, parts, fingerprint_folder(folder, ""), config, folder)


def _parts_of(folder: Folder, found: list[str]) -> list[File]:
    """The one model that these files are. Quantizations of one model often lie side by side: which one is the user's to say."""
    match = _PART.fullmatch(found[0])
    if match is None:
        if len(found) > 1:
            raise Rejected(f"it has {len(found)} GGUF models: {', '.join(found[:3])} …", "drop the one to serve by itself")
        return [folder.files[found[0]]]
    total = int(match["total"])
    if not 0 < total <= _MOST_PARTS:
        raise Rejected(f"{found[0]} claims to be one of {total} parts", "copy the model again from its source")
    names = [f"{match['stem']}-{number:05d}-of-{match['total']}{found[0][-5:]}" for number in range(1, total + 1)]
    if strangers := [name for name in found if name not in names]:
        raise Rejected(f"it has {strangers[0]} beside {found[0]}", "drop the model to serve by itself")
    gaps = []
    for name in names:
        if name not in folder:
            copying = folder.in_flight.get(name)
            part = MissingPart(file=name, present_bytes=copying.size if copying else 0)
            gaps.append(NotYet(f"{name}: not there yet", part, hint_when_stale="copy the missing parts too"))
    if (unfinished := join_missing(gaps)) is not None:
        raise unfinished
    return [folder.files[name] for name in names]


def _profile(
    candidate: Candidate,
    override: ModelOverride,
    files: list[File],
    fingerprint: str,
    config: JsonObject | None,
    folder: Folder | None = None,
) -> ModelProfile:
    headers = _read_all(files)
    header = headers[0]
    kind = header.text("general.architecture")
    what = _NOT_MODELS.get(kind) or _NOT_MODELS.get(header.text("general.type"))
    if what is not None:
        raise Rejected(f"{files[0].name} is {what}, not a model", "drop the GGUF file of the model itself")
    if not kind or any(word in kind for word in _ENCODERS):
        raise Rejected(f"{files[0].name} holds a {kind or '?'} model, which generates no text", "drop its safetensors folder")
    if override.task not in (None, Task.TEXT_GENERATION):
        hint = f"remove models: {{{candidate.name}: {{task: …}}}}, or drop the model's safetensors folder"
        raise Rejected(f"a GGUF file is served for text-generation, not for {override.task}", hint)
    facts = read_config(config) if config else None
    elements: dict[str, int] = {}
    for each in headers:
        for word, count in each.elements.items():
            elements[word] = elements.get(word, 0) + count
    parameters, weight_bytes = sum(elements.values()), sum(each.data_bytes for each in headers)
    chat = "tokenizer.chat_template" in header.facts
    language = _language(header, kind)
    if config is not None and folder is not None:
        beside = _language_beside(config, folder, parameters, chat=chat)
        language = beside or language
    if language is not None:
        language = replace(language, chat_templates=header.templates())
    return ModelProfile(
        name=candidate.name,
        path=Path(files[0].path),
        task=Task.TEXT_GENERATION,
        library="gguf" if facts is None else "transformers",
        architecture=_architecture(facts, kind),
        model_type=facts.model_type if facts else kind,
        weight_format=WeightFormat.GGUF,
        parameters=parameters,
        weight_bytes=weight_bytes,
        weight_files=tuple(file.name for file in files),
        dtype=max(elements, key=lambda word: (elements[word], word), default="F32"),
        quantization="gguf",
        max_length=language.context_length if language else None,
        is_llm=True,
        language=language,
        task_source=f"general.architecture: {kind}",
        fingerprint=fingerprint,
    )


def _read_all(files: list[File]) -> list[GgufHeader]:
    headers: list[GgufHeader] = []
    unfinished: list[NotYet] = []
    for file in files:
        try:
            headers.append(read_gguf(file))
        except NotYet as short:
            unfinished.append(short)
    if (verdict := join_missing(unfinished)) is not None:
        raise verdict
    claimed = headers[0].facts.get("split.count")
    if isinstance(claimed, int) and claimed > len(files):
        raise Rejected(f"{files[0].name} is one of {claimed} parts", "put all its parts into one folder, under their own names")
    return headers


def _architecture(config: ModelConfig | None, kind: str) -> str:
    if config is not None and config.architectures:
        return config.architectures[0]
    return _CLASSES.get(kind, kind)


def _language_beside(config: JsonObject, folder: Folder, parameters: int, *, chat: bool) -> LanguageModel | None:
    """The original model's facts, with GGUF's quantization."""
    read = read_language_model(
        {key: value for key, value in config.items() if key != "quantization_config"},
        parameters=parameters,
        dtype="",
        tokenizer=read_optional(folder, "tokenizer_config.json"),
        generation=read_optional(folder, "generation_config.json"),
        has_chat_template=chat or "chat_template.jinja" in folder or "chat_template.json" in folder,
    )
    return None if read is None else replace(read, quantization="gguf")


def _language(header: GgufHeader, kind: str) -> LanguageModel | None:
    """What the file itself says of its decoder; None where it lacks what is needed."""

    def number(key: str) -> int | None:
        return header.number(f"{kind}.{key}")

    layers, width, heads = number("block_count"), number("embedding_length"), number("attention.head_count")
    if not (layers and width and heads):
        return None
    kv_heads = number("attention.head_count_kv") or heads
    head_size = number("attention.key_length") or width // heads
    latent, rotary = number("attention.kv_lora_rank"), number("rope.dimension_count") or 0
    if latent:
        group = LayerGroup(kind=AttentionKind.LATENT, layers=layers, latent_width=latent + rotary)
    else:
        group = LayerGroup(
            kind=AttentionKind.FULL,  # a sliding window is counted as full: GGUF does not say which layers have it
            layers=layers,
            kv_heads=kv_heads,
            head_size=head_size,
            value_head_size=number("attention.value_length") or head_size,
        )
    vocabulary = number("vocab_size") or header.lengths.get("tokenizer.ggml.tokens") or _rows(header, "token_embd.weight")
    return LanguageModel(
        layers=layers,
        hidden_size=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=vocabulary,
        groups=(group,),
        intermediate_size=number("feed_forward_length") or 0,
        attention="MLA" if latent else "MHA" if kv_heads == heads else "MQA" if kv_heads == 1 else "GQA",
        context_length=number("context_length"),
        experts=number("expert_count") or 0,
        experts_per_token=number("expert_used_count") or 0,
        dtype="float16",
        quantization="gguf",
        tied_embeddings="output.weight" not in header.shapes,
        chat_template="tokenizer.chat_template" in header.facts,
    )


def _rows(header: GgufHeader, tensor: str) -> int:
    shape = header.shapes.get(tensor, ())
    return shape[-1] if len(shape) == 2 else 0
