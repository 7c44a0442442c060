"""Inputs of the tasks of the python runtime: a checked body enters, rows of Triton's tensors leave.

``listed`` says whether the client sent a list, and so gets a list: a single item is answered by a single answer.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import orjson

from modelium.errors import InvalidBody
from modelium.gateway.codecs.body import Body
from modelium.gateway.codecs.call import Tensors, byte_rows
from modelium.gateway.codecs.fields import check_cells, decoded, items_of, mapping, strings, text_of, text_with_images, wrong
from modelium.values import Takes, Task

_MOST_PARAMETERS_BYTES = 2**26  # over all rows, each of which has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Inputs by tensor name, one tuple of byte strings a row."""

    columns: Mapping[str, list[tuple[bytes, ...]]]
    listed: bool
    compares: bool = False  # sentence-similarity: the first row is compared with the others

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values())))

    def tensors(self, parameters: Mapping[str, object]) -> Tensors:
        """Triton's inputs; each row has all ``parameters``. Raises ``InvalidBody`` where that is too much."""
        columns = dict(self.columns)
        if parameters:
            written = orjson.dumps(parameters)
            if len(written) * self.count > _MOST_PARAMETERS_BYTES:
                raise InvalidBody("are too large to be sent with so many inputs; send several requests", field="parameters")
            columns["PARAMETERS"] = [(written,)] * self.count
        return {name: byte_rows(rows) for name, rows in columns.items()}


def rows_of(task: Task, body: Body) -> Rows:
    """The rows of ``body``; raises ``InvalidBody`` with the field that does not fit ``task``."""
    return READERS[task.row.takes](body)


def _texts(body: Body) -> Rows:
    return _texts_of(body.inputs)


def _texts_of(inputs: object) -> Rows:
    if isinstance(inputs, str):
        return Rows(columns={"TEXT": [(text_of(inputs, "inputs").encode(),)]}, listed=False)
    if not isinstance(inputs, list):
        raise wrong("inputs", "a string or a list of strings", inputs)
    return Rows(columns={"TEXT": [(text.encode(),) for text in strings(inputs, "inputs")]}, listed=True)


def _texts_or_pairs(body: Body) -> Rows:
    """Text, ``{"text", "text_pair"}``, or a list of one kind of them."""
    inputs = body.inputs
    items = inputs if isinstance(inputs, list) else [inputs]
    if not any(isinstance(item, dict) for item in items):
        return _texts_of(inputs)
    texts: list[tuple[bytes, ...]] = []
    pairs: list[tuple[bytes, ...]] = []
    for field, item in _items(inputs):
        pair = mapping(item, field, ("text",), ("text_pair",))
        texts.append((text_of(pair["text"], f"{field}.text").encode(),))
        if pair.get("text_pair") is not None:
            pairs.append((text_of(pair["text_pair"], f"{field}.text_pair").encode(),))
        if len(pairs) not in (0, len(texts)):
            raise InvalidBody("either all inputs have a text_pair or none", field=field)
    return Rows(columns={"TEXT": texts} | ({"TEXT_PAIR": pairs} if pairs else {}), listed=isinstance(inputs, list))


def _texts_and_images(body: Body) -> Rows:
    """Texts, or texts with images. Where one has fewer images than another, nothing stands in the places of the rest."""
    items = [_text_and_images(field, item) for field, item in _items(body.inputs)]
    columns: dict[str, list[tuple[bytes, ...]]] = {"TEXT": [(text.encode(),) for text, _ in items]}
    most = max(len(images) for _, images in items)
    if most:
        check_cells(len(items), most, "inputs")
        columns["IMAGE"] = [(*images, *([b""] * (most - len(images)))) for _, images in items]
    return Rows(columns=columns, listed=isinstance(body.inputs, list))


def _text_and_images(field: str, item: object) -> tuple[str, list[bytes]]:
    if isinstance(item, str):
        return item, []
    text, images = text_with_images(item, field)
    return text, [base64.b64decode(image) for image in images]


