"""Asking models with tensors for the neighbours: a checked body in Hugging Face's words enters, the task's answer leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelium.gateway.asking import Asked, Asking
from modelium.gateway.codecs import Body, encode_body
from modelium.gateway.deadline import Deadline
from modelium.gateway.http.answers import waited_headers
from modelium.gateway.openai.directory import Served
from modelium.gateway.openai.errors import BadRequest
from modelium.values import Task

if TYPE_CHECKING:
    from modelium.controller import Lease

Vectors = NDArray[np.float64]


async def answer_to(asking: Asking, served: Served, body: Body, deadline: Deadline) -> Asked[Any]:
    """What the model answers to ``body``. Raises ``InvalidBody``, before anything is loaded, and what asking a model raises."""
    encode_body(served.profile, body)

    async def ask(lease: Lease) -> object:
        call = encode_body(lease.profile, body)
        return call.answer(await asking.infer(lease, call, deadline))

    return await asking.once(served.name, ask, deadline)


def headers_of(asked: Asked[Any]) -> dict[str, str]:
    """What the client is told of a load that it waited for."""
    return waited_headers(asked.waited.seconds, cold=asked.waited.cold)


async def probabilities_of(
    asking: Asking, served: Served, texts: Sequence[str], deadline: Deadline, *, activated: bool = True
) -> Asked[list[list[float]]]:
    """One for each of the model's labels, in id order, for each text."""
    profile = served.profile
    if profile.task is not Task.TEXT_CLASSIFICATION or profile.onnx is not None:
        raise BadRequest(
            f"model: {served.name!r} does not classify texts; it does {profile.task.value}: ask POST /predict/{served.name}",
            param="model",
            code="unsupported_model",
        )
    parameters = {} if activated else {"function_to_apply": "none"}
    asked = await answer_to(asking, served, Body(inputs=list(texts), parameters=parameters), deadline)
    places = {label: place for place, label in enumerate(profile.labels)}
    rows = [sorted(row, key=lambda one: places.get(one["label"], len(places))) for row in asked.answer]
    return Asked(answer=[[one["score"] for one in row] for row in rows], waited=asked.waited)


def cosines(left: Vectors, right: Vectors) -> list[float]:
    """Row by row; one row on the left goes with every row on the right. A vector of zeros is like nothing."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = (left * right).sum(axis=1)
    found: list[float] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0).tolist()
    return found
