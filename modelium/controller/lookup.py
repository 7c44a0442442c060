"""Which model a name means: a served name, a label (``org/name``), or ``BASE:ADAPTER``."""

from __future__ import annotations

from modelium.controller.adapters import find_adapter, target_of
from modelium.controller.life.phases import AdapterFolder
from modelium.controller.model import Model
from modelium.controller.models import Models
from modelium.errors import Conflict, NoModelCalled
from modelium.names import printable
from modelium.nearest import nearest
from modelium.values import Target


class Lookup:
    """By name, among all models as they are now."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def find(self, name: str) -> Model:
        """The model or the adapter. Raises ``UnknownModel`` with the nearest names."""
        model = self._models.get(name) or self._models.by_label(name) or self._adapter(name)
        if model is None:
            near = nearest(name, self._models.keys())
            known = f"did you mean {', '.join(near)}?" if near else "`modelium list` (GET /models) shows those that are there"
            raise NoModelCalled(printable(name, longest=None), known)
        return model

    def target(self, name: str) -> Target:
        """What ``name`` means in a request.

        Raises ``UnknownModel`` with the nearest names, ``NotServable`` for an adapter that waits for its base.
        """
        return target_of(self.find(name).record)

    def own(self, name: str) -> Model:
        """What is loaded, unloaded and pinned by itself. Raises ``UnknownModel``, and ``Conflict`` for an adapter."""
        model = self.find(name)
        phase = model.record.phase
        if isinstance(phase, AdapterFolder):
            key, base = model.record.key, phase.base or "its base"
            raise Conflict(f"{key!r} is a LoRA adapter and goes with {base}: ask that of {base}, or remove the folder")
        return model

    def _adapter(self, name: str) -> Model | None:
        """What ``BASE:ADAPTER`` means. Raises ``UnknownModel`` when only the base is here."""
        said, colon, wanted = name.rpartition(":")
        base = (self._models.get(said) or self._models.by_label(said)) if colon else None
        if base is None or isinstance(base.record.phase, AdapterFolder):
            return None
        return self._models.get(find_adapter(wanted, base.record, self._models.records()).key)
