"""A language model and its engine's plan for people: what the gateway says about them enters, rows and a table leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import RenderableType
from rich.text import Text

from modelium import views
from modelium.cli.terminal import columns
from modelium.sizes import human_bytes


def language_rows(language: views.Language) -> dict[str, str]:
    """What is known of it, as rows of a table; what is not known or not so is left out."""
    rows = {
        "attention": _attention(language),
        "layers": ", ".join(_group(group) for group in language.layer_groups) or str(language.layers),
        "KV cache": _cache(language),
        "context": _context(language),
        "experts": _experts(language),
        "computes in": language.dtype,
        "quantized": language.quantization + (f", {language.quantization_bits} bits" if language.quantization_bits else "")
        if language.quantization
        else "",
        "vocabulary": f"{language.vocabulary:,}" + (", tied embeddings" if language.tied_embeddings else ""),
        "takes": " and ".join(("text", *language.modalities)) if language.modalities else "",
        "chat template": "yes" if language.chat_template else "none",
        "its own defaults": _defaults(language.generation_defaults),
        "adapters": "\n".join(_adapter(adapter) for adapter in language.adapters),
    }
    return {name: value for name, value in rows.items() if value}


def plan_table(lines: Iterable[views.PlanLine]) -> RenderableType:
    """Every number of the plan and why it is that."""
    table = columns("engine", "planned")
    table.add_column("why", overflow="fold")
    for line in lines:
        table.add_row(Text(line.name), Text(line.value), Text(line.reason))
    return table


def _attention(language: views.Language) -> str:
    if not language.heads:
        return language.attention
    heads = f"{language.heads} heads of {language.head_size}"
    if language.kv_heads and language.kv_heads != language.heads:
        heads += f", {language.kv_heads} for keys and values"
    return f"{language.attention}: {heads}" + (", after an encoder" if language.encoder_decoder else "")


def _group(group: views.LayerGroup) -> str:
    match group.kind:
        case "sliding" if group.window:
            return f"{group.layers} sliding over {group.window:,} tokens"
        case "latent":
            of = f", one for {group.compression} tokens" if group.compression > 1 else ""
            return f"{group.layers} latent, {group.latent_width} wide{of}"
        case "recurrent":
            return f"{group.layers} recurrent, {human_bytes(group.state_bytes)} a request"
        case "none":
            return f"{group.layers} without memory"
    return f"{group.layers} {group.kind}"


def _cache(language: views.Language) -> str:
    if language.kv_bytes_per_token:
        return f"{language.kv_bytes_per_token:,} bytes a token in {language.dtype}"
    return "nothing a token" if language.layer_groups else ""


def _context(language: views.Language) -> str:
    if language.context_length is None:
        return "not limited"
    return f"{language.context_length:,} tokens" + (f" ({language.rope_scaling})" if language.rope_scaling else "")


def _experts(language: views.Language) -> str:
    if not language.experts:
        return ""
    active = f", {language.active_parameters:,} parameters active" if language.active_parameters else ""
    return f"{language.experts}, {language.experts_per_token} for each token{active}"


def _defaults(defaults: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in defaults.items() if value is not None)


def _adapter(adapter: views.Adapter) -> str:
    return f"{adapter.name}: rank {adapter.rank}" + (f", made for {adapter.base}" if adapter.base else "")
