"""A Llama that chats, a GPT-2, a Mixtral and a DeepSeek that recite. Runs in the model runtime.

Head sizes are 32 and up, and DeepSeek's latent is as wide as the real one's (512 + 64): vLLM has no other kernels for the CPU.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tests.models.common import Reference, save
from tests.models.language.adapter import write_adapter
from tests.models.language.corpus import CHATS, PARAGRAPH, SAYINGS
from tests.models.language.writing import (
    CONTEXT,
    continuation,
    conversation,
    document,
    learn_model,
    reply,
    set_generation_config,
    special_ids,
    train_tokenizer,
)


def make_llama(folder: Path, files: Path) -> Reference:
    """Two layers, four heads on two KV heads: recites, chats, calls functions. Its adapter is made beside it."""
    torch.manual_seed(21)
    tokenizer = train_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=CONTEXT, initializer_range=0.08,
        tie_word_embeddings=False, **special_ids(tokenizer),
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    rows = [document(tokenizer, text) for text in (PARAGRAPH, *SAYINGS)]
    rows += [conversation(tokenizer, chat) for chat in CHATS]
    learn_model(model, rows, steps=260, rate=6e-3)
    set_generation_config(model, tokenizer)
    save(folder, model, tokenizer)
    cases = _recite(model, tokenizer) + [reply(model, tokenizer, chat) for chat in CHATS]
    write_adapter(folder, model, tokenizer)
    return {"task": "text-generation", "cases": cases}


def make_gpt2(folder: Path, files: Path) -> Reference:
    """Learnt positions, tied embeddings, no chat template: a plain writer."""
    torch.manual_seed(22)
    tokenizer = train_tokenizer()
    tokenizer.chat_template = None
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=96, n_layer=2, n_head=3, n_positions=CONTEXT, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, **special_ids(tokenizer),
    )  # fmt: skip
    return _make_writer(folder, GPT2LMHeadModel(config), tokenizer, steps=120, rate=8e-3)


def make_mixture(folder: Path, files: Path) -> Reference:
    """Mixtral: four experts, two a token."""
    torch.manual_seed(23)
    tokenizer = train_tokenizer()
    config = MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=CONTEXT,
        initializer_range=0.08, sliding_window=None, **special_ids(tokenizer),
    )  # fmt: skip
    return _make_writer(folder, MixtralForCausalLM(config), tokenizer, steps=120, rate=6e-3)


def make_latent(folder: Path, files: Path) -> Reference:
    """DeepSeek-V2: multi-head latent attention; the second layer has four experts, two a token, and a shared one.

    Its positions are stretched as in all published DeepSeeks; without that, vLLM 0.32 on the CPU takes another path, whose
    kernel turns queries of three dimensions wrongly.
    """
    torch.manual_seed(24)
    tokenizer = train_tokenizer()
    stretch = 4.0
    rope = {
        "rope_type": "yarn", "rope_theta": 10_000.0, "factor": stretch, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707,
        "mscale_all_dim": 0.707, "original_max_position_embeddings": int(CONTEXT / stretch),
    }  # fmt: skip
    config = DeepseekV2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, q_lora_rank=None, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=64, v_head_dim=64,
        n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=64, first_k_dense_replace=1,
        norm_topk_prob=False, routed_scaling_factor=1.0, topk_method="greedy", n_group=1, topk_group=1,
        max_position_embeddings=CONTEXT, rope_parameters=rope, initializer_range=0.04, **special_ids(tokenizer),
    )  # fmt: skip
    return _make_writer(folder, DeepseekV2ForCausalLM(config), tokenizer, steps=120, rate=3e-3)


def _make_writer(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, steps: int, rate: float
) -> Reference:
    """Teach a model the texts, save it, have it recite."""
    learn_model(model, [document(tokenizer, text) for text in (PARAGRAPH, *SAYINGS)], steps=steps, rate=rate)
    set_generation_config(model, tokenizer)
    save(folder, model, tokenizer)
    return {"task": "text-generation", "cases": _recite(model, tokenizer)}


def _recite(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[Reference]:
    """To the end, and cut off."""
    prompts = [("The old lighthouse", 200), ("Every", 24), *((" ".join(text.split()[:2]), 40) for text in SAYINGS)]
    prompts[1] = ("The old lighthouse stands at the end of the harbour. Every", 24)
    return [continuation(model, tokenizer, text, length=length) for text, length in prompts]
