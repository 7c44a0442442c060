"""Tiny models that write: GPT-2 and T5; transformers' pipeline and ``generate`` answer. Runs in the model runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    pipeline,
)

from tests.models.common import Reference, case, fit, save

_SENTENCES = [
    "The quick brown fox jumps over the lazy dog and runs away.",
    "A model is dropped into a folder and answers a moment later.",
    "Once upon a time there was a small server that never slept.",
]


def make_gpt2(folder: Path, files: Path) -> Reference:
    """GPT-2 that has learnt three sentences by heart."""
    torch.manual_seed(11)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(_SENTENCES, trainer)
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=end,
        eos_token=end,
        unk_token=end,
        model_max_length=96,
        clean_up_tokenization_spaces=False,
    )
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=48, n_layer=2, n_head=4, n_positions=96, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    rows = [torch.tensor([*tokenizer(text)["input_ids"], tokenizer.eos_token_id]) for text in _SENTENCES]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.eos_token_id)
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    fit(model, lambda: {"input_ids": ids, "labels": labels}, steps=90, rate=8e-3)
    save(folder, model, tokenizer)
    ask = pipeline("text-generation", model=str(folder), device="cpu")
    cases = []
    for text, length in (("The quick brown", 40), ("A model", 5), ("Once upon a time there was", 40)):
        whole = ask(text, max_new_tokens=length, do_sample=False, return_full_text=True)[0]["generated_text"]
        cases.append(case({"TEXT": text}, whole[len(text) :], max_new_tokens=length))
    whole = ask("The quick", max_new_tokens=20, do_sample=False, repetition_penalty=1.3)[0]["generated_text"]
    cases.append(case({"TEXT": "The quick"}, whole, max_new_tokens=20, repetition_penalty=1.3, return_full_text=True))
    return {"task": "text-generation", "cases": cases}


_PAIRS = {
    "the house is small": "das Haus ist klein",
    "the dog sleeps": "der Hund schläft",
    "good morning": "guten Morgen",
    "the small dog": "der kleine Hund",
}


def make_t5(folder: Path, files: Path) -> Reference:
    """T5 that translates four phrases; its config knows the prefix, as T5's own does."""
    torch.manual_seed(12)
    prefix = "translate English to German: "
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=special, unk_token="<unk>", show_progress=False)
    core.train_from_iterator([*(prefix + text for text in _PAIRS), *_PAIRS.values()], trainer)
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", special.index("</s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    specific = {"translation_en_to_de": {"prefix": prefix, "max_length": 40, "num_beams": 2}}
    config = T5Config(
        vocab_size=len(tokenizer), d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    config.task_specific_params = specific
    model = T5ForConditionalGeneration(config)
    encoded = tokenizer([prefix + text for text in _PAIRS], padding=True, return_tensors="pt")
    target = tokenizer(list(_PAIRS.values()), padding=True, return_tensors="pt")
    labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
    fit(model, lambda: {**encoded, "labels": labels}, steps=80, rate=1e-2)
    save(folder, model, tokenizer)
    (folder / "README.md").write_text("---\npipeline_tag: translation\n---\n# Four phrases\n", encoding="utf-8")
    cases = []
    for text in _PAIRS:
        answer = _generate(tokenizer, model, prefix + text, num_beams=2, max_new_tokens=40)
        cases.append(case({"TEXT": text}, answer, src_lang="en", tgt_lang="de"))
    plain = _generate(tokenizer, model, "the dog", max_new_tokens=6)
    cases.append(case({"TEXT": "the dog"}, plain, generate_parameters={"max_new_tokens": 6}))
    return {"task": "translation", "cases": cases}


@torch.inference_mode()
def _generate(tokenizer: Any, model: T5ForConditionalGeneration, text: str, **options: object) -> str:
    encoded = tokenizer(text, return_tensors="pt")
    output = model.generate(
        input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], do_sample=False, **options
    )
    decoded: str = tokenizer.decode(output[0], skip_special_tokens=True)
    return decoded
