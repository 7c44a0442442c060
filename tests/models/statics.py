"""Embedders that are one table; sentence-transformers answers. Runs in the model runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer, models
from tokenizers import Tokenizer

from tests.models.common import Reference, case, wordpiece
from tests.models.sentences import TEXTS

_UNKNOWN = "yes ☃ yes"


def _tokenizer() -> Tokenizer:
    return wordpiece(TEXTS, size=300).backend_tokenizer


def make_static(folder: Path, files: Path) -> Reference:
    """As sentence-transformers writes it, in a folder of its own below, with a prompt."""
    torch.manual_seed(5)
    core = models.StaticEmbedding(_tokenizer(), embedding_weights=torch.randn(_tokenizer().get_vocab_size(), 16))
    model = SentenceTransformer(modules=[core, models.Normalize()], device="cpu", prompts={"query": "yes "})
    model.save(str(folder))
    texts = [*TEXTS, _UNKNOWN]
    cases = [case({"TEXT": text}, model.encode(text).tolist()) for text in texts]
    cases.append(case({"TEXT": "lazy dog"}, model.encode("lazy dog", prompt_name="query").tolist(), prompt_name="query"))
    return {"task": "sentence-similarity", "cases": cases}


def make_model2vec(folder: Path, files: Path) -> Reference:
    """Rows that tokens share, each with its weight. sentence-transformers reads the same file, but keeps unknown words."""
    torch.manual_seed(6)
    tokenizer = _tokenizer()
    size = tokenizer.get_vocab_size()
    tensors = {"embeddings": torch.randn(40, 12), "mapping": torch.randint(0, 40, (size,)), "weights": torch.rand(size)}
    save_file(tensors, folder / "model.safetensors")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True, "hidden_dim": 12}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    beside = folder.with_name(f".{folder.name}-sentences")
    shutil.copytree(folder, beside)
    module = "sentence_transformers.models."
    modules = [{"idx": 0, "name": "0", "path": "", "type": module + "StaticEmbedding"}]
    modules.append({"idx": 1, "name": "1", "path": "1_Normalize", "type": module + "Normalize"})
    (beside / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (beside / "1_Normalize").mkdir()
    model = SentenceTransformer(str(beside), device="cpu")
    known = [text for text in TEXTS if "[UNK]" not in tokenizer.encode(text, add_special_tokens=False).tokens][:3]
    cases = [case({"TEXT": text}, model.encode(text).tolist()) for text in known]
    cases.append(case({"TEXT": _UNKNOWN}, model.encode("yes yes").tolist()))
    cases.append(case({"TEXT": "☃"}, [0.0] * 12))
    return {"task": "sentence-similarity", "cases": cases}
