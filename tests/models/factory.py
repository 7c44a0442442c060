"""``python -m tests.models.factory DIRECTORY [NAME…]``: makes test models and their references. Runs in the model runtime.

What enters: a directory and names. What leaves: for each name a model and ``NAME.reference.json`` with inputs and
transformers', sentence-transformers' or onnxruntime's own answers. A second run with the same sources and versions is
instant: ``NAME.key`` says what a model was made from. A model is built beside its place and moved there whole.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

# name → module below tests.models, maker there. A maker takes an empty directory, which becomes the model, and one for
# files of its cases; it returns the reference.
MAKERS = {
    "minilm": ("sentences", "make_minilm"),
    "st-cls-dense": ("sentences", "make_cls_dense"),
    "st-last": ("sentences", "make_last_token"),
    "static": ("statics", "make_static"),
    "static-model2vec": ("statics", "make_model2vec"),
    "bert-features": ("sentences", "make_plain_bert"),
    "classifier": ("texts", "make_classifier"),
    "classifier-pickle": ("texts", "make_pickled_classifier"),
    "multi-label": ("texts", "make_multi_label"),
    "ner": ("texts", "make_ner"),
    "fill-mask": ("texts", "make_fill_mask"),
    "qa": ("texts", "make_question_answering"),
    "ranker": ("rankers", "make_ranker"),
    "ranker-logits": ("rankers", "make_ranker_of_logits"),
    "zero-shot": ("texts", "make_zero_shot"),
    "gpt2": ("writers", "make_gpt2"),
    "t5": ("writers", "make_t5"),
    "vit": ("pictures", "make_vit"),
    "yolos": ("pictures", "make_yolos"),
    "dinov2": ("pictures", "make_dinov2"),
    "vit-features": ("pictures", "make_vit_features"),
    "wav2vec2": ("sounds", "make_wav2vec2"),
    "whisper": ("sounds", "make_whisper"),
    "audio-classifier": ("sounds", "make_audio_classifier"),
    "onnx-dynamic": ("graphs", "make_dynamic"),
    "onnx-fixed": ("graphs", "make_fixed"),
}
# Made only for who names them: they are trained for half a minute. A maker may leave more beside its model (an adapter).
LANGUAGE_MAKERS = {
    "tiny-llama": ("language.causal", "make_llama"),
    "tiny-gpt2": ("language.causal", "make_gpt2"),
    "tiny-mixtral": ("language.causal", "make_mixture"),
    "tiny-deepseek": ("language.causal", "make_latent"),
    "tiny-idefics": ("language.seeing", "make_idefics"),
}
# What the python runtime's own tests ask, without a server: no time goes into a load through Triton of each.
TASK_MAKERS = {
    "nllb": ("translators", "make_nllb"),
    "m2m": ("translators", "make_m2m"),
    "mbart": ("translators", "make_mbart"),
    "ner-slow": ("slow_tokenizers", "make_ner"),
    "st-prompts": ("prompts", "make_left_out"),
    "st-default-prompt": ("prompts", "make_default"),
    "static-prompt": ("prompts", "make_static"),
    "whisper-stamps": ("whispers", "make_stamps"),
    "ranker-words": ("rankers", "make_ranker_of_words"),
    "ranker-qwen3": ("rankers", "make_qwen3_ranker"),
    "onnx-sentences": ("exported", "make_sentences"),
    "onnx-classifier": ("exported", "make_classifier"),
}
# What only Ray serves; made for who names them, as well.
RAY_MAKERS = {
    "iris": ("tables", "make_iris"),
    "forest": ("tables", "make_forest"),
    "boosted": ("tables", "make_boosted"),
    "leaves": ("tables", "make_leaves"),
    "reranker": ("rankers", "make_reranker"),
    "painter": ("painters", "make_painter"),
}
_ALL = {**MAKERS, **LANGUAGE_MAKERS, **TASK_MAKERS, **RAY_MAKERS}
_HERE = Path(__file__).parent
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "onnxruntime",
    "onnx",
    "sentence-transformers",
    "scikit-learn",
    "skops",
    "xgboost-cpu",
    "lightgbm",
    "diffusers",
)


def main(arguments: list[str]) -> None:
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    # The checkout's own directory "triton" would pass for the compiler of that name, which torch looks for.
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != _HERE.parent.parent]
    directory, names = Path(arguments[0]).resolve(), arguments[1:] or list(MAKERS)
    unknown = [name for name in names if name not in _ALL]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; known: {', '.join(_ALL)}")
    (directory / "files").mkdir(parents=True, exist_ok=True)
    versions = " ".join(f"{package}={importlib.metadata.version(package)}" for package in _PACKAGES)
    for name in names:
        source = b"".join(path.read_bytes() for path in _sources(_ALL[name][0]))
        key = hashlib.sha256(source + versions.encode()).hexdigest()
        key_file = directory / f"{name}.key"
        if not (key_file.is_file() and key_file.read_text(encoding="utf-8") == key):
            key_file.unlink(missing_ok=True)
            _make(directory, name)
            key_file.write_text(key, encoding="utf-8")


def _sources(module: str) -> list[Path]:
    room, _, leaf = module.rpartition(".")
    shared = ("corpus", "writing", "adapter") if room else ()  # by all language models
    return [_HERE / "factory.py", _HERE / "common.py", *(_HERE / room / f"{part}.py" for part in (*shared, leaf))]


def _make(directory: Path, name: str) -> None:
    module, maker = _ALL[name]
    workplace = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=directory))
    try:
        model = workplace / name
        model.mkdir()
        reference: dict[str, Any] = getattr(importlib.import_module(f"tests.models.{module}"), maker)(
            model, directory / "files"
        )
        for made in workplace.glob("[!.]*"):
            place = directory / made.name
            if place.is_symlink() or place.is_file():
                place.unlink()
            shutil.rmtree(place, ignore_errors=True)
            made.rename(place)
        text = json.dumps(reference, indent=1, ensure_ascii=False)
        (directory / f"{name}.reference.json").write_text(text, encoding="utf-8")
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
