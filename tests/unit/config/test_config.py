"""``modelium.yaml``: sizes, unknown keys with the nearest known one, the environment, and the documented example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from modelium.config import ModelSettings, Settings, load_settings, parse_bytes
from modelium.errors import ConfigError
from modelium.values import Eviction, Problem, RayFacts, RayOptions, Runtime, Task

EXAMPLE = Path(__file__).resolve().parents[3] / "modelium.example.yaml"


def settings_of(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "modelium.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def every_key(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{place}{name}"
        yield key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from every_key(field.annotation, f"{key}.")


def keys_of(data: object, place: str = "") -> Iterator[str]:
    if isinstance(data, dict):
        for name, value in data.items():
            yield f"{place}{name}"
            yield from keys_of(value, f"{place}{name}.")


# -- the example ---------------------------------------------------------------------------------------------------


def test_the_example_is_the_defaults() -> None:
    assert load_settings(EXAMPLE) == Settings()


def test_the_example_names_every_key_and_no_other() -> None:
    assert set(keys_of(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")))) == set(every_key(Settings))


def test_the_example_explains_every_per_model_key() -> None:
    comment = EXAMPLE.read_text(encoding="utf-8").split("# Per-model overrides", 1)[1]
    lines = re.findall(r"^#   (\w+): (.+?)  ", comment, re.MULTILINE)
    documented = yaml.safe_load("\n".join(f"{key}: {value}" for key, value in lines))
    assert set(documented) == set(ModelSettings.model_fields)
    ModelSettings.model_validate(documented)  # what the comments show can be written


def test_every_key_of_the_example_has_words() -> None:
    """Behind it, except where the name says all."""
    text = EXAMPLE.read_text(encoding="utf-8")
    plain = {"host", "port", "http_url", "grpc_url", "metrics_url", "enabled", "models", "orchestration"}
    for line in text.splitlines():
        key = re.match(r"\s+(\w+): \S", line)
        if key and key[1] not in plain:
            assert " # " in line, f"no words for {line.strip()!r}"


# -- what a user gets wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gatway: {port: 1}", ["gatway: unknown key", "did you mean 'gateway'?"]),
        ("gateway: {prot: 1}", ["gateway.prot: unknown key", "did you mean 'port'?"]),
        ("orchestration: {policies: {evict_after_seconds: 3}}", ["evict_after_seconds", "'evict_after_idle_seconds'"]),
        ("models: {bert: {pinned: true}}", ["models.bert.pinned", "'pin'"]),
        ("vllm: {qqqq: 1}", ["vllm.qqqq: unknown key; known keys here: enabled"]),
        ("gateway: {port: 70000}", ["gateway.port", "65535", "found 70000"]),
        ("gateway: {grpc_port: 70000}", ["gateway.grpc_port", "65535", "found 70000"]),
        ("devices: {host_memory: 12 parsecs}", ["devices.host_memory", "12GiB"]),
        ("vllm: {kv_concurrency: 0}", ["vllm.kv_concurrency", "greater than or equal to 1", "found 0"]),
        ("vllm: {kv_cache_floor: 1GiB, kv_cache_ceiling: 1MiB}", ["vllm: kv_cache_floor is above kv_cache_ceiling"]),
        ("triton: {mode: remote}", ["triton.mode", "embedded", "external"]),
        ("ray: {adress: auto}", ["ray.adress: unknown key; did you mean 'address'?"]),
        ("models: {m: {ray: {max_replica: 2}}}", ["models.m.ray.max_replica: unknown key; did you mean 'max_replicas'?"]),
        ("models: {m: {ray: {enabled: true}}}", ["models.m.ray.enabled: unknown key; known keys here: cpus_per_replica"]),
        (
            'ray: {address: "ray://head:10001"}',
            ["ray.address: Ray's client protocol", "give the GCS of the cluster, HOST:6379"],
        ),
        ("ray: {address: head}", ["ray.address: 'head' is neither auto nor HOST:PORT, like ray-head:6379"]),
        ('ray: {address: "head:"}', ["ray.address: 'head:' is neither auto nor HOST:PORT"]),
        ("ray: {object_store_memory: 79MiB}", ["ray.object_store_memory", "greater than or equal to 83886080"]),
        ("ray: {min_replicas: 3, max_replicas: 2}", ["ray: min_replicas is above max_replicas"]),
        ("models: {m: {ray: {min_replicas: 3, max_replicas: 2}}}", ["models.m.ray: min_replicas is above max_replicas"]),
        ("ray: {max_replicas: 0}", ["ray.max_replicas", "greater than or equal to 1", "found 0"]),
        ("models: {m: {ray: {target_ongoing_requests: 0}}}", ["models.m.ray.target_ongoing_requests", "greater than 0"]),
        ("- a list", ["expected a mapping at the top, found list"]),
        ("gateway: [", ["cannot be read"]),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, text)
    for word in words:
        assert word in str(caught.value)
    assert str(tmp_path / "modelium.yaml") in str(caught.value)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, "gatway: {}\ngateway: {port: x}\n")
    assert len(str(caught.value).splitlines()) == 2


# -- engine arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("{max_model_length: 5}", "max_model_length: unknown engine argument: vLLM 0.32.0 does not have it; did you mean"),
        ("{swap_space: 4}", "swap_space: unknown engine argument: vLLM 0.32.0 does not have it (0.13.0 had)"),
        ("{model: /x}", "model: not to be set by hand: Modelium writes it"),
        ("{max_model_len: 8k}", "max_model_len: must be a whole number, not '8k'"),
        ("{gpu_memory_utilization: 2}", "gpu_memory_utilization: must be above 0 and at most 1, not 2"),
        ("{seed: .nan}", "seed: has a number that JSON cannot carry"),
        ("{seed: 2026-01-01}", "seed: input was not a valid JSON value"),
        ("[max_model_len]", "Input should be a valid dictionary"),
    ],
)
def test_a_fault_in_an_engine_argument_is_named_with_its_place(tmp_path: Path, chosen: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, f"models: {{llama: {{engine_args: {chosen}}}}}")
    assert f"models.llama.engine_args{'.' if chosen.startswith('{') else ': '}{words}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_every_engine_argument_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, "models: {a: {engine_args: {max_len: 1, seed: x}}, b: {engine_args: {model: y}}}")
    assert len(str(caught.value).splitlines()) == 3


def test_a_triton_elsewhere_may_know_arguments_that_the_runtimes_vllm_does_not(tmp_path: Path) -> None:
    chosen = "models: {llama: {engine_args: {swap_space: 4}}}\n"
    settings = settings_of(tmp_path, f"triton: {{mode: external}}\n{chosen}")
    assert settings.overrides()["llama"].engine_args == {"swap_space": 4}


def test_engine_arguments_and_the_cache_reach_the_brain_as_values(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        """
        vllm:
          {kv_concurrency: 2, kv_cache_floor: 1MiB, kv_cache_ceiling: 4GiB, typical_tokens: 99,
           fit_context: false, min_context: 17}
        models: {llama: {engine_args: {max_model_len: 4096, hf_overrides: {rope_theta: 1000000.0}}}, sql: {base: llama}}
        """,
    )
    policies = settings.policies()
    assert (policies.kv_concurrency, policies.kv_floor_bytes, policies.kv_ceiling_bytes) == (2, 2**20, 4 * 2**30)
    assert (policies.typical_tokens, policies.fit_context, policies.min_context) == (99, False, 17)
    overrides = settings.overrides()
    assert overrides["llama"].engine_args == {"max_model_len": 4096, "hf_overrides": {"rope_theta": 1e6}}
    assert (overrides["sql"].base, overrides["sql"].engine_args) == ("llama", {})


def test_a_missing_file_is_an_error_and_no_file_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "nothing.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_settings() == Settings()


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "# nothing\n") == Settings()


@pytest.mark.parametrize("nothing", ["null", '""'])
def test_a_port_may_be_left_out(tmp_path: Path, nothing: str) -> None:
    assert settings_of(tmp_path, f"gateway: {{grpc_port: {nothing}}}").gateway.grpc_port is None


# -- the environment -----------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELIUM__GATEWAY__PORT", "8090")
    monkeypatch.setenv("MODELIUM__DEVICES__HOST_MEMORY", "2GiB")
    settings = settings_of(tmp_path, "gateway: {port: 8070, max_waiting: 3}\n")
    assert (settings.gateway.port, settings.gateway.max_waiting) == (8090, 3)
    assert settings.devices.host_memory == 2 * 2**30


def test_a_wrong_section_in_the_environment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELIUM__GATWAY__PORT", "8090")
    with pytest.raises(ConfigError, match=r"MODELIUM__GATWAY__PORT.*did you mean MODELIUM__GATEWAY"):
        settings_of(tmp_path, "")


# -- values --------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=0, max_value=10**6), st.sampled_from([("KiB", 2**10), ("MiB", 2**20), ("GB", 10**9), ("", 1)]))
def test_sizes_mean_what_they_say(number: int, unit: tuple[str, int]) -> None:
    assert parse_bytes(f"{number}{unit[0]}") == number * unit[1]
    assert parse_bytes(f" {number} {unit[0].lower()} ") == number * unit[1]


def test_overrides_reach_the_brain_as_values(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, "models: {bert: {runtime: python, task: fill-mask, memory: 1GiB, pin: true, allow_custom_code: true}}"
    )
    override = settings.overrides()["bert"]
    assert (override.runtime, override.task, override.memory_bytes) == (Runtime.PYTHON, Task.FILL_MASK, 2**30)
    assert override.pin and override.allow_custom_code and override.device is None


def test_capabilities_join_what_triton_has_with_what_is_allowed() -> None:
    found = frozenset({"python", "vllm"})
    allowed = Settings.model_validate({"vllm": {"enabled": False}}).capabilities(found)
    assert (allowed.backends, allowed.vllm_enabled, allowed.onnx_enabled) == (found, False, True)


# -- Ray -----------------------------------------------------------------------------------------------------------


def test_without_a_word_ray_is_off_and_would_be_our_own() -> None:
    ray = Settings().ray
    assert (ray.enabled, ray.own, ray.on_this_machine, ray.object_store_memory) == (False, True, None, 128 * 2**20)
    assert Settings().policies().ray == RayOptions() and not Settings().capabilities(frozenset()).ray_enabled


@pytest.mark.parametrize(
    ("chosen", "dashboard"),
    [
        ({"address": "head:6379"}, "http://head:8265"),
        ({"address": "[::1]:6379"}, "http://[::1]:8265"),
        ({"address": "head:6379", "dashboard_url": "https://ray.example/x"}, "https://ray.example/x"),
    ],
)
def test_a_cluster_has_its_dashboard_where_ray_puts_it_unless_it_is_said(chosen: dict[str, str], dashboard: str) -> None:
    ray = Settings.model_validate({"ray": chosen}).ray
    assert (ray.own, ray.address, ray.dashboard) == (False, chosen["address"], dashboard)


@pytest.mark.parametrize("address", ["http://head:6379", "head:99999"])
def test_what_no_ray_could_be_reached_at_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"ray\.address"):
        settings_of(tmp_path, f'ray: {{address: "{address}"}}')


def test_replicas_of_all_models_and_of_one_reach_the_brain_as_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELIUM__RAY__ENABLED", "true")
    settings = settings_of(
        tmp_path,
        """
        ray: {min_replicas: 0, max_replicas: 4, cpus_per_replica: 1, gpus_per_replica: 0.5}
        models: {iris: {ray: {max_replicas: 8, target_ongoing_requests: 3}}, bert: {}}
        """,
    )
    for_all = RayOptions(min_replicas=0, max_replicas=4, cpus_per_replica=1.0, gpus_per_replica=0.5)
    assert settings.policies().ray == for_all and settings.capabilities(frozenset()).ray_enabled
    iris, bert = (settings.overrides()[name].ray for name in ("iris", "bert"))
    assert iris == RayOptions(max_replicas=8, target_ongoing_requests=3.0) and bert == RayOptions()
    assert iris.over(for_all) == replace(for_all, max_replicas=8, target_ongoing_requests=3.0)


def test_what_the_runtimes_ray_lacks_is_known_before_a_load() -> None:
    facts = RayFacts(missing=Problem("there is none", "make one"), packages=frozenset({"ray"}))
    known = Settings().capabilities(frozenset({"python"}), ray=facts)
    assert (known.ray_missing, known.ray_packages) == ("there is none: make one", frozenset({"ray"}))


@pytest.mark.parametrize(
    ("said", "eviction"),
    [
        ({}, Eviction.LEARNED),
        ({"modelium_brain": {"enabled": False}}, Eviction.LRU),
        ({"modelium_brain": {"enabled": False, "fallback_to_rules": False}}, Eviction.NEVER),
        ({"orchestration": {"policies": {"eviction": "gdsf"}}}, Eviction.GDSF),
        ({"orchestration": {"policies": {"eviction": "longest_unused"}}}, Eviction.LRU),
        ({"orchestration": {"policies": {"eviction": "never"}}}, Eviction.NEVER),
        ({"orchestration": {"policies": {"eviction": "cheapest"}}, "modelium_brain": {"enabled": False}}, Eviction.LEARNED),
    ],
)
def test_what_goes_first_has_its_older_names_too(said: dict[str, object], eviction: Eviction) -> None:
    assert Settings.model_validate(said).policies().eviction is eviction
