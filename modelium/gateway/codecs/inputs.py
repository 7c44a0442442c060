"""Inputs of the tasks of the python runtime: a checked body enters, rows of Triton's tensors leave.

``listed`` says whether the client sent a list, and so gets a list: a single item is answered by a single answer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from modelium.errors import InvalidBody
from modelium.gateway.codecs.body import Body
from modelium.gateway.codecs.call import Tensors, byte_rows
from modelium.gateway.codecs.fields import check_cells, decoded, items_of, mapping, strings, text_of, text_with_images, wrong
from modelium.values import Task

_MOST_PARAMETERS_BYTES = 2**26  # over all rows, each of which has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Inputs by tensor name, one tuple of byte strings a row."""

    columns: Mapping[str, list[tuple[bytes, ...]]]
    listed: bool
    compares: bool = False  # sentence-similarity: the first row is compared with the others

    @property
    def count(self) -> int:
        return len(next(iter(self.columns.values())))

    def tensors(self, parameters: Mapping[str, object]) -> Tensors:
        columns = dict(self.columns)
        if parameters:
            written = orjson.dumps(parameters)
            if len(written) * self.count > _MOST_PARAMETERS_BYTES:
                raise InvalidBody("are too large to be sent with so many inputs; send several requests", field="parameters")
            columns["PARAMETERS"] = [(written,)] * self.count
        return {name: byte_rows(rows) for name, rows in columns.items()}


def rows_of(task: Task, body: Body) -> Rows:
    """The rows of ``body``; raises ``InvalidBody`` with the field that does not fit ``task``."""
    inputs = body.inputs
    match task:
        case Task.TEXT_CLASSIFICATION:
            return _texts_or_pairs(inputs)
        case Task.QUESTION_ANSWERING:
            return _questions(inputs)
        case Task.ZERO_SHOT_CLASSIFICATION:
            texts = _texts(inputs)
            labels = tuple(label.encode() for label in _candidate_labels(body.labels))
            check_cells(texts.count, len(labels), "parameters.candidate_labels")
            return Rows(columns={**texts.columns, "CANDIDATE_LABELS": [labels] * texts.count}, listed=texts.listed)
        case Task.FEATURE_EXTRACTION | Task.SENTENCE_SIMILARITY if isinstance(inputs, dict):
            pair = mapping(inputs, "inputs", ("source_sentence", "sentences"))
            source = text_of(pair["source_sentence"], "inputs.source_sentence")
            sentences = [source, *strings(pair["sentences"], "inputs.sentences")]
            return Rows(columns={"TEXT": [(text.encode(),) for text in sentences]}, listed=True, compares=True)
        case Task.IMAGE_TEXT_TO_TEXT:
            return _texts_and_images(inputs)
        case Task.TEXT_RANKING:
            return _rankings(inputs)
        case Task.TEXT_TO_IMAGE:
            return Rows(columns={"PROMPT": [(text_of(inputs, "inputs").encode(),)]}, listed=False)
        case Task.IMAGE_CLASSIFICATION | Task.OBJECT_DETECTION | Task.IMAGE_FEATURE_EXTRACTION:
            return _media("IMAGE", body)
        case Task.AUTOMATIC_SPEECH_RECOGNITION | Task.AUDIO_CLASSIFICATION:
            return _media("AUDIO", body)
        case _:
            return _texts(inputs)


def _texts(inputs: object) -> Rows:
    if isinstance(inputs, str):
        return Rows(columns={"TEXT": [(text_of(inputs, "inputs").encode(),)]}, listed=False)
    if not isinstance(inputs, list):
        raise wrong("inputs", "a string or a list of strings", inputs)
    return Rows(columns={"TEXT": [(text.encode(),) for text in strings(inputs, "inputs")]}, listed=True)


def _texts_or_pairs(inputs: object) -> Rows:
    """Text, ``{"text", "text_pair"}``, or a list of one kind of them."""
    items = inputs if isinstance(inputs, list) else [inputs]
    if not any(isinstance(item, dict) for item in items):
        return _texts(inputs)
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


def _texts_and_images(inputs: object) -> Rows:
    """Texts, or texts with images. Where one has fewer images than another, nothing stands in the places of the rest."""
    items = [_text_and_images(field, item) for field, item in _items(inputs)]
    columns: dict[str, list[tuple[bytes, ...]]] = {"TEXT": [(text.encode(),) for text, _ in items]}
    most = max(len(images) for _, images in items)
    if most:
        check_cells(len(items), most, "inputs")
        columns["IMAGE"] = [(*images, *([b""] * (most - len(images)))) for _, images in items]
    return Rows(columns=columns, listed=isinstance(inputs, list))


def _text_and_images(field: str, item: object) -> tuple[str, list[bytes]]:
    if isinstance(item, str):
        return item, []
    text, images = text_with_images(item, field)
    return text, [base64.b64decode(image) for image in images]


def _questions(inputs: object) -> Rows:
    questions: list[tuple[bytes, ...]] = []
    contexts: list[tuple[bytes, ...]] = []
    for field, item in _items(inputs):
        pair = mapping(item, field, ("question", "context"))
        questions.append((text_of(pair["question"], f"{field}.question").encode(),))
        contexts.append((text_of(pair["context"], f"{field}.context").encode(),))
    return Rows(columns={"QUESTION": questions, "CONTEXT": contexts}, listed=isinstance(inputs, list))


def _rankings(inputs: object) -> Rows:
    """``{"query", "documents"}`` or a list of them; ``texts`` is another word for the documents. Shorter lists are padded."""
    queries: list[tuple[bytes, ...]] = []
    documents: list[list[bytes]] = []
    for field, item in _items(inputs):
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
    return Rows(columns={"QUERY": queries, "DOCUMENTS": padded}, listed=isinstance(inputs, list))


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
