"""Models that only Ray serves, for the tests of /predict and /apps: their profiles, and what their entries answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from modelium.values import ServeApp, TabularModel, Task

from .stand_in import Served, Step, Tensors, numbers, profile_of, texts

FLOWERS = TabularModel(file="model.skops", features=2, columns=("length", "width"))
IRIS = profile_of(Task.TABULAR_CLASSIFICATION, "iris", library="scikit-learn", tabular=FLOWERS)
PRICES = profile_of(Task.TABULAR_REGRESSION, "prices", library="lightgbm", tabular=TabularModel(file="model.txt"))
RANKER = profile_of(Task.TEXT_RANKING, "ranker", library="sentence-transformers")
PAINTER = profile_of(Task.TEXT_TO_IMAGE, "painter", library="diffusers")
GREETER = profile_of(Task.SERVE_APP, "greeter", library="ray-serve", app=ServeApp(import_path="serve_app:app"))

Answer = tuple[int, Any]


async def post(gateway: Served, url: str, body: object, **options: Any) -> Answer:
    """Status and JSON of the answer to ``body``: JSON, or bytes as they are."""
    sent = {"data": body} if isinstance(body, bytes) else {"json": body}
    async with gateway.http.post(url, **sent, **options) as response:
        return response.status, await response.json()


def classified(labels: Sequence[str], classes: Sequence[str], *scores: Sequence[float]) -> dict[str, NDArray[Any]]:
    """What an entry says of a row each: ``labels``, and the ``scores`` of ``classes``."""
    count = len(labels)
    return {
        "LABEL": texts(*([label] for label in labels)),
        "CLASS": texts(*[list(classes)] * count),
        "SCORE": numbers(*scores, dtype=np.float64),
        "COUNT": numbers(*[[len(classes)]] * count, dtype=np.int32),
    }


def piece(body: bytes, *, status: int = 200, content_type: str = "text/plain", location: str = "") -> Tensors:
    """A part of an application's answer, as its entry sends it."""
    return {
        "RESPONSE": _bytes(body),
        "STATUS": np.array([status], dtype=np.int32),
        "CONTENT_TYPE": _bytes(content_type.encode()),
        "LOCATION": _bytes(location.encode()),
    }


def serve_app(gateway: Served, *steps: Step) -> str:
    """Serve the application, whose answer is ``steps``; gives its URL below /apps."""
    gateway.serve(GREETER)
    gateway.triton.streamer = lambda inputs: steps
    return f"{gateway.url}/apps/greeter"


def asked(gateway: Served) -> dict[str, bytes]:
    """What reached the application last, by tensor."""
    return {name: array.item() for name, array in gateway.triton.seen[-1].items()}


async def read(response: aiohttp.ClientResponse) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    return response.status, response.headers["Content-Type"], await response.read()


def _bytes(value: bytes) -> NDArray[Any]:
    array = np.empty(1, dtype=np.object_)
    array[0] = value
    return array
