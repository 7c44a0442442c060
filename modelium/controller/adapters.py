"""LoRA adapters: folders that are no models of their own, but parts of the models they belong to.

What enters: adapters that were analyzed, models that came, changed or went. What leaves: revisions of bases, and what an
adapter's own line in the list says. An adapter's record never leaves INCOMPLETE (its base is not here), UNSUPPORTED (its base
cannot take it) and UNLOADED (it is attached); attached, it is shown in the state of its base.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from modelium.brain import lifecycle
from modelium.brain.adapters import Bases, Dropped, Match, first_of_each_name, name_adapters, with_adapters
from modelium.brain.runtimes.choice import choose_runtime
from modelium.brain.runtimes.vllm import name_vllm, takes_adapters
from modelium.controller.desk import Desk
from modelium.controller.record import Model
from modelium.errors import NotServable, UnknownModel
from modelium.values import Adapter, AdapterProfile, Demand, ModelOverride, ModelProfile, ModelStatus, Runtime, State, Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attachment:
    base: str
    adapter: Adapter


class Adapters:
    """Keeps adapters with their bases. ``settle()`` runs before each plan and costs nothing while no adapter is here."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._attached: dict[str, _Attachment] = {}  # an adapter's key → where it is
        self._undressed: dict[str, Model] = {}  # analyzed, and not yet given to ``revise`` with their adapters
        self._stale = False

    # -- what happens ------------------------------------------------------------------------------------------------

    def found(self, model: Model, profile: AdapterProfile) -> None:
        """A folder holds an adapter, complete."""
        model.profile = model.plain = None
        model.adapter = profile
        model.want = Demand.NONE
        model.forgive()
        model.revision_error = ""
        self._stale = True

    def changed(self) -> None:
        """Models came or went, or Triton is another one: bases may be there now, or not any more."""
        self._stale = True

    def analyzed(self, model: Model, profile: ModelProfile) -> None:
        """A model was looked at. It is revised when adapters are settled: with all of them at once, not with each in turn."""
        model.plain = profile
        self._undressed[model.key] = model
        self._stale = True

    def settle(self, revise: Callable[[Model, ModelProfile], None]) -> None:
        """Find each adapter's base anew, and give ``revise`` the models that were analyzed since, and the bases whose
        adapters are others than before.
        """
        if not self._stale:
            return
        self._stale = False
        models = self._desk.books.models
        changed, self._undressed = self._undressed, {}
        before = {each.base for each in self._attached.values()}
        if records := [model for model in models.values() if model.adapter is not None and not model.removing]:
            self._attached = self._attach(records)
        else:
            self._attached = {}
        adapters: dict[str, list[Adapter]] = {}
        for each in self._attached.values():
            adapters.setdefault(each.base, []).append(each.adapter)
        for key in dict.fromkeys((*changed, *before, *adapters)):
            base = models.get(key)
            if base is None or base.plain is None or base.removing:
                continue
            dressed = with_adapters(base.plain, adapters.get(key, ()))
            if key in changed or base.profile is None or dressed.fingerprint != base.profile.fingerprint:
                if key in before or key in adapters:
                    log.info("%s: %s", key, name_adapters(key, adapters.get(key, ())))
                revise(base, dressed)

    # -- who asks ----------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Model | None:
        """The record of the adapter that ``BASE:ADAPTER`` means. Raises ``UnknownModel`` when only the base is here."""
        said, colon, wanted = name.rpartition(":")
        base = self._model(said) if colon else None
        if base is None or base.adapter is not None:
            return None
        models = self._desk.books.models
        mine = {key: each.adapter for key, each in self._attached.items() if each.base == base.key}
        for key, adapter in mine.items():
            if wanted in (adapter.name, key, models[key].candidate.label):
                return models[key]
        raise UnknownModel(f"{base.key!r} has no LoRA adapter {wanted!r}; {name_adapters(base.key, mine.values())}")

    def target(self, model: Model) -> Target:
        """What a request for this model means. Raises ``NotServable`` for an adapter without a base to answer with."""
        if model.adapter is None:
            return Target(model=model.key)
        attached = self._attached.get(model.key)
        if attached is None:
            raise NotServable(f"{model.key!r} is {model.state}: {model.reason}")
        return Target(model=attached.base, adapter=attached.adapter.name)

    def show(self, model: Model, status: ModelStatus) -> ModelStatus:
        """An adapter that is attached is shown in the state of its base."""
        attached = self._attached.get(model.key)
        base = self._desk.books.models.get(attached.base) if attached is not None else None
        if attached is None or base is None or model.state is not State.UNLOADED:
            return status
        serving = base.serving.language if base.serving is not None else None
        serves = serving is not None and attached.adapter in serving.adapters
        state, reason = State.UNLOADED, model.reason
        if base.state in lifecycle.SERVING and serves:
            state = base.state
        elif base.state is State.LOADING or base.reloading:
            state, reason = State.LOADING, f"{model.reason}; {base.key} is being loaded with it"
        elif base.state in (State.FAILED, State.UNSUPPORTED):
            state, reason = base.state, f"{model.reason}, which is {base.state}: {base.reason}"
        return replace(status, state=state, reason=reason, base=base.key)

    # -- how bases are found -----------------------------------------------------------------------------------------

    def _attach(self, records: list[Model]) -> dict[str, _Attachment]:
        """Find the base of each among the models that are here."""
        models = self._desk.books.models.values()
        bases = Bases(_names_of(m) for m in models if m.adapter is None and not m.removing and m.plain is not None)
        wanted: dict[str, dict[str, Adapter]] = {}
        for record in records:
            if record.adapter is None:
                continue
            match = self._match(bases, record, record.adapter)
            if match.base is None:
                self._become(record, State.INCOMPLETE, match.reason)
            elif obstacle := self._obstacle(self._desk.books.models[match.base]):
                self._become(record, State.UNSUPPORTED, f"LoRA adapter for {match.base}, but {obstacle}")
            else:
                wanted.setdefault(match.base, {})[record.key] = record.adapter.adapter
        attached = {}
        for base, adapters in wanted.items():
            kept, refused = first_of_each_name(adapters)
            for key, adapter in adapters.items():
                record = self._desk.books.models[key]
                if key in refused:
                    words = f"LoRA adapter for {base}, which has one of that name already ({refused[key]}): rename the folder"
                    self._become(record, State.UNSUPPORTED, words)
                elif adapter in kept:
                    attached[key] = _Attachment(base=base, adapter=adapter)
                    words = f"LoRA adapter of rank {adapter.rank}, served as {base}:{adapter.name}"
                    self._become(record, State.UNLOADED, words)
        return attached

    def _match(self, bases: Bases, record: Model, profile: AdapterProfile) -> Match:
        override = self._desk.overrides.get(record.candidate.name, ModelOverride())
        return bases.find(_names_of(record), profile.adapter.base, override.base)

    def _obstacle(self, base: Model) -> str:
        """Why this model takes no adapters; empty when it does, or before Triton was ever there to say."""
        profile = base.plain
        assert profile is not None
        if profile.language is None:
            return f"that is a model for {profile.task}: adapters are served for language models"
        if not self._desk.books.server_starts:
            return ""
        capabilities = self._desk.capabilities()
        choice = choose_runtime(profile, capabilities, self._desk.overrides.get(profile.name, ModelOverride()))
        if choice.runtime is not Runtime.VLLM:
            how = f"is served by the {choice.runtime} runtime" if choice.runtime is not None else "cannot be served"
            return f"that {how}, and only vllm takes adapters ({choice.reason}); merge it into its base (merge_and_unload)"
        if not takes_adapters(profile.architecture, capabilities):
            return f"{name_vllm(capabilities)} takes no LoRA adapters for {profile.architecture}; merge it (merge_and_unload)"
        return ""

    def _become(self, record: Model, state: State, reason: str) -> None:
        if (record.state, record.reason) != (state, reason):
            log.info("%s: %s", record.key, reason)
            record.become(state, reason)

    def _model(self, name: str) -> Model | None:
        return self._desk.books.models.get(name) or self._desk.books.by_label(name)


def _names_of(model: Model) -> Dropped:
    return Dropped(key=model.key, label=model.candidate.label, path=str(model.candidate.path))
