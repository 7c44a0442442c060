"""Answers of the tasks of the python runtime: Triton's outputs enter, Hugging Face's usual output shapes leave.

The shapes are those that ``huggingface_hub.InferenceClient`` parses; where it leaves room, those of transformers' pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelium.errors import TritonError
from modelium.gateway.codecs.call import Tensors
from modelium.gateway.codecs.inputs import Rows
from modelium.values import Gives, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """An answer that is no JSON."""

    data: bytes
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What was said in a recording: ``parts`` are texts with the seconds in which they begin and end, None where the model told
    none; ``seconds``: how long it lasts; ``language``: its code, "" where nobody knows."""

    text: str
    parts: tuple[tuple[str, float | None, float | None], ...]
    seconds: float
    language: str


Columns = dict[str, list[Any]]  # one row of the outputs, by tensor name, as Python values
Results = list[dict[str, object]]
Parameters = Mapping[str, object]
Answer = Callable[[Sequence[Tensors]], object]


def answer_of(task: Task, rows: Rows, parameters: Parameters) -> Answer:
    """The function that turns the outputs of all chunks into the body of the answer."""
    return WRITERS[task.row.gives](task, rows, parameters)


def _each(one: Callable[[Columns, Parameters], object]) -> Callable[[Task, Rows, Parameters], Answer]:
    """One answer a row; a request that was no list gets the answer alone."""

    def write(task: Task, rows: Rows, parameters: Parameters) -> Answer:
        def answer(chunks: Sequence[Tensors]) -> object:
            answers = [one(row, parameters) for row in split_rows(chunks)]
            return answers if rows.listed else answers[0]

        return answer

    return write


def split_rows(chunks: Sequence[Tensors]) -> Iterator[Columns]:
    """Rows of all chunks, bytes as text, padding beyond COUNT cut off."""
    for outputs in chunks:
        columns = {name: _plain(array) for name, array in outputs.items()}
        for index in range(len(next(iter(columns.values())))):
            row = {name: column[index] for name, column in columns.items()}
            if "COUNT" in row:
                (count,) = row.pop("COUNT")
                row = {name: values[:count] for name, values in row.items()}
            yield row


def _plain(array: NDArray[Any]) -> list[Any]:
    values: list[Any] = array.tolist()
    return [_texts(row) for row in values] if array.dtype == np.object_ else values


def _texts(row: list[Any]) -> list[Any]:
    return [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in row]


def _ranked(row: Columns, parameters: Parameters) -> Results:
    """As rerankers answer: best first, each with its place in the request."""
    order = sorted(range(len(row["SCORE"])), key=lambda place: -row["SCORE"][place])
    count = parameters.get("top_k")
    return [{"index": place, "score": row["SCORE"][place]} for place in order[: count if isinstance(count, int) else None]]


def _vectors(chunks: Sequence[Tensors]) -> NDArray[Any]:
    arrays = [chunk["EMBEDDING"] for chunk in chunks]
    return np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))


def _embeddings(task: Task, rows: Rows, parameters: Parameters) -> Answer:
    def answer(chunks: Sequence[Tensors]) -> object:
        vectors = _vectors(chunks)
        return vectors if rows.listed else vectors[0]

    return _similarities if rows.compares else answer


def _similarities(chunks: Sequence[Tensors]) -> object:
    """Cosine of the first row with each of the others. A zero vector is like nothing: 0, not NaN, which JSON has not."""
    vectors = _vectors(chunks).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return (units[1:] @ units[0]).tolist()


def _picture(task: Task, rows: Rows, parameters: Parameters) -> Answer:
    return lambda chunks: Raw(data=chunks[0]["IMAGE"].reshape(-1)[0], content_type="image/png")


def _listed_labels(task: Task, rows: Rows, parameters: Parameters) -> Answer:
    """Hugging Face answers one text with a list of one list, and its client takes the first."""
    return lambda chunks: [_labelled(row, parameters) for row in split_rows(chunks)]


def _labelled(row: Columns, parameters: Parameters) -> Results:
    return [{"label": label, "score": score} for label, score in zip(row["LABEL"], row["SCORE"], strict=True)]


def _entities(row: Columns, parameters: Parameters) -> Results:
    """Index -1 marks aggregated entities, which have a group in place of a token; a place of -1 is none that could be told."""
    results: Results = []
    columns = (row[name] for name in ("ENTITY", "SCORE", "WORD", "INDEX", "START", "END"))
    for entity, score, word, index, start, end in zip(*columns, strict=True):
        kind: dict[str, object] = {"entity_group": entity} if index < 0 else {"entity": entity, "index": index}
        place = {"start": start, "end": end} if start >= 0 else {"start": None, "end": None}
        results.append({**kind, "score": score, "word": word, **place})
    return results


