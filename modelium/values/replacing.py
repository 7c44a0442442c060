"""``dataclasses.replace`` for what changes with each request: half its time. A value enters, another one leaves."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import replace

    replaced = replace  # it checks the names and types of what is changed
else:

    def replaced(instance: Any, /, **changes: Any) -> Any:
        """The same, but for ``changes``. For frozen, slotted dataclasses that check nothing when they are made.

        Raises ``TypeError`` for a name that is no field. The fields are copied by their slots: ``dataclasses.replace`` looks
        through the fields' descriptions and then calls ``__init__``, which sets each one by its name.
        """
        cls = type(instance)
        changed = object.__new__(cls)
        left = len(changes)
        for name, get, put in _slots(cls):
            if name in changes:
                left -= 1
                put(changed, changes[name])
            else:
                put(changed, get(instance))
        if left:
            raise TypeError(f"{cls.__name__} has not all of the fields {sorted(changes)}")
        return changed


@cache
def _slots(cls: type) -> tuple[tuple[str, Any, Any], ...]:
    """Of each field its name, and what reads and writes its slot."""
    found = []
    for field in fields(cls):
        slot = getattr(cls, field.name)
        found.append((field.name, slot.__get__, slot.__set__))
    return tuple(found)
