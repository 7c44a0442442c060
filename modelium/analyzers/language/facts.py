"""Typed questions to one part of a ``config.json``. What enters: its JSON and its configuration class. What leaves: numbers.

Everything in the file may be of any type: what is no sane value is as good as absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelium.analyzers.formats.json_text import JsonObject, nested, text
from modelium.analyzers.language.config_classes import UNKNOWN, ConfigClass, class_of_part, class_of_type

_MOST = 2**40  # no width, count or length of any model comes near


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """``given`` wins over the class's defaults; an explicit null does too, and reads as absent."""

    given: JsonObject
    known: ConfigClass = UNKNOWN

    @property
    def model_type(self) -> str:
        """As the file says, else as its class does."""
        return text(self.given, "model_type") or self.known.model_type

    def value(self, *names: str) -> object:
        """The first of ``names`` that the file gives, under that name or the class's; else the first default."""
        keys = [key for name in names for key in self._keys(name)]
        for key in keys:
            if self.given.get(key) is not None:
                return self.given[key]
        if any(key in self.given for key in keys):
            return None
        return next((self.known.defaults[key] for key in keys if self.known.defaults.get(key) is not None), None)

    def number(self, *names: str) -> int | None:
        """A positive whole number."""
        return as_number(self.value(*names))

    def word(self, *names: str) -> str:
        """The first of ``names`` that is given, "" where it is no text."""
        value = self.value(*names)
        return value if isinstance(value, str) else ""

    def flag(self, *names: str) -> bool | None:
        """The first of ``names`` that is given, None where it is no boolean."""
        value = self.value(*names)
        return value if isinstance(value, bool) else None

    def items(self, *names: str) -> list[object]:
        """The first of ``names`` that is given, empty where it is no list."""
        value = self.value(*names)
        return value if isinstance(value, list) else []

    def part(self, key: str) -> Facts:
        """The nested object ``key``; empty where there is none."""
        inner = nested(self.given, key)
        own_type = text(inner, "model_type")
        known = class_of_type(own_type) if own_type else UNKNOWN
        return Facts(given=inner, known=known if known is not UNKNOWN else class_of_part(self.known, key))

    def has(self, *names: str) -> bool:
        """Is any of ``names`` given, or known of the class?"""
        return self.value(*names) is not None

    def _keys(self, name: str) -> Iterator[str]:
        yield name
        if (alias := self.known.aliases.get(name)) is not None:
            yield alias


def as_number(value: object) -> int | None:
    """A positive whole number below any absurd size; ``4096.0`` is one, ``True`` and ``"12"`` are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else None
