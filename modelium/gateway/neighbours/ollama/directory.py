"""Ollama's lists: ``/api/tags``, ``/api/ps``, ``/api/show``. What models are leaves, in the words of its clients."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from modelium.gateway.openai.directory import Directory
from modelium.gateway.openai.reasoning import reasons
from modelium.gateway.openai.template_files import ChatFormat
from modelium.values import ModelProfile, ModelStatus

Json = dict[str, object]

_NEVER = "9999-12-31T23:59:59Z"  # a model is unloaded when its room is needed, not at a time
_DIGEST_LETTERS = 64


async def tags(directory: Directory) -> Json:
    """Every model that can be served."""
    statuses = await directory.servable()
    changed = await asyncio.to_thread(lambda: [_changed_at(status) for status in statuses])
    return {"models": [_tag(status, at) for status, at in zip(statuses, changed, strict=True)]}


async def running(directory: Directory) -> Json:
    """Those that occupy memory."""
    shown = []
    for status in await directory.servable():
        if not status.state.serves:
            continue
        placement = status.placement
        size = status.held_bytes if status.held_bytes is not None else status.promised_bytes
        engine = placement.engine if placement is not None else None
        on_gpu = placement is not None and placement.device_index >= 0
        tag = _tag(status, _NEVER)
        del tag["modified_at"]
        length = engine.max_model_len if engine is not None else _profile(status).max_length
        shown.append(
            tag | {"size": size, "size_vram": size if on_gpu else 0, "expires_at": _NEVER, "context_length": length or 0}
        )
    return {"models": shown}


async def show(directory: Directory, status: ModelStatus) -> Json:
    """One model."""
    profile = _profile(status)
    form = await directory.chat_format(profile)
    changed = await asyncio.to_thread(_changed_at, status)
    defaults = profile.language.generation_defaults if profile.language is not None else {}
    template = form.template(tools=False) or "{{ .Prompt }}"
    return {
        "license": "",
        "modelfile": f"# served by Modelium from {status.name}",
        "parameters": "\n".join(f"{name} {value}" for name, value in defaults.items() if isinstance(value, int | float)),
        "template": template,
        "details": _details(profile),
        "model_info": _facts(profile),
        "capabilities": _capabilities(profile, form),
        "modified_at": changed,
    }


def _capabilities(profile: ModelProfile, form: ChatFormat) -> list[str]:
    """Ollama's words; ``[]`` for models that none of its routes asks."""
    row, language = profile.task.row, profile.language
    if row.embeds_texts:
        return ["embedding"]
    if not row.generates:
        return []
    found = ["completion"]
    template = form.template(tools=True) or ""
    if "tools" in template:
        found.append("tools")
    if row.takes_images or (language is not None and "image" in language.modalities):
        found.append("vision")
    if template and reasons(template):
        found.append("thinking")
    return found


def _tag(status: ModelStatus, changed: str) -> Json:
    profile = _profile(status)
    return {
        "name": status.name,
        "model": status.name,
        "modified_at": changed,
        "size": profile.weight_bytes,
        "digest": profile.fingerprint.ljust(_DIGEST_LETTERS, "0")[:_DIGEST_LETTERS],
        "details": _details(profile),
    }


def _details(profile: ModelProfile) -> Json:
    family = profile.model_type or profile.library
    return {
        "parent_model": "",
        "format": str(profile.weight_format.value),
        "family": family,
        "families": [family],
        "parameter_size": _in_words(profile.parameters),
        "quantization_level": profile.quantization or profile.dtype,
    }


def _facts(profile: ModelProfile) -> Json:
    """As the header of a GGUF file names them: that is what clients look for."""
    family = profile.model_type or profile.library
    facts: Json = {"general.architecture": family, "general.parameter_count": profile.parameters}
    if profile.max_length is not None:
        facts[f"{family}.context_length"] = profile.max_length
    if profile.embedding_width is not None:
        facts[f"{family}.embedding_length"] = profile.embedding_width
    if (language := profile.language) is not None:
        facts[f"{family}.embedding_length"] = language.hidden_size
        facts[f"{family}.block_count"] = language.layers
        facts[f"{family}.attention.head_count"] = language.heads
        facts[f"{family}.attention.head_count_kv"] = language.kv_heads
        facts[f"{family}.vocab_size"] = language.vocabulary
    return facts


def _in_words(parameters: int) -> str:
    """
    >>> _in_words(7_241_732_096), _in_words(22_713_216), _in_words(0)
    ('7.2B', '22.7M', '0')
    """
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if parameters >= size:
            return f"{parameters / size:.1f}{letter}"
    return str(parameters)


def _changed_at(status: ModelStatus) -> str:
    try:
        changed = status.path.stat().st_mtime
    except OSError:
        return datetime.now(UTC).isoformat()
    return datetime.fromtimestamp(changed, UTC).isoformat()


def _profile(status: ModelStatus) -> ModelProfile:
    assert status.profile is not None, "a servable model has one"
    return status.profile
