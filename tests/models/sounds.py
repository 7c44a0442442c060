"""Tiny models that listen; transformers' pipelines and model code answer. Runs in the model runtime.

Speech is made of tones: each letter has its own pitch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tokenizers import pre_tokenizers
from transformers import (
    GenerationConfig,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
    pipeline,
)

from tests.models.common import Reference, case, fit, save

_RATE = 16000
_PITCH = {"a": 300, "b": 600, "c": 1200, "d": 2400, " ": 0}
_WAV2VEC2 = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": (24, 24, 24),
    "conv_kernel": (16, 8, 8), "conv_stride": (8, 5, 8), "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0,
    "final_dropout": 0.0, "layerdrop": 0.0, "activation_dropout": 0.0, "mask_time_prob": 0.0, "classifier_proj_size": 32,
}  # fmt: skip


def say(text: str, rate: int = _RATE) -> np.ndarray:
    """A tenth of a second a letter."""
    time = np.arange(rate // 10) / rate
    return np.concatenate([0.3 * np.sin(2 * np.pi * _PITCH[letter] * time) for letter in text]).astype(np.float32)


def record(files: Path, name: str, samples: np.ndarray, rate: int = _RATE) -> str:
    soundfile.write(files / name, samples, rate)
    return name


def hear(files: Path, name: str) -> np.ndarray:
    samples, rate = soundfile.read(files / name, dtype="float32", always_2d=True)
    assert rate == _RATE
    heard: np.ndarray = samples.mean(axis=1)
    return heard


def make_wav2vec2(folder: Path, files: Path) -> Reference:
    """wav2vec2 with a CTC head that spells tones."""
    torch.manual_seed(31)
    vocabulary = {name: i for i, name in enumerate(["<pad>", "<unk>", "|", "a", "b", "c", "d"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    tokenizer = Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"),
        unk_token="<unk>",
        pad_token="<pad>",
        word_delimiter_token="|",
        bos_token=None,
        eos_token=None,
    )
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=False)
    config = Wav2Vec2Config(vocab_size=len(vocabulary), ctc_loss_reduction="mean", pad_token_id=0, **_WAV2VEC2)
    model = Wav2Vec2ForCTC(config)
    generator = np.random.default_rng(5)

    def batch() -> dict[str, torch.Tensor]:
        texts = ["".join(generator.choice(list("abcd"), size=6)) for _ in range(8)]
        heard = extractor([say(text) for text in texts], sampling_rate=_RATE, return_tensors="pt", padding=True)
        return {**heard, "labels": torch.tensor([[vocabulary[letter] for letter in text] for text in texts])}

    fit(model, batch, steps=60, rate=4e-3)
    save(folder, model, extractor, tokenizer)
    ask = pipeline("automatic-speech-recognition", model=str(folder), device="cpu")
    stereo = np.stack([say("dacb"), say("dacb")], axis=1)
    names = [
        record(files, "abcd.wav", say("abcd")),
        record(files, "dcba.flac", say("dcbaab")),
        record(files, "stereo.ogg", stereo),
    ]
    cases = [case({"AUDIO": {"file": name}}, ask(hear(files, name))["text"]) for name in names]
    long = record(files, "long.wav", say("abcd" * 100))
    answer = ask(hear(files, long), chunk_length_s=30, stride_length_s=5)["text"]
    cases.append(case({"AUDIO": {"file": long}}, answer))
    return {"task": "automatic-speech-recognition", "cases": cases}


def make_audio_classifier(folder: Path, files: Path) -> Reference:
    """wav2vec2 that tells high from low."""
    torch.manual_seed(32)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=False)
    config = Wav2Vec2Config(id2label={0: "low", 1: "high"}, label2id={"low": 0, "high": 1}, **_WAV2VEC2)
    model = Wav2Vec2ForSequenceClassification(config)
    heard = extractor([say(text) for text in ("aaa", "bab", "cdc", "ddd")], sampling_rate=_RATE, return_tensors="pt")
    fit(model, lambda: {**heard, "labels": torch.tensor([0, 0, 1, 1])}, steps=20)
    save(folder, model, extractor)
    ask = pipeline("audio-classification", model=str(folder), device="cpu")
    names = [record(files, "low.wav", say("aabb")), record(files, "high.wav", say("ddc"))]
    return {
        "task": "audio-classification",
        "cases": [case({"AUDIO": {"file": name}}, ask(hear(files, name))) for name in names],
    }


def untaught_whisper() -> tuple[WhisperForConditionalGeneration, WhisperFeatureExtractor, WhisperTokenizer, dict[str, int]]:
    """A Whisper of two languages with random weights, and the ids of its special tokens."""
    torch.manual_seed(33)
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(vocab={**letters, "<|endoftext|>": len(letters)}, merges=[])
    names = ["<|startoftranscript|>", "<|en|>", "<|fr|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    names += ["<|nospeech|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    tokenizer.add_tokens([f"<|{i * 0.02:.2f}|>" for i in range(1501)])
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in [*names, "<|endoftext|>"]}
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_target_positions=64, dropout=0.0, init_std=0.1,
        decoder_start_token_id=ids["<|startoftranscript|>"], begin_suppress_tokens=None, pad_token_id=ids["<|endoftext|>"],
        bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|endoftext|>"],
    )  # fmt: skip
    model, extractor = WhisperForConditionalGeneration(config), WhisperFeatureExtractor()
    model.generation_config = GenerationConfig(
        is_multilingual=True,
        lang_to_id={name: ids[name] for name in ("<|en|>", "<|fr|>")},
        task_to_id={name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        max_length=48,
        max_initial_timestamp_index=50,
    )
    return model, extractor, tokenizer, ids


def make_whisper(folder: Path, files: Path) -> Reference:
    """Whisper that has learnt two recordings by heart, in two languages."""
    model, extractor, tokenizer, ids = untaught_whisper()
    said = {"abab": ("hello there", "bonjour"), "dcdc": ("good bye", "au revoir")}
    heard = extractor([say(key) for key in said for _ in range(2)], sampling_rate=_RATE, return_tensors="pt")["input_features"]
    rows = []
    for english, french in said.values():
        for language, text in (("<|en|>", english), ("<|fr|>", french)):
            start = [ids["<|startoftranscript|>"], ids[language], ids["<|transcribe|>"], ids["<|notimestamps|>"]]
            rows.append([*start, *tokenizer(text, add_special_tokens=False)["input_ids"], ids["<|endoftext|>"]])
    length = max(len(row) for row in rows)
    padded = torch.tensor([row + [-100] * (length - len(row)) for row in rows])
    inputs = padded.masked_fill(padded == -100, ids["<|endoftext|>"])
    batch = {"input_features": heard, "decoder_input_ids": inputs[:, :-1], "labels": padded[:, 1:]}
    fit(model, lambda: batch, steps=80, rate=4e-3)
    save(folder, model, extractor, tokenizer)
    return {"task": "automatic-speech-recognition", "cases": _ask_whisper(folder, files)}


def _ask_whisper(folder: Path, files: Path) -> list[Any]:
    ask = pipeline("automatic-speech-recognition", model=str(folder), device="cpu")
    cases = []
    for name in (record(files, "hello.wav", say("abab")), record(files, "bye.wav", say("dcdc"))):
        for language in ("en", "fr"):
            answer = ask(hear(files, name), generate_kwargs={"language": language, "task": "transcribe"})["text"]
            cases.append(case({"AUDIO": {"file": name}}, answer, language=language, task="transcribe"))
    return cases
