"""Tiny encoders of text that have learnt something; transformers' pipelines answer. Runs in the model runtime."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    pipeline,
)

from tests.models.common import TINY_BERT, Reference, case, fit, rounded, save, wordpiece

_GOOD = ["great", "lovely", "wonderful", "brilliant", "charming"]
_BAD = ["awful", "boring", "terrible", "dreadful", "dull"]
_THINGS = ["film", "book", "meal", "song", "journey"]
_JUDGED = [
    (f"{opening} {thing} was {word}{end}", label)
    for label, words in enumerate((_BAD, _GOOD))
    for opening, thing, word, end in itertools.product(("the", "this"), _THINGS, words, ("", " and long"))
]


def make_classifier(folder: Path, files: Path) -> Reference:
    """DistilBERT: POSITIVE or NEGATIVE."""
    tokenizer, model = _judge()
    save(folder, model, tokenizer)
    return _ask_judge(folder)


def make_pickled_classifier(folder: Path, files: Path) -> Reference:
    """The same with its weights in a torch pickle, as folders had them before safetensors."""
    tokenizer, model = _judge()
    save(folder, model, tokenizer)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return _ask_judge(folder)


def make_multi_label(folder: Path, files: Path) -> Reference:
    """BERT with independent labels: each score is a sigmoid."""
    torch.manual_seed(4)
    tokenizer = wordpiece([text for text, _ in _JUDGED], size=200)
    labels = dict(enumerate(["toxic", "insult", "threat", "spam"]))
    config = BertConfig(
        vocab_size=len(tokenizer),
        id2label=labels,
        problem_type="multi_label_classification",
        **TINY_BERT,
    )
    save(folder, BertForSequenceClassification(config), tokenizer)
    ask = pipeline("text-classification", model=str(folder), device="cpu")
    return {"task": "text-classification", "cases": [case({"TEXT": t}, ask(t, top_k=None)) for t, _ in _JUDGED[:3]]}


def _judge() -> tuple[Any, DistilBertForSequenceClassification]:
    torch.manual_seed(2)
    tokenizer = wordpiece([text for text, _ in _JUDGED], size=200)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=128, dropout=0.0,
        attention_dropout=0.0, seq_classif_dropout=0.0, id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1}, initializer_range=0.1,
    )  # fmt: skip
    model = DistilBertForSequenceClassification(config)
    generator = random.Random(2)

    def batch() -> dict[str, torch.Tensor]:
        chosen = generator.sample(_JUDGED, 64)
        encoded = tokenizer([text for text, _ in chosen], padding=True, return_tensors="pt")
        return {**encoded, "labels": torch.tensor([label for _, label in chosen])}

    fit(model, batch, steps=25)
    return tokenizer, model


def _ask_judge(folder: Path) -> Reference:
    ask = pipeline("text-classification", model=str(folder), device="cpu")
    texts = ["The film was great", "this meal was dreadful and long", "A journey", "dull " * 60]
    cases = [case({"TEXT": text}, ask(text, top_k=None)) for text in texts]
    cases.append(case({"TEXT": texts[0]}, ask(texts[0], top_k=1), top_k=1))
    cases.append(case({"TEXT": texts[0]}, ask(texts[0], top_k=None, function_to_apply="none"), function_to_apply="none"))
    cases.append(case({"TEXT": texts[0], "TEXT_PAIR": texts[1]}, ask({"text": texts[0], "text_pair": texts[1]}, top_k=None)))
    return {"task": "text-classification", "cases": cases}


_PEOPLE = ["Ada Lovelace", "Grace Hopper", "Alan Turing", "Emmy Noether"]
_PLACES = ["London", "New York", "Göttingen", "Cambridge"]
_LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def make_ner(folder: Path, files: Path) -> Reference:
    """BERT that finds people and places; its vocabulary is small, so names fall into pieces."""
    torch.manual_seed(3)
    sentences = [f"{who} lived in {where} ." for who, where in itertools.product(_PEOPLE, _PLACES)]
    sentences += [f"in {where} they met {who} ." for who, where in itertools.product(_PEOPLE, _PLACES)]
    tokenizer = wordpiece(sentences, size=75, lower=False)
    config = BertConfig(vocab_size=len(tokenizer), id2label=dict(enumerate(_LABELS)), **TINY_BERT)
    model = BertForTokenClassification(config)
    encoded = tokenizer(sentences, padding=True, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping").tolist()
    labels = torch.tensor([[_tag(s, start, end) for start, end in row] for s, row in zip(sentences, offsets, strict=True)])
    fit(model, lambda: {**encoded, "labels": labels}, steps=40, rate=5e-3)
    save(folder, model, tokenizer)
    ask = pipeline("token-classification", model=str(folder), device="cpu")
    texts = ["Ada Lovelace lived in New York .", "in Göttingen they met Emmy Noether and Alan Turing .", "."]
    cases = [case({"TEXT": text}, rounded(ask(text))) for text in texts]
    for strategy in ("simple", "first", "average", "max"):
        answer = rounded(ask(texts[1], aggregation_strategy=strategy))
        cases.append(case({"TEXT": texts[1]}, answer, aggregation_strategy=strategy))
    cases.append(case({"TEXT": texts[0]}, rounded(ask(texts[0], ignore_labels=[])), ignore_labels=[]))
    long = " ".join([*texts[:2]] * 6)
    answer = rounded(ask(long, aggregation_strategy="simple", stride=16))
    cases.append(case({"TEXT": long}, answer, aggregation_strategy="simple", stride=16))
    return {"task": "token-classification", "cases": cases}


def _tag(sentence: str, start: int, end: int) -> int:
    for kind, names in ((1, _PEOPLE), (3, _PLACES)):
        for name in names:
            place = sentence.find(name)
            if place >= 0 and place <= start < end <= place + len(name):
                return kind if start == place else kind + 1
    return 0 if end > start else -100


def make_fill_mask(folder: Path, files: Path) -> Reference:
    """BERT that has learnt some capitals by heart."""
    torch.manual_seed(5)
    capitals = {"France": "Paris", "Italy": "Rome", "Norway": "Oslo", "Japan": "Tokyo", "Peru": "Lima"}
    sentences = [f"the capital of {country} is {city}." for country, city in capitals.items()]
    tokenizer = wordpiece(sentences, size=200)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **TINY_BERT))
    encoded = tokenizer(sentences, padding=True, return_tensors="pt")
    labels = encoded["input_ids"].clone()

    def batch() -> dict[str, torch.Tensor]:
        hidden = (torch.rand(labels.shape) < 0.25) & (labels > 4)
        return {**encoded, "input_ids": encoded["input_ids"].masked_fill(hidden, tokenizer.mask_token_id), "labels": labels}

    fit(model, batch, steps=60, rate=5e-3)
    save(folder, model, tokenizer)
    ask = pipeline("fill-mask", model=str(folder), device="cpu")
    text, twice = "the capital of Italy is [MASK].", "the [MASK] of Peru [MASK] Lima."
    return {
        "task": "fill-mask",
        "cases": [
            case({"TEXT": text}, ask(text)),
            case({"TEXT": text}, ask(text, top_k=2), top_k=2),
            case({"TEXT": text}, ask(text, targets=["rome", "oslo"]), targets=["rome", "oslo"]),
            case({"TEXT": twice}, ask(twice, top_k=3), top_k=3),
        ],
    }


def make_question_answering(folder: Path, files: Path) -> Reference:
    """BERT that finds who is where. transformers 5 has no pipeline for it: plain model code answers for short contexts."""
    torch.manual_seed(6)
    facts = [(who.split()[0], where) for who, where in zip(_PEOPLE, _PLACES, strict=True)]
    contexts = [" ".join(f"{who} was in {where}." for who, where in order) for order in itertools.permutations(facts)]
    asked = [(f"where was {who}?", context, where) for context in contexts for who, where in facts]
    tokenizer = wordpiece([*contexts, *(question for question, _, _ in asked)], size=200)
    model = BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer), **TINY_BERT))
    encoded = tokenizer([q for q, _, _ in asked], [c for _, c, _ in asked], padding=True, return_tensors="pt")
    starts, ends = [], []
    for row, (_, context, where) in enumerate(asked):
        place = context.index(where)
        starts.append(encoded.char_to_token(row, place, 1))
        ends.append(encoded.char_to_token(row, place + len(where) - 1, 1))
    positions = {"start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}
    fit(model, lambda: {**encoded, **positions}, steps=60, rate=4e-3)
    save(folder, model, tokenizer)
    cases = []
    for question, context, _ in (asked[0], asked[1], asked[50]):
        answer = _read_answer(tokenizer, model, question, context)
        cases.append(case({"QUESTION": question, "CONTEXT": context}, answer))
    return {"task": "question-answering", "cases": cases}


@torch.inference_mode()
def _read_answer(tokenizer: Any, model: BertForQuestionAnswering, question: str, context: str) -> Reference:
    """The best span of a context that fits into one window: every pair of tokens is tried."""
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    output = model(**encoded)
    inside = torch.tensor([part == 1 for part in encoded.sequence_ids(0)])
    seen = inside.clone()
    seen[0] = True
    start = output.start_logits[0].masked_fill(~seen, -1e4).softmax(-1)
    end = output.end_logits[0].masked_fill(~seen, -1e4).softmax(-1)
    places = [place for place, is_inside in enumerate(inside.tolist()) if is_inside]
    score, first, last = max((float(start[a] * end[b]), a, b) for a in places for b in places if a <= b < a + 15)
    begin, stop = offsets[first][0], offsets[last][1]
    while stop < len(context) and context[stop].isalpha():
        stop += 1
    while begin > 0 and context[begin - 1].isalpha():
        begin -= 1
    return {"score": score, "start": begin, "end": stop, "answer": context[begin:stop]}


def make_zero_shot(folder: Path, files: Path) -> Reference:
    """BERT for inference between sentences: a text entails the topic whose word it holds."""
    torch.manual_seed(8)
    topics = {"sports": ["football", "tennis"], "cooking": ["bread", "soup"], "music": ["piano", "choir"]}
    pairs = [
        (f"we talked about {word}", f"This example is {topic}.", 2 if topic == own else 0)
        for own, words in topics.items()
        for word in words
        for topic in topics
    ]
    tokenizer = wordpiece([text for pair in pairs for text in pair[:2]], size=200)
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    config = BertConfig(
        vocab_size=len(tokenizer), id2label=labels, label2id={label: i for i, label in labels.items()}, **TINY_BERT
    )
    model = BertForSequenceClassification(config)
    encoded = tokenizer([a for a, _, _ in pairs], [b for _, b, _ in pairs], padding=True, return_tensors="pt")
    truth = torch.tensor([label for _, _, label in pairs])
    fit(model, lambda: {**encoded, "labels": truth}, steps=150, rate=2e-3)
    save(folder, model, tokenizer)
    (folder / "README.md").write_text("---\npipeline_tag: zero-shot-classification\n---\n# Three topics\n", encoding="utf-8")
    ask = pipeline("zero-shot-classification", model=str(folder), device="cpu")
    cases = []
    for text, wanted, parameters in (
        ("we talked about bread", list(topics), {}),
        ("we talked about tennis", list(topics), {"multi_label": True}),
        ("we talked about the choir", ["music"], {"hypothesis_template": "This is {}."}),
    ):
        inputs = {"TEXT": text, "CANDIDATE_LABELS": wanted}
        cases.append(case(inputs, ask(text, candidate_labels=wanted, **parameters), **parameters))
    return {"task": "zero-shot-classification", "cases": cases}
