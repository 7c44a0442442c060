"""What passes between Triton's side (model.py) and the tasks: rows in, answers out, and the one error that a user can cause.

What enters: bytes of ``PARAMETERS`` and of the inputs. What leaves: checked values. Tensors are those of modelium/tasks.py.
"""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np


class BadInput(Exception):
    """A row that cannot be answered as it stands; the message is for its sender and names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``parameters`` of config.pbtxt, and the device from the instance group."""

    model_path: str
    task: str
    pooling: str
    normalize: bool
    max_length: int | None
    pickled: bool
    custom_code: bool
    device: str
    onnx_file: str = ""  # the graph that holds the weights, in the model's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a request: each input's values (one, except for lists like CANDIDATE_LABELS) and its parameters."""

    inputs: dict[str, tuple[bytes, ...]]
    parameters: dict[str, object]
    is_cancelled: Callable[[], bool]

    def data(self, name: str) -> bytes:
        values = self.inputs.get(name, ())
        if not values:
            raise BadInput(f"{name} is missing")
        return values[0]

    def text(self, name: str) -> str:
        return _decode(name, self.data(name))

    def optional_text(self, name: str) -> str | None:
        return _decode(name, self.inputs[name][0]) if self.inputs.get(name) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """All values; empty ones are the padding of a shorter row and are left out."""
        return tuple(_decode(name, value) for value in self.inputs.get(name, ()) if value)


Answer = dict[str, np.ndarray]  # one row's outputs, batch dimension excluded


class TaskModel(Protocol):
    """A loaded model: answers rows in their order, with a ``BadInput`` for each row that has a fault of its own."""

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]: ...


P = TypeVar("P")
T = TypeVar("T")


def parse_json(raw: bytes) -> dict[str, object]:
    """``PARAMETERS`` of one row; nothing and ``null`` mean no parameters."""
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise BadInput(f"PARAMETERS is not JSON: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"PARAMETERS must be a JSON object, found {type(value).__name__}")
    return value


def parse_parameters(kind: type[P], given: dict[str, object]) -> P:
    """``given`` as the task's own parameters; an unknown name or a wrong type is a ``BadInput`` that names it."""
    hints = typing.get_type_hints(kind)
    values: dict[str, object] = {}
    for name, value in given.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"this task knows {', '.join(sorted(hints)) or 'none'}"
            raise BadInput(f"unknown parameter {name!r}; {known}")
        if value is not None:
            values[name] = _convert(name, value, hints[name])
    return kind(**values)


def attempt(rows: Sequence[Row], read: Callable[[Row], T]) -> tuple[list[Answer | BadInput], dict[int, T]]:
    """``read`` applied to each row: the answers so far (faults; the rest still empty) and what was read, by row."""
    answers: list[Answer | BadInput] = [{} for _ in rows]
    good: dict[int, T] = {}
    for index, row in enumerate(rows):
        try:
            good[index] = read(row)
        except BadInput as error:
            answers[index] = error
    return answers, good


def as_bytes(values: Sequence[str]) -> np.ndarray:
    """Text for a BYTES tensor."""
    return np.array([value.encode() for value in values], dtype=np.object_)


def ints(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def floats(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _decode(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is not UTF-8 text: {error}") from error


def _convert(name: str, value: object, hint: object) -> object:
    options = [o for o in (typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)) if o is not types.NoneType]
    for option in options:
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        if option == tuple[str, ...] and isinstance(value, str):
            return (value,)
        if isinstance(option, type) and isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return value
    wanted = " or ".join(getattr(o, "__name__", str(o)) if o != tuple[str, ...] else "list of strings" for o in options)
    raise BadInput(f"parameter {name!r} must be {wanted}, found {value!r}")
