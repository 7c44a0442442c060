"""Fields of views: a declaration enters, what writes it to JSON leaves.

A view is a frozen dataclass. Each of its fields says by its name what it is called in JSON, by its type how it is written and
read back, by its default what is meant where an older gateway does not send it, and by ``Of`` what it is made of::

    _device = Of[Device]()

    class DeviceView:
        id: str = _device.needed()                             # device.id
        share: float = _device(0.0, lambda d: d.used / d.all)  # made by that function
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType
from typing import Annotated, Any, Generic, TypeVar, cast, get_args, get_origin, get_type_hints

Json = dict[str, object]
T = TypeVar("T")
V = TypeVar("V")
_MAKE = "make"

_AGE = "age"
# Made of an instant of the monotonic clock, which means nothing outside.
Age = Annotated[float, _AGE]


class Of(Generic[V]):
    """Declares fields that are made of a ``V``: of its attribute of the same name ``below``, or by a function."""

    def __init__(self, below: str = "") -> None:
        self._below = f"{below}." if below else ""

    def __call__(self, default: T, make: Callable[[V], object] | None = None) -> T:
        """A field that may be absent where it is read: then it is ``default``."""
        metadata = {_MAKE: make or self._below}
        if isinstance(default, dict):
            return cast("T", field(default_factory=default.copy, metadata=metadata))
        return field(default=default, metadata=metadata)

    def needed(self, make: Callable[[V], object] | None = None) -> Any:
        """A field without which nothing is understood."""
        return field(metadata={_MAKE: make or self._below})


_Writer = Callable[[Any, float], object]


def written(view: type, value: object, now: float = 0.0) -> Json:
    """``value`` as ``view`` shows it. ``now`` is an instant of the clock that decisions are stamped with."""
    columns = _columns(view)
    row = columns.blank.copy()
    row.update(zip(columns.plain, columns.get(value), strict=True))
    for name, make, write in columns.made:
        made = make(value)
        row[name] = made if write is None else write(made, now)
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Of a view: all in order; the plain ones, attributes of the value (most are, so they are got at once); the others."""

    blank: Json
    plain: tuple[str, ...]
    get: Callable[[object], tuple[object, ...]]
    made: tuple[tuple[str, Callable[[Any], object], _Writer | None], ...]


@cache
def _columns(view: type) -> _Columns:
    kinds = get_type_hints(view, include_extras=True)
    plain: dict[str, str] = {}
    made: list[tuple[str, Callable[[Any], object], _Writer | None]] = []
    for one in fields(view):
        make, write = one.metadata[_MAKE], _writer(kinds[one.name])
        if not isinstance(make, str):
            made.append((one.name, make, write))
        elif write is None:
            plain[one.name] = make + one.name
        else:
            made.append((one.name, attrgetter(make + one.name), write))
    getters = [attrgetter(path) for path in plain.values()]
    get = attrgetter(*plain.values()) if len(plain) > 1 else lambda value: tuple(getter(value) for getter in getters)
    return _Columns(blank=dict.fromkeys(one.name for one in fields(view)), plain=tuple(plain), get=get, made=tuple(made))


def _writer(kind: Any) -> _Writer | None:
    """How a value of that type is written; None: as it is (a ``StrEnum`` is its word)."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated and _AGE in inner:
        return lambda value, now: max(0.0, now - value)
    if NoneType in inner:
        (one,) = (each for each in inner if each is not NoneType)
        write = _writer(one)
        return None if write is None else lambda value, now: None if value is None else write(value, now)
    if origin is tuple:
        each = _writer(inner[0])
        return (lambda value, now: list(value)) if each is None else lambda value, now: [each(item, now) for item in value]
    if is_dataclass(kind):
        return lambda value, now: written(cast("type", kind), value, now)
    if origin in (dict, Mapping):
        return lambda value, now: dict(value)
    return None
