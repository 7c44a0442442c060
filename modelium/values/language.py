"""What a generator of text is: the facts that its memory plan and its requests depend on. Read from headers and JSON only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class AttentionKind(StrEnum):
    """What a layer remembers of the tokens before: that is what its cache costs.

    FULL keeps keys and values of every token (MHA, GQA and MQA differ in ``kv_heads`` alone), SLIDING those of the last
    ``window``, LATENT (MLA) one compressed vector a token, RECURRENT (Mamba, linear attention, short convolutions) a state of
    fixed size a sequence. CROSS looks at the encoder's output, whose length is the input's. NONE remembers nothing.
    """

    FULL = "full"
    SLIDING = "sliding"
    LATENT = "latent"
    RECURRENT = "recurrent"
    CROSS = "cross"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """``layers`` equal decoder layers. Widths are in elements, ``state_bytes`` is per layer and sequence.

    ``head_size`` is the keys' (and the values', unless ``value_head_size`` says otherwise). ``latent_width`` is MLA's
    ``kv_lora_rank + qk_rope_head_dim``; ``compression`` tokens share one such vector (DeepSeek V4). ``state_bytes`` holds for
    the model's dtype; ``state_elements`` are what it counts, where an engine keeps them in another one (vLLM on CPUs with
    bfloat16 instructions: float32).
    """

    kind: AttentionKind
    layers: int
    kv_heads: int = 0
    head_size: int = 0
    value_head_size: int = 0
    latent_width: int = 0
    compression: int = 1
    window: int | None = None
    state_bytes: int = 0
    state_elements: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter folder. ``name`` is its served name; with its base it is called ``BASE:NAME``. ``base`` is what its
    ``base_model_name_or_path`` says.
    """

    name: str
    path: Path
    rank: int
    base: str = ""
    target_modules: tuple[str, ...] = ()
    weight_bytes: int = 0
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """The decoder of a model that generates text (of a multimodal one: its text part).

    ``parameters`` of the profile is the total; ``active_parameters`` is what one token passes through (fewer in a mixture of
    experts). ``context_length`` is in tokens, rope scaling included; None when nothing limits it. ``dtype`` is what the engine
    will compute in (``bfloat16``); ``quantization`` is the method's name in vLLM (``awq``, ``gptq``, ``fp8``,
    ``compressed-tensors``, ``bitsandbytes``, ``mxfp4``, ``gguf``) or "". ``chat_templates`` are those that lie in the weights'
    own file, by name; those in files beside it win, and are read when they are needed.
    """

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    groups: tuple[LayerGroup, ...]
    intermediate_size: int = 0
    attention: str = "MHA"  # MHA · GQA · MQA · MLA · none, in words for the user
    context_length: int | None = None
    rope_scaling: str = ""  # "yarn ×4 of 32768", "" when none
    experts: int = 0
    experts_per_token: int = 0
    active_parameters: int = 0
    dtype: str = "bfloat16"
    quantization: str = ""
    quantization_bits: int = 0
    tied_embeddings: bool = False
    encoder_decoder: bool = False
    modalities: tuple[str, ...] = ()  # what it takes besides text: "image", "video", "audio"
    chat_template: bool = False
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    generation_defaults: Mapping[str, JsonValue] = field(default_factory=dict)  # generation_config.json's sampling
    adapters: tuple[Adapter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """One number of an engine's plan and why it is that: ``max_model_len · 8192 · …``."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """How vLLM is to be started. Bytes are per device.

    ``engine_args``: everything of ``model.json`` but ``model``, all of them fields of vLLM's ``AsyncEngineArgs``.
    ``kv_bytes`` is the cache's budget, ``kv_tokens`` how many tokens it holds. ``devices``: ids of all devices, one per
    tensor-parallel rank; ``gpus``: their ordinals on their node, none for the host. ``adapters`` are served with it.
    ``max_model_len`` is the context that is served, ``full_context`` the one that would be if memory were no matter: what the
    user set, or the model's own.
    """

    engine_args: Mapping[str, JsonValue]
    devices: tuple[str, ...]
    max_model_len: int
    max_num_seqs: int
    weight_bytes: int
    kv_bytes: int
    kv_bytes_per_token: int
    kv_tokens: int
    activation_bytes: int
    graph_bytes: int
    overhead_bytes: int
    lines: tuple[PlanLine, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    gpus: tuple[int, ...] = ()
    full_context: int = 0  # 0: of a plan that does not say it

    @property
    def is_shortened(self) -> bool:
        """Is the context less than the model's, because no more fits?"""
        return self.max_model_len < self.full_context

    @property
    def total_bytes(self) -> int:
        """On each device."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes + self.graph_bytes + self.overhead_bytes
