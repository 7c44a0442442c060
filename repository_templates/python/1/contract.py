"""What passes between Triton's side (model.py) and the tasks: rows in, answers out, and the one error that a user can cause.

What enters: bytes of ``PARAMETERS`` and of the inputs. What leaves: checked values. The tensors are modelium/signatures.py's.
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

# What one row may bring, so that it costs no more than what a model can use of it.
LONGEST_PARAMETERS = 1 << 20  # bytes
LONGEST_TEXT = 1_000_000  # characters; a quarter of a million tokens
MOST_TEXTS = 1_000  # CANDIDATE_LABELS and the like: each is a forward pass
LONGEST_WORD = 1_000  # characters of what goes into a template, or is looked for
LONGEST_SENTENCE = 10_000  # characters of a parameter: an instruction, what a picture shall not show
_LARGEST_INT = 2**63 - 1


class BadInput(Exception):
    """A row that cannot be answered as it stands; the message is for its sender and names the field."""


class TooLong(BadInput):
    """A row that does not fit into the model's context. Triton passes on words alone, so these begin with a mark."""

    def __str__(self) -> str:
        return f"[context_length_exceeded] {super().__str__()}"


class BadOutput(BadInput):
    """A row to which the model has no answer (its numbers are not finite): the model's fault, said in the same place."""


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
        values = [value for value in self.inputs.get(name, ()) if value]
        if len(values) > MOST_TEXTS:
            raise BadInput(f"{name} has {len(values)} values, a request may have {MOST_TEXTS}; send several requests")
        return tuple(_decode(name, value) for value in values)


Answer = dict[str, np.ndarray]  # one row's outputs, batch dimension excluded


class TaskModel(Protocol):
    """A loaded model: answers rows in their order, with a ``BadInput`` for each row that has a fault of its own."""

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]: ...


P = TypeVar("P")
T = TypeVar("T")


def parse_json(raw: bytes) -> dict[str, object]:
    """``PARAMETERS`` of one row; nothing and ``null`` mean no parameters."""
    if len(raw) > LONGEST_PARAMETERS:
        raise BadInput(f"PARAMETERS is {len(raw)} bytes long, a row may have {LONGEST_PARAMETERS}")
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"PARAMETERS is not JSON: {shown(str(error))}") from error
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
            near = difflib.get_close_matches(name[:100], hints, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"this task knows {', '.join(sorted(hints)) or 'none'}"
            raise BadInput(f"unknown parameter {shown(name)!r}; {known}")
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


def shown(value: str) -> str:
    """As much of it as belongs into a message."""
    return value if len(value) <= 100 else f"{value[:100]}…"


def short_text(name: str, value: str, longest: int = LONGEST_WORD) -> str:
    """``value``, which is a word or a sentence, not a book."""
    if len(value) > longest:
        raise BadInput(f"{name} has a text of {len(value)} characters, it may have {longest}: {shown(value)!r}")
    return value


def within(parameters: P, **limits: tuple[float, float]) -> P:
    """``parameters``, if each named one lies between its limits (or was not given)."""
    for name, (low, high) in limits.items():
        value = getattr(parameters, name)
        if value is not None and not low <= value <= high:
            wanted = f"at least {low:,}" if value < low else f"at most {high:,}"
            raise BadInput(f"parameter {name!r} must be {wanted}, found {value}")
    return parameters


def as_bytes(values: Sequence[str]) -> np.ndarray:
    """Text for a BYTES tensor."""
    return np.array([value.encode() for value in values], dtype=np.object_)


def ints(values: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def floats(values: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _decode(name: str, value: bytes) -> str:
    if len(value) > 4 * LONGEST_TEXT:
        raise BadInput(f"{name} is {len(value)} bytes long, a text may have {LONGEST_TEXT} characters")
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if len(text) > LONGEST_TEXT:
        raise BadInput(f"{name} is {len(text)} characters long, a text may have {LONGEST_TEXT}")
    return text


def _convert(name: str, value: object, hint: object) -> object:
    options = [o for o in (typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)) if o is not types.NoneType]
    for option in options:
        if option in (int, float) and isinstance(value, int | float) and not -_LARGEST_INT <= value <= _LARGEST_INT:
            raise BadInput(f"parameter {name!r} must be a number of usual size, found {shown(repr(value))}")
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option == tuple[str, ...] and isinstance(value, list) and len(value) > MOST_TEXTS:
            raise BadInput(f"parameter {name!r} has {len(value)} texts, it may have {MOST_TEXTS}")
        if option == tuple[str, ...] and isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(short_text(f"parameter {name!r}", item) for item in value)
        if option == tuple[str, ...] and isinstance(value, str):
            return (short_text(f"parameter {name!r}", value),)
        if option is str and isinstance(value, str):
            return short_text(f"parameter {name!r}", value, LONGEST_SENTENCE)
        if isinstance(option, type) and isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return value
    wanted = " or ".join(getattr(o, "__name__", str(o)) if o != tuple[str, ...] else "list of strings" for o in options)
    raise BadInput(f"parameter {name!r} must be {wanted}, found {shown(repr(value)[:200])}")
