"""What ``/predict`` takes and answers, in Hugging Face's schema: the kinds of its JSON, for all tasks together."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

Json = dict[str, Any]


class PredictBody(TypedDict):
    """``inputs``: what the model's task takes, or a list of it; ``prompt`` is another word for it where texts are continued.
    ``parameters``: those of the task. ``stream``: of tasks that continue texts."""

    inputs: NotRequired[Any]
    prompt: NotRequired[str]
    parameters: NotRequired[Json | None]
    options: NotRequired[Json | None]
    stream: NotRequired[bool | None]
    model: NotRequired[str | None]


class GeneratedText(TypedDict):
    """A text; ``details`` if they were asked for."""

    generated_text: str
    details: NotRequired[Json]


# Lists, one element an item of the request; objects, for a single item; a vector; what an application answers.
Prediction = list[Any] | Json | str | float | bool | None
