"""sentence-transformers' CrossEncoder: rows with QUERY and DOCUMENTS enter, a score for each document leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from modelium_tasks.contract import Answer, BadInput, Row, attempt, floats, ints
from modelium_tasks.folder import readable_path


def load(given: Mapping[str, str], device: str) -> Ranking:
    """Load the model."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        readable_path(given["model_path"]),
        device=device,
        local_files_only=True,
        trust_remote_code=given.get("custom_code") == "true",
    )
    if model.num_labels != 1:
        raise RuntimeError(
            f"it has {model.num_labels} labels: a model that ranks has one (task: text-classification serves it)"
        )
    return Ranking(model)


class Ranking:
    """All pairs of all rows in one pass; the library sorts them by length and batches them."""

    def __init__(self, model: object) -> None:
        self._model = model

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._pairs)
        pairs = [pair for several in good.values() for pair in several]
        scores = np.asarray(self._model.predict(pairs, show_progress_bar=False)) if pairs else np.zeros(0)  # type: ignore[attr-defined]
        start = 0
        for number, several in good.items():
            answers[number] = {"SCORE": floats(scores[start : start + len(several)]), "COUNT": ints([len(several)])}
            start += len(several)
        return answers

    def _pairs(self, row: Row) -> list[tuple[str, str]]:
        query, documents = row.text("QUERY"), row.texts("DOCUMENTS")
        if not documents:
            raise BadInput("DOCUMENTS is empty: send at least one text to rank")
        return [(query, document) for document in documents]
