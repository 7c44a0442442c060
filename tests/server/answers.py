"""Tensors of one row → the shape in which transformers' pipelines answer, so that the two can be compared.

What enters: a task and one row of its outputs. What leaves: plain lists and dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelium.values import Task

Array = np.ndarray[Any, Any]
EMBEDDINGS = (Task.FEATURE_EXTRACTION, Task.SENTENCE_SIMILARITY, Task.IMAGE_FEATURE_EXTRACTION)


def as_pipeline(task: Task, row: Mapping[str, Array], parameters: Mapping[str, object]) -> Any:
    """One row's answer in the reference's words."""
    match task:
        case Task.FEATURE_EXTRACTION | Task.SENTENCE_SIMILARITY | Task.IMAGE_FEATURE_EXTRACTION:
            return row["EMBEDDING"].tolist()
        case Task.TEXT_CLASSIFICATION | Task.IMAGE_CLASSIFICATION | Task.AUDIO_CLASSIFICATION:
            return _records(row, label="LABEL", score="SCORE")
        case Task.TEXT_RANKING:
            return row["SCORE"][: int(row["COUNT"][0])].tolist()
        case Task.ZERO_SHOT_CLASSIFICATION:
            return {"labels": _plain(row["LABEL"]), "scores": _plain(row["SCORE"])}
        case Task.TOKEN_CLASSIFICATION:
            return _entities(row, grouped=parameters.get("aggregation_strategy", "none") != "none")
        case Task.FILL_MASK:
            return _fillings(row)
        case Task.QUESTION_ANSWERING:
            return _records(row, score="SCORE", start="START", end="END", answer="ANSWER")[0]
        case Task.OBJECT_DETECTION:
            boxes = [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in row["BOX"].tolist()]
            return [{**one, "box": boxes[i]} for i, one in enumerate(_records(row, label="LABEL", score="SCORE"))]
        case Task.AUTOMATIC_SPEECH_RECOGNITION:
            return row["TEXT"][0].decode()
        case Task.TEXT_GENERATION | Task.IMAGE_TEXT_TO_TEXT | Task.TRANSLATION | Task.SUMMARIZATION | Task.TEXT2TEXT_GENERATION:
            return row["GENERATED_TEXT"][0].decode()
        case Task.TENSORS:
            return {name: value.tolist() for name, value in row.items()}


def differences(found: Any, wanted: Any, tolerance: float, place: str = "answer") -> list[str]:
    """Where two answers differ; numbers may by ``tolerance``. Keys that only the reference has (the question) don't count."""
    match found, wanted:
        case dict(), dict():
            return [d for key in found for d in differences(found[key], wanted.get(key), tolerance, f"{place}.{key}")]
        case list(), list() if len(found) == len(wanted):
            pairs = enumerate(zip(found, wanted, strict=True))
            return [d for i, (a, b) in pairs for d in differences(a, b, tolerance, f"{place}[{i}]")]
        case (float() | int(), float()) if abs(found - wanted) <= tolerance:
            return []
    return [] if found == wanted else [f"{place}: found {found!r}, the reference says {wanted!r}"]


def _records(row: Mapping[str, Array], **tensors: str) -> list[dict[str, Any]]:
    count = int(row["COUNT"][0]) if "COUNT" in row else len(row["SCORE"])
    columns = {key: _plain(row[name]) for key, name in tensors.items()}
    return [{key: values[i] for key, values in columns.items()} for i in range(count)]


def _entities(row: Mapping[str, Array], *, grouped: bool) -> list[dict[str, Any]]:
    label = "entity_group" if grouped else "entity"
    records = _records(row, **{label: "ENTITY"}, score="SCORE", word="WORD", start="START", end="END", index="INDEX")
    if grouped:
        assert all(record.pop("index") == -1 for record in records)
    return records


def _fillings(row: Mapping[str, Array]) -> Sequence[Any]:
    records = _records(row, score="SCORE", token="TOKEN", token_str="TOKEN_STR", sequence="SEQUENCE", mask="MASK")
    masks = [record.pop("mask") for record in records]
    by_mask = [[r for r, mask in zip(records, masks, strict=True) if mask == number] for number in sorted(set(masks))]
    return by_mask[0] if len(by_mask) == 1 else by_mask


def _plain(array: Array) -> list[Any]:
    return [item.decode() if isinstance(item, bytes) else item for item in array.tolist()]