def _transcript(row: Columns, parameters: Parameters) -> dict[str, object]:
    """As transformers' pipeline answers: with the parts' seconds if they were asked for; an end is null where none was told."""
    if not parameters.get("return_timestamps"):
        return {"text": row["TEXT"][0]}
    chunks = [{"timestamp": [start, end], "text": text} for text, start, end in _parts(row)]
    return {"text": row["TEXT"][0], "chunks": chunks}


def heard_in(chunks: Sequence[Tensors]) -> Heard:
    """Of one recording."""
    row = next(split_rows(chunks))
    return Heard(text=row["TEXT"][0], parts=tuple(_parts(row)), seconds=row["DURATION"][0], language=row["LANGUAGE"][0])


def _parts(row: Columns) -> Iterator[tuple[str, float | None, float | None]]:
    count = row["CHUNKS"][0]
    columns = (row[name][:count] for name in ("CHUNK_TEXT", "CHUNK_START", "CHUNK_END"))
    for text, start, end in zip(*columns, strict=True):
        yield text, start if start >= 0 else None, end if end >= 0 else None


def _filled(row: Columns, parameters: Parameters) -> object:
    """One list for a text with one mask, a list of lists for more."""
    by_mask: dict[int, Results] = {}
    columns = (row[name] for name in ("SCORE", "TOKEN", "TOKEN_STR", "SEQUENCE", "MASK"))
    for score, token, word, sequence, mask in zip(*columns, strict=True):
        by_mask.setdefault(mask, []).append({"score": score, "token": token, "token_str": word, "sequence": sequence})
    masks = [by_mask[mask] for mask in sorted(by_mask)]
    return masks[0] if len(masks) == 1 else masks


def _answers(row: Columns, parameters: Parameters) -> object:
    columns = (row[name] for name in ("ANSWER", "SCORE", "START", "END"))
    results = [
        {"answer": answer, "score": score, "start": start, "end": end}
        for answer, score, start, end in zip(*columns, strict=True)
    ]
    if parameters.get("top_k", 1) != 1:
        return results
    if not results:
        raise TritonError("the model found no answer span; a shorter question or parameters.handle_impossible_answer may help")
    return results[0]


def _continuations(row: Columns, parameters: Parameters) -> Results:
    if not parameters.get("details"):
        return [{"generated_text": text} for text in row["GENERATED_TEXT"]]
    finish = {"stop": "eos_token", "length": "length"}
    columns = (row[name] for name in ("GENERATED_TEXT", "FINISH_REASON", "OUTPUT_TOKENS"))
    return [
        {
            "generated_text": text,
            "details": {
                "finish_reason": finish.get(reason, reason),
                "generated_tokens": tokens,
                "prefill": [],
                "tokens": [],
                "seed": None,
            },
        }
        for text, reason, tokens in zip(*columns, strict=True)
    ]


def _generated(task: Task, rows: Rows, parameters: Parameters) -> Answer:
    """As transformers' pipelines: a flat list with one result a text, nested only when each text has several."""
    key = task.row.text_key
    several = rows.listed and parameters.get("num_return_sequences", 1) != 1

    def answer(chunks: Sequence[Tensors]) -> object:
        texts = [[{key: text} for text in row["GENERATED_TEXT"]] for row in split_rows(chunks)]
        return texts if several else [result for row in texts for result in row]

    return answer


def _boxes(row: Columns, parameters: Parameters) -> Results:
    return [
        {"score": score, "label": label, "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
        for label, score, box in zip(row["LABEL"], row["SCORE"], row["BOX"], strict=True)
    ]


# What each task gives → its writer. Tables, bare graphs and applications have codecs of their own.
WRITERS: Mapping[Gives, Callable[[Task, Rows, Parameters], Answer]] = {
    Gives.EMBEDDINGS: _embeddings,
    Gives.LABELS: _each(_labelled),
    Gives.LISTED_LABELS: _listed_labels,
    Gives.ENTITIES: _each(_entities),
    Gives.FILLED_MASKS: _each(_filled),
    Gives.SPANS: _each(_answers),
    Gives.CONTINUATIONS: _each(_continuations),
    Gives.TEXTS: _generated,
    Gives.BOXES: _each(_boxes),
    Gives.TRANSCRIPTS: _each(_transcript),
    Gives.RANKINGS: _each(_ranked),
    Gives.PICTURE: _picture,
}