def _texts_or_comparison(body: Body) -> Rows:
    if not isinstance(body.inputs, dict):
        return _texts(body)
    pair = mapping(body.inputs, "inputs", ("source_sentence", "sentences"))
    source = text_of(pair["source_sentence"], "inputs.source_sentence")
    sentences = [source, *strings(pair["sentences"], "inputs.sentences")]
    return Rows(columns={"TEXT": [(text.encode(),) for text in sentences]}, listed=True, compares=True)


def _texts_with_labels(body: Body) -> Rows:
    texts = _texts(body)
    labels = tuple(label.encode() for label in _candidate_labels(body.labels))
    check_cells(texts.count, len(labels), "parameters.candidate_labels")
    return Rows(columns={**texts.columns, "CANDIDATE_LABELS": [labels] * texts.count}, listed=texts.listed)


def _prompt(body: Body) -> Rows:
    return Rows(columns={"PROMPT": [(text_of(body.inputs, "inputs").encode(),)]}, listed=False)


def _questions(body: Body) -> Rows:
    questions: list[tuple[bytes, ...]] = []
    contexts: list[tuple[bytes, ...]] = []
    for field, item in _items(body.inputs):
        pair = mapping(item, field, ("question", "context"))
        questions.append((text_of(pair["question"], f"{field}.question").encode(),))
        contexts.append((text_of(pair["context"], f"{field}.context").encode(),))
    return Rows(columns={"QUESTION": questions, "CONTEXT": contexts}, listed=isinstance(body.inputs, list))


def _rankings(body: Body) -> Rows:
    """``{"query", "documents"}`` or a list of them; ``texts`` is another word for the documents. Shorter lists are padded."""
    queries: list[tuple[bytes, ...]] = []
    documents: list[list[bytes]] = []
    for field, item in _items(body.inputs):
        word = "texts" if isinstance(item, dict) and "texts" in item else "documents"
        pair = mapping(item, field, ("query", word))
        queries.append((text_of(pair["query"], f"{field}.query").encode(),))
        texts = strings(pair[word], f"{field}.{word}")
        if "" in texts:
            raise InvalidBody("is empty, which nothing can be ranked by", field=f"{field}.{word}[{texts.index('')}]")
        documents.append([text.encode() for text in texts])
    most = max(len(texts) for texts in documents)
    check_cells(len(documents), most, "inputs")
    padded = [(*texts, *([b""] * (most - len(texts)))) for texts in documents]
    return Rows(columns={"QUERY": queries, "DOCUMENTS": padded}, listed=isinstance(body.inputs, list))


def _items(inputs: object) -> list[tuple[str, object]]:
    """Each item with its path; a bare item is ``inputs`` itself."""
    if not isinstance(inputs, list):
        return [("inputs", inputs)]
    if not inputs:
        raise InvalidBody("the list is empty", field="inputs")
    return [(f"inputs[{index}]", item) for index, item in enumerate(items_of(inputs, "inputs"))]


def _candidate_labels(labels: object) -> list[str]:
    """A list, or a string with commas, as transformers' pipeline takes them."""
    field = "parameters.candidate_labels"
    if labels is None:
        raise InvalidBody("is missing; send the labels to choose from", field=field)
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    return strings(labels, field)


def _media(tensor: str, body: Body) -> Rows:
    if body.raw is not None:
        return Rows(columns={tensor: [(body.raw,)]}, listed=False)
    items: list[tuple[bytes, ...]] = [(decoded(item, field),) for field, item in _items(body.inputs)]
    return Rows(columns={tensor: items}, listed=isinstance(body.inputs, list))


# What each task takes → its reader. Tables, bare graphs and applications have codecs of their own.
READERS: Mapping[Takes, Callable[[Body], Rows]] = {
    Takes.TEXTS: _texts,
    Takes.TEXTS_OR_PAIRS: _texts_or_pairs,
    Takes.TEXTS_OR_COMPARISON: _texts_or_comparison,
    Takes.TEXTS_WITH_LABELS: _texts_with_labels,
    Takes.TEXTS_WITH_IMAGES: _texts_and_images,
    Takes.QUESTIONS: _questions,
    Takes.RANKINGS: _rankings,
    Takes.PROMPT: _prompt,
    Takes.IMAGES: partial(_media, "IMAGE"),
    Takes.SOUNDS: partial(_media, "AUDIO"),
}
