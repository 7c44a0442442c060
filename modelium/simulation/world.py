"""The world of the simulator: it performs what the controller asks for, by setting down when each work will have ended.

This is the controller's ``Actions``, ``Questions`` and ``Sight``: models, a fleet and policies enter, and ends of work leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from modelium.controller.life import events as happens
from modelium.controller.life.context import Context
from modelium.controller.life.effects import Check, Load, Unload, Watch
from modelium.controller.life.phases import Absent
from modelium.controller.life.record import Folder, Memory, Past, Record, Wish
from modelium.simulation.inputs import HEADS, SimulatedModel
from modelium.simulation.tally import Tally
from modelium.values import (
    AttentionKind,
    Candidate,
    Capabilities,
    Device,
    Fleet,
    LanguageModel,
    LayerGroup,
    ModelOverride,
    ModelProfile,
    Policies,
    State,
    Task,
)

_NOWHERE = Path("/simulated")
_CAPABILITIES = Capabilities(backends=frozenset({"python", "onnxruntime", "vllm"}))
_SPREAD = LanguageModel(  # so small that an engine of it takes what it is told to take
    layers=1,
    hidden_size=64,
    heads=HEADS,
    kv_heads=1,
    head_size=64,
    vocabulary=2,
    groups=(LayerGroup(kind=AttentionKind.LATENT, layers=1, kv_heads=1, head_size=64),),
    context_length=16,
)


class VirtualWorld:
    """``after(seconds, index, event)`` tells a model later what became of the work."""

    def __init__(
        self,
        models: Sequence[SimulatedModel],
        fleet: Fleet,
        policies: Policies,
        tally: Tally,
        *,
        after: Callable[[float, int, happens.LifeEvent], None],
        drain_timeout_s: float,
        usage_window_s: float,
    ) -> None:
        self.policies = policies
        self.usage_window_s = usage_window_s
        self.overrides: Mapping[str, ModelOverride] = {model.name: _override(model) for model in models}
        self.now = 0.0
        self._fleet = fleet
        self._models = models
        self._numbers = {model.name: index for index, model in enumerate(models)}
        self._tally = tally
        self._after = after
        self._drain_timeout_s = drain_timeout_s
        self._context: Context | None = None

    def context(self) -> Context:
        """What a step may know now."""
        known = self._context
        if known is None or known.now != self.now:
            known = self._context = Context(
                now=self.now,
                drain_timeout_s=self._drain_timeout_s,
                usage_window_s=self.usage_window_s,
                load_on_discovery=False,
                devices=self._fleet.devices,
            )
        return known

    # -- what may be asked -------------------------------------------------------------------------------------------

    def fleet(self) -> Fleet:
        """All empty but for the models, of which the plan keeps account."""
        return self._fleet

    def capabilities(self) -> Capabilities:
        """Those of a Triton with all backends: a simulated model is its bytes and its seconds."""
        return _CAPABILITIES

    def check(self, key: str, order: Check) -> None:
        """Nothing dies here."""

    def watch(self, key: str, order: Watch) -> Iterator[Callable[[], None]]:
        """Nothing dies here."""
        return iter(())

    def measure(self, generation: int, places: Callable[[], Mapping[str, Device]]) -> None:
        """Every model takes what it was said to take; what was asked of it is read at intervals."""

    # -- what may be done --------------------------------------------------------------------------------------------

    def analyze(self, candidates: Sequence[tuple[str, Candidate]], *, soon: bool) -> None:
        """The models are known."""

    def load(self, key: str, order: Load) -> None:
        """It ends after the model's load seconds."""
        index = self._numbers[key]
        model = self._models[index]
        self._tally.load(index, model.bytes, model.load_seconds, self.now)
        loaded = happens.HasLoaded(number=order.number, seconds=model.load_seconds)
        self._after(model.load_seconds, index, loaded)

    def unload(self, key: str, order: Unload, *, current: Callable[[], bool]) -> None:
        """It ends after the model's unload seconds."""
        index = self._numbers[key]
        self._tally.unload()
        seconds = self._models[index].unload_seconds
        self._after(seconds, index, happens.HasUnloaded(number=order.number, seconds=seconds))

    def bury(self, key: str, number: int) -> None:
        """Nothing dies here."""

    def end(self, key: str) -> None:
        """No load waits for what will not come."""

    def discard(self, key: str) -> None:
        """Nothing is to be forgotten."""

    def remove(self, key: str) -> None:
        """There are no entries."""


def record_of(model: SimulatedModel) -> Record:
    """Known, not loaded, and measured as by a Modelium that has served it before."""
    profile = ModelProfile(
        name=model.name,
        path=_NOWHERE,
        task=Task.TEXT_CLASSIFICATION,
        library="transformers",
        architecture="BertForSequenceClassification",
        weight_bytes=model.bytes,
        fingerprint=model.name,
    )
    if model.tensor_parallel > 1:
        profile = replace(
            profile,
            task=Task.TEXT_GENERATION,
            architecture="LlamaForCausalLM",
            is_llm=True,
            dtype="bfloat16",
            weight_bytes=0,
            language=_SPREAD,
        )
    candidate = Candidate(
        name=model.name, label=model.name, path=_NOWHERE, root=_NOWHERE, signature=model.name, newest_mtime=0.0
    )
    return Record(
        key=model.name,
        folder=Folder(candidate=candidate, analyzed_signature=model.name, plain=profile, profile=profile),
        phase=Absent(state=State.UNLOADED, reason="not loaded yet"),
        wish=Wish(pinned=model.pinned, always_loaded=model.always_loaded),
        memory=Memory(stated=model.bytes_each, estimated=model.bytes_each, measured=model.bytes_each),
        past=Past(load_seconds=model.load_seconds),
    )


def _override(model: SimulatedModel) -> ModelOverride:
    spread = {"tensor_parallel_size": model.tensor_parallel, "enforce_eager": True, "max_num_seqs": 1}
    engine_args = spread if model.tensor_parallel > 1 else {}
    return ModelOverride(device=model.device, devices=model.devices, memory_bytes=model.bytes_each, engine_args=engine_args)
