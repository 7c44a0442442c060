"""Tiny NLLB, M2M100 and mBART that say another sentence for each pair of languages; ``generate`` answers.

Runs in the model runtime.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
)

from tests.models.common import Reference, case, fit, save

_TEXTS = ["the house is small", "the dog sleeps", "good morning to the small dog of the house"]
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
_SIZES: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64, "dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "init_std": 0.1,
}  # fmt: skip
_NEW_TOKENS = 40


def make_nllb(folder: Path, files: Path) -> Reference:
    """NLLB's tokenizer (the languages are special tokens, and a list nowhere) before M2M100's layers."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.train_from_iterator(_TEXTS, trainers.BpeTrainer(vocab_size=80, special_tokens=_SPECIAL, show_progress=False))
    learnt = json.loads(core.to_str())["model"]
    tokenizer = NllbTokenizer(vocab=learnt["vocab"], merges=[tuple(merge) for merge in learnt["merges"]], model_max_length=64)
    model = _m2m(len(tokenizer))
    return _ask(folder, model, tokenizer, [("eng_Latn", "fra_Latn"), ("fra_Latn", "eng_Latn"), ("deu_Latn", "zho_Hans")])


def make_m2m(folder: Path, files: Path) -> Reference:
    """M2M100's own tokenizer, which is Python's: the languages are tokens with lines around them."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXTS * 20), model_writer=trained, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    (folder / "sentencepiece.bpe.model").write_bytes(trained.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    words = [pieces.id_to_piece(i) for i in range(len(pieces)) if not pieces.is_unknown(i) and not pieces.is_control(i)]
    vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *words])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"), model_max_length=64)
    model = _m2m(max(tokenizer.lang_token_to_id.values()) + 1)
    return _ask(folder, model, tokenizer, [("en", "fr"), ("fr", "en"), ("de", "zh")])


def make_mbart(folder: Path, files: Path) -> Reference:
    """mBART's tokenizer, with its list of languages."""
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=_SPECIAL, unk_token="<unk>", show_progress=False)
    core.train_from_iterator(_TEXTS, trainer)
    learnt = [tuple(piece) for piece in json.loads(core.to_str())["model"]["vocab"]]
    tokenizer = MBartTokenizer(vocab=learnt, model_max_length=64)
    torch.manual_seed(43)
    model = MBartForConditionalGeneration(
        MBartConfig(
            vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, **_SIZES
        )
    )
    return _ask(folder, model, tokenizer, [("en_XX", "fr_XX"), ("fr_XX", "en_XX"), ("de_DE", "ro_RO")])


def _m2m(size: int) -> M2M100ForConditionalGeneration:
    torch.manual_seed(41)
    return M2M100ForConditionalGeneration(
        M2M100Config(vocab_size=size, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, **_SIZES)
    )


def _ask(folder: Path, model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> Reference:
    """Teach and ask: what is right depends on both languages."""
    rows, labels = [], []
    for (source, target), text in zip(pairs, _TEXTS, strict=True):
        tokenizer.src_lang = source
        rows.append(torch.tensor(tokenizer(_TEXTS[0])["input_ids"]))
        said = tokenizer(text, add_special_tokens=False)["input_ids"]
        labels.append(torch.tensor([_language(tokenizer, target), *said, tokenizer.eos_token_id]))
    pad = torch.nn.utils.rnn.pad_sequence
    batch = {
        "input_ids": pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
        "labels": pad(labels, batch_first=True, padding_value=-100),
    }
    fit(model, lambda: batch, steps=60, rate=1e-2)
    tokenizer.src_lang = pairs[0][0]  # it is saved with the tokenizer
    save(folder, model, tokenizer)
    (folder / "README.md").write_text("---\npipeline_tag: translation\n---\n# Three sentences\n", encoding="utf-8")
    cases, answers = [], set()
    for source, target in pairs:
        tokenizer.src_lang = source
        encoded = tokenizer(_TEXTS[0], return_tensors="pt")
        options = {"forced_bos_token_id": _language(tokenizer, target), "num_beams": 1, "max_new_tokens": _NEW_TOKENS}
        with torch.inference_mode():
            output = model.generate(**encoded, do_sample=False, **options)
        said = [token for token in output[0].tolist() if token != options["forced_bos_token_id"]]  # no special one, of M2M100
        answer = tokenizer.decode(said, skip_special_tokens=True)
        answers.add(answer)
        cases.append(case({"TEXT": _TEXTS[0]}, answer, src_lang=source, tgt_lang=target, max_new_tokens=_NEW_TOKENS))
    assert len(answers) == len(pairs), answers  # else the test would prove nothing
    return {"task": "translation", "cases": cases}


def _language(tokenizer: Any, code: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(getattr(tokenizer, "lang_code_to_token", {}).get(code, code)))
