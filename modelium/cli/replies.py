"""The gateway's JSON as the verbs read it: bytes enter, views leave. Unknown fields pass: the gateway may be newer."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from modelium.errors import ModeliumError
from modelium.views import Listing, Plan, Status, written

View = TypeVar("View")


class NotUnderstood(ModeliumError):
    """The reply is not what this version of the verbs knows."""

    type = "not_understood"


def models(body: bytes) -> Listing:
    """Raises ``NotUnderstood`` for what is not this reply."""
    return _read(Listing, body)


def model(body: bytes) -> Status:
    """Raises ``NotUnderstood`` for what is not this reply."""
    return _read(Status, body)


def plan(body: bytes) -> Plan:
    """Raises ``NotUnderstood`` for what is not this reply."""
    return _read(Plan, body)


def told(view: type[View], value: object) -> View:
    """``value`` of this process, as it would be read from a gateway."""
    return TypeAdapter(view).validate_python(written(view, value))


def decisions_json(model: Status) -> str:
    """The decisions alone, for ``why --json``."""
    decisions = [asdict(decision) for decision in model.decisions]
    for decision in decisions:
        del decision["device"], decision["beneficiary"]  # which the reason names
    return json.dumps(decisions, indent=2)


def _read(view: type[View], body: bytes) -> View:
    try:
        return TypeAdapter(view).validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise NotUnderstood(
            f"the gateway's reply is not understood at {place or 'its start'}: {first['msg']}; is it another version?"
        ) from None
