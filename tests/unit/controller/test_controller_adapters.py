"""LoRA adapters in the controller: folders on disk enter, and nothing needs a Triton to be seen in the list, the names in
requests, and the revisions of their bases.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelium.analysis import Analysts
from modelium.analyzers import analyze
from modelium.config import Settings
from modelium.controller import Controller
from modelium.controller.events import Scanned, ServerUp
from modelium.devices import Devices
from modelium.errors import Conflict, NotServable, UnknownModel
from modelium.ledger import Ledger
from modelium.metrics import Recorder
from modelium.repository import ModelRepository
from modelium.triton.client import IndexEntry, TritonClient
from modelium.values import Analysis, Candidate, ModelOverride, ModelStatus, State, Target, VllmFacts
from modelium.watcher import Watcher
from tests.unit.analyzers.folders import TOKENIZER, drop, lay, safetensors
from tests.unit.analyzers.test_adapters import adapter

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}
BERT_LIKE = {**LLAMA, "architectures": ["BertModel"], "model_type": "bert"}
SERVES_LLAMA = VllmFacts(version="9.9.9", architectures=frozenset({"LlamaForCausalLM"}), lora=frozenset({"LlamaForCausalLM"}))


class Here(Analysts):
    """Looks at folders in this process: no second to start another in, which test_analysis.py does."""

    async def analyze(self, candidate: Candidate, override: ModelOverride, *, soon: bool = False) -> Analysis:
        return await asyncio.to_thread(analyze, candidate, override)

    def warm(self) -> None:
        pass


class World:
    """A controller without a Triton, over a real folder."""

    def __init__(
        self,
        top: Path,
        *,
        client: TritonClient | None = None,
        analysts: Analysts | None = None,
        devices: Devices | None = None,
        server_pid: int | None = None,
        **settings: object,
    ) -> None:
        self.incoming = top / "incoming"
        self._watcher = Watcher([self.incoming], settle_seconds=0.1)
        self.backends = frozenset({"python", "vllm"})
        self.controller = Controller(
            Settings.model_validate(
                {"orchestration": {"load_on_discovery": False}, "triton": {"state_directory": top / "state"}, **settings}
            ),
            client=client or TritonClient(http_url="127.0.0.1:1", grpc_url="127.0.0.1:1"),
            repository=ModelRepository(top / "repository"),
            devices=devices or Devices(host_memory=None, gpu_memory_fraction=0.9),
            server_pid=lambda: server_pid,
            ledger=Ledger.load(top / "ledger.json"),
            recorder=Recorder(),
            backends=lambda: self.backends,
            vllm=lambda: SERVES_LLAMA,
            analysts=analysts or Here(),
        )

    def scan(self) -> None:
        self.controller.post(Scanned(candidates=self._watcher.scan(), seconds=0.0))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(900):
            while not holds():
                self.scan()
                await asyncio.sleep(0.005)

    def status(self, name: str) -> ModelStatus:
        return self.controller.status(name)

    async def until_state(self, name: str, state: State) -> ModelStatus:
        def reached() -> bool:
            with contextlib.suppress(UnknownModel):
                return self.status(name).state is state
            return False

        await self.until(reached)
        return self.status(name)


@contextlib.asynccontextmanager
async def world(
    top: Path,
    *,
    client: TritonClient | None = None,
    analysts: Analysts | None = None,
    devices: Devices | None = None,
    server_pid: int | None = None,
    **settings: object,
) -> AsyncIterator[World]:
    (top / "incoming").mkdir(exist_ok=True)
    made = World(top, client=client, analysts=analysts, devices=devices, server_pid=server_pid, **settings)
    task = asyncio.create_task(made.controller.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def llama(folder: Path) -> Path:
    return drop(folder, LLAMA, {"tokenizer.json": TOKENIZER, "model.safetensors": safetensors()})


async def test_an_adapter_goes_to_the_base_that_its_config_names(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        llama(here.incoming / "Llama")
        adapter(here.incoming / "poet")  # for org/llama
        found = await here.until_state("poet", State.UNLOADED)
        assert found.base == "Llama" and "served as Llama:poet" in found.reason
        base = here.status("Llama")
        assert base.profile is not None and base.profile.language is not None
        assert [each.name for each in base.profile.language.adapters] == ["poet"]
        target = here.controller.target
        assert target("Llama") == Target(model="Llama")
        assert target("poet") == target("Llama:poet") == Target(model="Llama", adapter="poet")
        assert here.status("Llama:poet").name == "poet"
        with pytest.raises(UnknownModel, match="no LoRA adapter 'sql'; it has Llama:poet"):
            target("Llama:sql")
        with pytest.raises(UnknownModel, match="no model is called"):
            target("Lama:poet")
        with pytest.raises(NotServable, match="ask for BASE:ADAPTER"):
            await here.controller.lease("poet", timeout_s=1)
        with pytest.raises(Conflict, match="goes with Llama"):
            here.controller.pin("poet", True)


@pytest.mark.parametrize(
    ("orchestration", "reason"),
    [
        ({"load_on_discovery": False}, "not loaded yet: its first request loads it (orchestration.load_on_discovery: false)"),
        ({"load_on_discovery": True}, "not loaded yet"),
        ({"load_on_discovery": False, "policies": {"always_loaded": ["Llama", "next"]}}, "not loaded yet"),
    ],
)
async def test_who_loads_a_dropped_model_is_said_and_so_it_is_planned_before(
    tmp_path: Path, orchestration: dict[str, object], reason: str
) -> None:
    async with world(tmp_path, orchestration=orchestration) as here:
        llama(here.incoming / "Llama")
        found = await here.until_state("Llama", State.UNLOADED)
        assert found.reason == reason and found.profile is not None
        waits = reason != "not loaded yet"
        first = here.controller.plan_with(replace(found.profile, name="next", path=tmp_path / "next")).decisions[0]
        assert (first.model, "its first request loads it" in first.reason) == ("next", waits)
        with pytest.raises(Conflict, match="with the same content: dropped again, nothing would change; `modelium why Llama`"):
            here.controller.plan_with(found.profile)
        with pytest.raises(Conflict, match="with other content: dropped in its place, this is a newer revision of it"):
            here.controller.plan_with(replace(found.profile, fingerprint="other"))


async def test_an_adapter_that_comes_changes_and_goes_is_a_revision_of_its_base(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        llama(here.incoming / "Llama")
        alone = (await here.until_state("Llama", State.UNLOADED)).profile
        adapter(here.incoming / "poet")
        await here.until_state("poet", State.UNLOADED)
        dressed = here.status("Llama").profile
        assert alone is not None and dressed is not None and dressed.fingerprint != alone.fingerprint
        adapter(here.incoming / "poet", {"lora_alpha": 99})
        await here.until(lambda: here.status("Llama").profile not in (alone, dressed))
        shutil.rmtree(here.incoming / "poet")
        await here.until(lambda: here.status("Llama").profile == alone)
        with pytest.raises(UnknownModel):
            here.status("poet")


async def test_an_adapter_waits_for_its_base_and_says_for_which(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        adapter(here.incoming / "poet")
        lay(here.incoming / "poet", {"README.md": "x"})
        await here.until(lambda: "drop org/llama" in here.status("poet").reason if here.controller.names() else False)
        waiting = here.status("poet")
        assert waiting.state is State.INCOMPLETE and "models: {poet: {base: NAME}}" in waiting.reason
        with pytest.raises(NotServable, match="drop org/llama"):
            here.controller.target("poet")
        llama(here.incoming / "org" / "llama")
        assert (await here.until_state("poet", State.UNLOADED)).base == "org--llama"
        assert here.controller.target("org/llama:poet") == Target(model="org--llama", adapter="poet")
        shutil.rmtree(here.incoming / "org")
        await here.until_state("poet", State.INCOMPLETE)


async def test_a_triton_that_serves_a_base_with_its_adapter_already_keeps_it(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        llama(here.incoming / "Llama")
        adapter(here.incoming / "a-poet")
        await here.until_state("a-poet", State.UNLOADED)
        known = here.status("Llama").profile
    assert known is not None
    async with world(tmp_path) as here:
        ready = IndexEntry(name="Llama", state="READY", reason="")
        here.controller.post(ServerUp(version="2.51.0", index={"Llama": ready}, owned={"Llama": known.fingerprint}))
        assert (await here.until_state("a-poet", State.LOADED)).base == "Llama"
        assert here.status("Llama").reason == "Triton had it loaded already"


async def test_the_user_and_the_folders_name_win_over_the_config(tmp_path: Path) -> None:
    async with world(tmp_path, models={"poet": {"base": "other"}}) as here:
        for name in ("llama", "other"):
            llama(here.incoming / name)
        adapter(here.incoming / "poet")
        adapter(here.incoming / "other:singer")
        await here.until(lambda: len(here.controller.names()) == 4)
        assert (await here.until_state("poet", State.UNLOADED)).base == "other"
        await here.until_state("other:singer", State.UNLOADED)
        assert here.controller.target("other:singer") == Target(model="other", adapter="singer")


async def test_two_adapters_of_one_name_are_told_apart(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        llama(here.incoming / "llama")
        adapter(here.incoming / "poet")
        adapter(here.incoming / "llama:poet")
        later = await here.until_state("poet", State.UNSUPPORTED)
        assert "has one of that name already" in later.reason


async def test_a_base_that_takes_no_adapters_says_why(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        llama(here.incoming / "llama")
        drop(here.incoming / "bert")
        adapter(here.incoming / "poet")
        adapter(here.incoming / "stranger", {"base_model_name_or_path": "org/bert"})
        assert "adapters are served for language models" in (await here.until_state("stranger", State.UNSUPPORTED)).reason
        await here.until_state("poet", State.UNLOADED)  # Triton is not there yet: nobody knows better
        here.backends = frozenset({"python"})
        here.controller.post(ServerUp(version="2.51.0", index={}, owned={}))
        refused = await here.until_state("poet", State.UNSUPPORTED)
        assert "served by the python runtime, and only vllm takes adapters" in refused.reason
        base = here.status("llama").profile
        assert base is not None and base.language is not None and not base.language.adapters
