"""What vLLM itself reads from a config.json, without weights and without an engine. For the model runtime's environment.

What enters: ``{name: config}``. What leaves: ``{name: {layers, heads, kv_heads, head_size, vocabulary, hidden_size, experts,
context}}``, or ``{name: {error}}`` where vLLM or transformers refuses the config.
"""

from __future__ import annotations

import logging

from transformers import CONFIG_MAPPING
from vllm.config.model import _get_and_verify_max_len
from vllm.transformers_utils import model_arch_config_convertor as convertors
from vllm.transformers_utils.config import get_hf_text_config, patch_rope_parameters


def view(configs: dict[str, dict]) -> dict[str, dict]:
    """What vLLM finds in each config."""
    logging.disable(logging.WARNING)
    seen: dict[str, dict] = {}
    for name, source in configs.items():
        try:
            seen[name] = _look(source)
        except Exception as error:  # the other configs count all the same
            seen[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    return seen


def _look(source: dict) -> dict:
    config = CONFIG_MAPPING[source["model_type"]].from_dict(source)
    text = get_hf_text_config(config)
    patch_rope_parameters(text)
    kind = convertors.MODEL_ARCH_CONFIG_CONVERTORS.get(config.model_type, convertors.ModelArchConfigConvertorBase)
    found = kind(config, text).convert()
    quantization = found.quantization_config or {}
    return {
        "layers": found.total_num_hidden_layers,
        "heads": found.total_num_attention_heads,
        "kv_heads": 1 if found.is_deepseek_mla else found.total_num_kv_heads,
        "head_size": found.head_size,
        "vocabulary": found.vocab_size,
        "hidden_size": found.hidden_size,
        "experts": found.num_experts,
        "quantization": quantization.get("quant_method", ""),
        "context": _get_and_verify_max_len(text, found, None, 10**9 if _unlimited(found) else -1, False, None),
    }


def _unlimited(found: object) -> bool:
    return found.derived_max_model_len_and_key[1] is None
