"""LoRA adapters: folders that are no models of their own, but parts of the models they belong to.

What enters: all records. What leaves: where each adapter belongs, the revisions that bases get by them, and what the list
says of an adapter: attached, it is shown in the state of its base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from modelium.brain.adapters import Bases, Dropped, first_of_each_name, name_adapters, with_adapters
from modelium.brain.runtimes.choice import choose_runtime
from modelium.brain.runtimes.vllm import name_vllm, takes_adapters
from modelium.controller.life.events import Attached
from modelium.controller.life.phases import AdapterFolder, Loading, Standing
from modelium.controller.life.record import Record
from modelium.errors import NotServable, UnknownModel
from modelium.values import Adapter, Capabilities, ModelOverride, ModelProfile, ModelStatus, Runtime, State, Target, override_of


def arrange(
    records: Iterable[Record], overrides: Mapping[str, ModelOverride], capabilities: Capabilities | None
) -> tuple[dict[str, Attached], dict[str, ModelProfile]]:
    """Find each adapter's base anew: what becomes of adapters that stand elsewhere than before, and the models that are to be
    revised, those that were analyzed since and those whose adapters are others than before. ``capabilities``: None before
    Triton was ever there to say.
    """
    here = {record.key: record for record in records if not record.folder.gone}
    adapters = {key: record.phase for key, record in here.items() if isinstance(record.phase, AdapterFolder)}
    standings = _stand(here, adapters, overrides, capabilities) if adapters else {}
    dressed: dict[str, list[Adapter]] = {}
    for key, standing in standings.items():
        if standing.base:
            dressed.setdefault(standing.base, []).append(adapters[key].profile.adapter)
    changed = {
        key: standing
        for key, standing in standings.items()
        if (phase := adapters[key]) and (phase.standing, phase.reason, phase.base) != _parts(standing)
    }
    revisions = {}
    for key, record in here.items():
        plain, profile = record.folder.plain, record.folder.profile
        if plain is None:
            continue
        revision = with_adapters(plain, dressed.get(key, ()))
        if record.folder.unrevised or profile is None or revision.fingerprint != profile.fingerprint:
            revisions[key] = revision
    return changed, revisions


def _parts(standing: Attached) -> tuple[Standing, str, str]:
    return standing.standing, standing.reason, standing.base


def _stand(
    here: Mapping[str, Record],
    adapters: Mapping[str, AdapterFolder],
    overrides: Mapping[str, ModelOverride],
    capabilities: Capabilities | None,
) -> dict[str, Attached]:
    plain = {key: record.folder.plain for key, record in here.items() if record.folder.plain is not None}
    bases = Bases(_names_of(here[key]) for key in plain)
    standings: dict[str, Attached] = {}
    wanted: dict[str, dict[str, Adapter]] = {}
    for key, phase in adapters.items():
        override = override_of(overrides, here[key].folder.candidate.name)
        match = bases.find(_names_of(here[key]), phase.profile.adapter.base, override.base)
        if match.base is None:
            standings[key] = Attached(standing=Standing.WAITS, reason=match.reason)
        elif obstacle := _obstacle(plain[match.base], overrides, capabilities):
            words = f"LoRA adapter for {match.base}, but {obstacle}"
            standings[key] = Attached(standing=Standing.REFUSED, reason=words)
        else:
            wanted.setdefault(match.base, {})[key] = phase.profile.adapter
    for base, theirs in wanted.items():
        kept, refused = first_of_each_name(theirs)
        for key, adapter in theirs.items():
            if key in refused:
                words = f"LoRA adapter for {base}, which has one of that name already ({refused[key]}): rename the folder"
                standings[key] = Attached(standing=Standing.REFUSED, reason=words)
            elif adapter in kept:
                words = f"LoRA adapter of rank {adapter.rank}, served as {base}:{adapter.name}"
                standings[key] = Attached(standing=Standing.ATTACHED, reason=words, base=base)
    return standings


def _obstacle(profile: ModelProfile, overrides: Mapping[str, ModelOverride], capabilities: Capabilities | None) -> str:
    """Why this model takes no adapters; empty when it does, or while nobody can say."""
    if profile.language is None:
        return f"that is a model for {profile.task}: adapters are served for language models"
    if capabilities is None:
        return ""
    choice = choose_runtime(profile, capabilities, override_of(overrides, profile.name))
    if choice.runtime is not Runtime.VLLM:
        how = f"is served by the {choice.runtime} runtime" if choice.runtime is not None else "cannot be served"
        return f"that {how}, and only vllm takes adapters ({choice.reason}); merge it into its base (merge_and_unload)"
    if not takes_adapters(profile.architecture, capabilities):
        return f"{name_vllm(capabilities)} takes no LoRA adapters for {profile.architecture}; merge it (merge_and_unload)"
    return ""


def _names_of(record: Record) -> Dropped:
    candidate = record.folder.candidate
    return Dropped(key=record.key, label=candidate.label, path=str(candidate.path))


# -- who asks --------------------------------------------------------------------------------------------------------


def find_adapter(wanted: str, base: Record, records: Iterable[Record]) -> Record:
    """The record of the adapter that ``BASE:wanted`` means. Raises ``UnknownModel`` with the adapters that the base has."""
    mine = [
        (record, record.phase.profile.adapter)
        for record in records
        if isinstance(record.phase, AdapterFolder) and record.phase.base == base.key
    ]
    for record, adapter in mine:
        if wanted in (adapter.name, record.key, record.folder.candidate.label):
            return record
    raise UnknownModel(
        f"{base.key!r} has no LoRA adapter {wanted!r}; {name_adapters(base.key, [adapter for _, adapter in mine])}"
    )


def target_of(record: Record) -> Target:
    """What a request for this model means. Raises ``NotServable`` for an adapter without a base to answer with."""
    phase = record.phase
    if not isinstance(phase, AdapterFolder):
        return Target(model=record.key)
    if not phase.base:
        raise NotServable(f"{record.key!r} is {phase.state}: {phase.reason}")
    return Target(model=phase.base, adapter=phase.profile.adapter.name)


def shown(record: Record, status: ModelStatus, find: Callable[[str], Record | None]) -> ModelStatus:
    """An adapter that is attached is shown in the state of its base."""
    phase = record.phase
    base = find(phase.base) if isinstance(phase, AdapterFolder) and phase.base else None
    if base is None or not isinstance(phase, AdapterFolder):
        return status
    serving = base.serving.profile.language if base.serving is not None else None
    state, reason = State.UNLOADED, phase.reason
    if serving is not None and phase.profile.adapter in serving.adapters:
        state = base.state
    elif isinstance(base.phase, Loading) or base.reload is not None:
        state, reason = State.LOADING, f"{phase.reason}; {base.key} is being loaded with it"
    elif base.state.is_broken:
        state, reason = base.state, f"{phase.reason}, which is {base.state}: {base.phase.reason}"
    return replace(status, state=state, reason=reason, base=base.key)
