"""The views that a plan is made from, by name. Of a model that was only used, the view is made when somebody looks at it: most
of what changes is use, and most who were used are used again before anybody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from modelium.values import ModelView, Usage
from modelium.values.replacing import replaced


class Views(Mapping[str, ModelView]):
    """``_later``: of those who were used since somebody looked, what says how."""

    def __init__(self) -> None:
        self._made: dict[str, ModelView] = {}
        self._later: dict[str, Callable[[], Usage]] = {}

    def __getitem__(self, name: str) -> ModelView:
        if (usage_of := self._later.pop(name, None)) is not None:
            self._made[name] = replaced(self._made[name], usage=usage_of())
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __contains__(self, name: object) -> bool:
        return name in self._made

    def last_made(self, name: str) -> ModelView:
        """As it was when somebody last looked: right in everything but use."""
        return self._made[name]

    def put(self, view: ModelView) -> ModelView | None:
        """As it is now. What leaves is the view that was last made before; None where there was none."""
        self._later.pop(view.name, None)
        before = self._made.get(view.name)
        self._made[view.name] = view
        return before

    def use(self, name: str, usage_of: Callable[[], Usage]) -> None:
        """It is here, and was used."""
        self._later[name] = usage_of

    def drop(self, name: str) -> ModelView | None:
        """The view that was last made; None where there was none."""
        self._later.pop(name, None)
        return self._made.pop(name, None)
