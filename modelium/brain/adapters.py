"""LoRA adapters and the models they belong to: names enter, a base (or why there is none) leaves.

An adapter is no model: it is a part of its base's revision. So a base with its adapters is a profile whose fingerprint is made
from all of them, and an adapter that comes, changes or goes is a new revision of its base.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelium.values import Adapter, ModelProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What was dropped, by its names: ``key`` it is served under, ``label`` the user sees, ``path`` it lies at."""

    key: str
    label: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """``base`` is None when the adapter waits for one; ``reason`` then says for which, and what the user may do."""

    base: str | None
    reason: str


class Bases:
    """The models that are here, by every name that an adapter may call its base."""

    def __init__(self, models: Iterable[Dropped]) -> None:
        self._exact: dict[str, str] = {}
        self._last: dict[str, list[str]] = {}
        for model in models:
            for name in (model.path, model.label, model.key):
                self._exact[name] = model.key
            self._last.setdefault(_last_part(model.label), []).append(model.key)

    def find(self, adapter: Dropped, wanted: str, named: str | None) -> Match:
        """The base of ``adapter``. ``wanted``: what its own file says; ``named``: what the user says. The first that says
        anything decides:

        1. The user: ``models: {ADAPTER: {base: NAME}}``.
        2. The folder's name, where it is ``BASE:ADAPTER``.
        3. ``base_model_name_or_path``: a label, a served name or a path that is here.
        4. Its last part, whatever the case of its letters: the organisation is often left out of a folder's name.
        """
        said, colon, _ = adapter.label.rpartition(":")
        for name, source in ((named, "models:"), (said if colon else None, "the name of its folder")):  # 1, 2
            if name:
                if (base := self._exact.get(name)) is not None:
                    return Match(base=base, reason=f"its base is named by {source}")
                return Match(base=None, reason=f"LoRA adapter for {name} (says {source}), which is not here: drop {name}")
        mend = f"name its base in models: {{{adapter.key}: {{base: NAME}}}}"
        if not wanted:
            return Match(base=None, reason=f"LoRA adapter whose adapter_config.json does not say for which model: {mend}")
        if (base := self._exact.get(wanted.rstrip("/"))) is not None:  # 3
            return Match(base=base, reason=f"adapter_config.json says {wanted}")
        alike = self._last.get(_last_part(wanted), [])  # 4
        if len(alike) == 1:
            return Match(base=alike[0], reason=f"adapter_config.json says {wanted}")
        if alike:
            return Match(base=None, reason=f"LoRA adapter for {wanted}, which could be {' or '.join(sorted(alike))}: {mend}")
        return Match(base=None, reason=f"LoRA adapter for {wanted}: drop {wanted}, or {mend}")


def with_adapters(profile: ModelProfile, adapters: Sequence[Adapter]) -> ModelProfile:
    """``profile`` as it is served with these adapters; itself when there are none, or when it is no language model."""
    if not adapters or profile.language is None:
        return profile
    ordered = tuple(sorted(adapters, key=lambda adapter: adapter.name))
    digest = hashlib.sha256(profile.fingerprint.encode())
    for adapter in ordered:
        digest.update(f"\0{adapter.name}\0{adapter.path}\0{adapter.fingerprint}".encode("utf-8", "surrogateescape"))
    language = replace(profile.language, adapters=ordered)
    return replace(profile, language=language, fingerprint=digest.hexdigest()[:32])


def name_adapters(base: str, adapters: Iterable[Adapter]) -> str:
    """``it has llama:poet and llama:sql``, for who asks for one that is not there."""
    names = [f"{base}:{adapter.name}" for adapter in adapters]
    return f"it has {' and '.join(names)}" if names else "it has no adapters"


def first_of_each_name(adapters: Mapping[str, Adapter]) -> tuple[list[Adapter], dict[str, str]]:
    """One adapter a name, by key; and for every later one the key of the first."""
    taken: dict[str, str] = {}
    kept: list[Adapter] = []
    refused: dict[str, str] = {}
    for key, adapter in sorted(adapters.items()):
        if (holder := taken.setdefault(adapter.name, key)) == key:
            kept.append(adapter)
        else:
            refused[key] = holder
    return kept, refused


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()
