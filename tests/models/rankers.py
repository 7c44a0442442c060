"""Models that learn which answer belongs to a question, with a head and by their next word; sentence-transformers answers, or
what Qwen3-Reranker's authors publish. Runs in the model runtime."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from transformers import BertConfig, BertForSequenceClassification, Qwen3Config, Qwen3ForCausalLM

from tests.models.common import TINY_BERT, Reference, case, fit, save, wordpiece

_PAIRS = {
    "what does a cat say?": "meow",
    "what does a dog say?": "woof",
    "what does a cow say?": "moo",
    "what does a duck say?": "quack",
}


def make_reranker(folder: Path, files: Path) -> Reference:
    """As ``CrossEncoder.save_pretrained`` writes it."""
    encoder = CrossEncoder(str(_train(folder)), device="cpu")
    encoder.save_pretrained(str(folder))
    answers = list(_PAIRS.values())
    cases = []
    for question in _PAIRS:
        ranked = [{"index": int(one["corpus_id"]), "score": float(one["score"])} for one in encoder.rank(question, answers)]
        cases.append(case({"query": question, "documents": answers}, ranked))
        assert answers[ranked[0]["index"]] == _PAIRS[question], "it has not learnt its lesson"
    return {"task": "text-ranking", "cases": cases}


def make_ranker(folder: Path, files: Path) -> Reference:
    """The same, asked as tensors; with a prompt and a shorter input than its positions."""
    encoder = CrossEncoder(
        str(_train(folder)), device="cpu", max_length=24, prompts={"ask": "what does "}, default_prompt_name="ask"
    )
    encoder.save_pretrained(str(folder))
    return _score(folder)


def make_ranker_of_logits(folder: Path, files: Path) -> Reference:
    """As the Hub's ms-marco models are: no modules, and a key of config.json that says to leave the number as it is."""
    plain = _train(folder)
    for file in plain.iterdir():
        file.rename(folder / file.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    reference = _score(folder)
    assert any(score < 0 for one in reference["cases"] for score in one["answer"])
    return reference


_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}answer:{% endif %}"
)
# As the model card of Qwen3-Reranker has it.
_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


def make_ranker_of_words(folder: Path, files: Path) -> Reference:
    """A decoder as ``CrossEncoder.save_pretrained`` writes it: two words of its own, and a chat template that asks."""
    asked = {pair: f"system: which animal? query: {pair[0]} document: {pair[1]} answer:" for pair in _every_pair()}
    plain = _train_decoder(folder, asked, template=_TEMPLATE, steps=120)
    transformer = Transformer(str(plain), transformer_task="text-generation")
    transformer.processing_kwargs = {"chat_template": {"add_generation_prompt": True}}
    tokenizer = transformer.tokenizer
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    encoder = CrossEncoder(
        modules=[transformer, LogitScore(yes, no)], device="cpu", prompts={"ask": "which animal?"}, default_prompt_name="ask"
    )
    encoder.save_pretrained(str(folder))
    return _score(folder, long=False)


def make_qwen3_ranker(folder: Path, files: Path) -> Reference:
    """A decoder without any of sentence-transformers' files: its README says that it ranks."""
    asked = {
        (query, answer): f"{_BEFORE}<Instruct>: {_INSTRUCTION}\n<Query>: {query}\n<Document>: {answer}{_AFTER}"
        for query, answer in _every_pair()
    }
    for file in _train_decoder(folder, asked, template="", steps=20).iterdir():
        file.rename(folder / file.name)
    (folder / "README.md").write_text("---\npipeline_tag: text-ranking\n---\n", encoding="utf-8")
    model = Qwen3ForCausalLM.from_pretrained(folder).eval()
    tokenizer = wordpiece([]).from_pretrained(folder)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    cases = []
    for query in _PAIRS:
        scores = []
        for answer in _PAIRS.values():
            tokens = tokenizer(asked[query, answer], add_special_tokens=False, return_tensors="pt")
            with torch.inference_mode():
                last = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits[0, -1]
            scores.append(float(torch.stack([last[no], last[yes]]).softmax(-1)[1]))
        assert max(scores) - min(scores) > 1e-4, "each document has a score of its own"
        cases.append(case({"QUERY": query, "DOCUMENTS": list(_PAIRS.values())}, scores))
    return {"task": "text-ranking", "cases": cases}


def _every_pair() -> list[tuple[str, str]]:
    return list(itertools.product(_PAIRS, _PAIRS.values()))


def _train_decoder(folder: Path, asked: dict[tuple[str, str], str], *, template: str, steps: int) -> Path:
    """A plain folder beside ``folder``, of a model that learns to say yes to the pairs that belong together."""
    torch.manual_seed(5)
    tokenizer = wordpiece([*asked.values(), "yes no yes no"], length=512)
    tokenizer.chat_template = template or None
    size = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
    }
    size |= {"intermediate_size": 96, "max_position_embeddings": 512}
    config = Qwen3Config(vocab_size=len(tokenizer), initializer_range=0.15, **size)  # near answers differ, learnt or not
    model = Qwen3ForCausalLM(config)
    tokens = tokenizer(list(asked.values()), add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    right = torch.tensor([_PAIRS[query] == answer for query, answer in asked])
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    wanted = torch.where(right, yes, no)
    places = (tokens["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    weights = torch.where(right, 3.0, 1.0)
    for _ in range(steps):
        last = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], position_ids=places).logits[:, -1]
        loss = (torch.nn.functional.cross_entropy(last, wanted, reduction="none") * weights).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    plain = folder.with_name(f".{folder.name}-plain")
    save(plain, model, tokenizer)
    return plain


def _train(folder: Path) -> Path:
    """A plain folder beside ``folder``."""
    torch.manual_seed(3)
    tokenizer = wordpiece([*_PAIRS, *_PAIRS.values()])
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=1, **TINY_BERT))
    all_pairs = list(itertools.product(_PAIRS, _PAIRS.values()))
    tokens = tokenizer([q for q, _ in all_pairs], [a for _, a in all_pairs], padding=True, return_tensors="pt")
    wanted = torch.tensor([float(_PAIRS[question] == answer) * 4 - 2 for question, answer in all_pairs])
    fit(model, lambda: {**tokens, "labels": wanted}, steps=60)
    plain = folder.with_name(f".{folder.name}-plain")
    save(plain, model, tokenizer)
    return plain


def _score(folder: Path, *, long: bool = True) -> Reference:
    encoder = CrossEncoder(str(folder), device="cpu")
    texts = [*_PAIRS.values(), *(["a long answer that says meow and woof and moo " * 20] if long else [])]
    cases = []
    for question, documents in ((next(iter(_PAIRS)), texts), ("what does a cow say?", texts[:1])):
        scores = encoder.predict([(question, document) for document in documents]).tolist()
        cases.append(case({"QUERY": question, "DOCUMENTS": documents}, scores))
    return {"task": "text-ranking", "cases": cases}
