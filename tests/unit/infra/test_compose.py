"""``compose.yaml`` as Docker Compose itself reads it: every variant held to what it promises, to the code and to the images."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import modelium
from modelium.config import load_settings
from modelium.config.fields import SecretSource
from modelium.gateway.http.hosts import KnownHosts
from tests.deployment import ROOT, Object, compose, run_compose
from tests.dockerfiles import last, read_dockerfile

VARIANTS: dict[str, tuple[str, ...]] = {
    "up": (),
    "gpu": ("gpu",),
    "cpu": ("cpu",),
    "ray": ("gpu", "ray"),
    "ray-cpu": ("cpu", "ray-cpu"),
}
of_every_variant = pytest.mark.parametrize("variant", VARIANTS)
GRAFANA = ("compose.yaml", "infra/compose/publish-grafana.yaml")


def services(variant: str) -> dict[str, Object]:
    found: dict[str, Object] = compose(*VARIANTS[variant])["services"]
    return found


def aliases(one: Object, network: str) -> set[str]:
    return set((one["networks"][network] or {}).get("aliases", ()))


# -- who is there --------------------------------------------------------------------------------------------------


def test_a_plain_up_is_for_gpus_and_the_cpu_profile_takes_its_place() -> None:
    watching = {"prometheus", "grafana"}
    assert set(services("up")) == set(services("gpu")) == {"triton", "modelium"} | watching
    assert set(services("cpu")) == {"triton-cpu", "modelium-cpu"} | watching
    assert set(services("ray")) - set(services("gpu")) == {"ray"}
    assert set(services("ray-cpu")) - set(services("cpu")) == {"ray-cpu"}


@of_every_variant
def test_gpus_are_asked_for_where_they_are_wanted(variant: str) -> None:
    wanted = {}
    for name, one in services(variant).items():
        for device in one.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", ()):
            assert (device["driver"], device["count"]) == ("nvidia", -1)
            wanted[name] = device["capabilities"]
    gpu = {"triton": ["gpu"], "modelium": ["utility"]}
    assert wanted == {"up": gpu, "gpu": gpu, "cpu": {}, "ray": gpu | {"ray": ["gpu"]}, "ray-cpu": {}}[variant]


@of_every_variant
def test_every_service_can_do_no_more_than_it_must(variant: str) -> None:
    for name, one in services(variant).items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"] and one["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", one["user"]), name
        assert not {"privileged", "cap_add", "pid", "ipc", "network_mode"} & set(one), name
        assert one["restart"] == "unless-stopped" and "test" in one["healthcheck"], name
        assert one["logging"]["options"]["max-size"], name


@of_every_variant
def test_every_image_is_pinned_and_ours_are_of_this_version(variant: str) -> None:
    for name, one in services(variant).items():
        repository, _, tag = one["image"].partition(":")
        assert re.search(r"\d+\.\d+\.\d+$", tag), f"{name}: {one['image']}"
        if "build" in one:
            assert repository.startswith("modelium/") and tag == modelium.__version__
            assert (ROOT / one["build"]["dockerfile"]).is_file()


@of_every_variant
def test_only_the_gateway_is_published_and_only_on_this_machine(variant: str) -> None:
    published = {name: one["ports"] for name, one in services(variant).items() if "ports" in one}
    (name,) = published
    assert name.startswith("modelium")
    found = [(port["host_ip"], port["published"], port["target"]) for port in published[name]]
    assert found == [("127.0.0.1", "8080", 8080), ("127.0.0.1", "8081", 8081)]


@of_every_variant
def test_triton_and_what_came_with_a_model_have_no_way_out(variant: str) -> None:
    model = compose(*VARIANTS[variant])
    inner = {name for name, network in model["networks"].items() if (network or {}).get("internal")}
    for name, one in model["services"].items():
        if not name.startswith("modelium"):
            assert set(one["networks"]) <= inner, name


@of_every_variant
def test_who_is_looked_for_is_found(variant: str) -> None:
    """Triton, Modelium and Ray have one name each, with and without GPUs; no name is anybody else's."""
    known: dict[str, list[str]] = {}
    for name, one in services(variant).items():
        for alias in {name} | (aliases(one, "serving") if "serving" in one["networks"] else set()):
            known.setdefault(alias, []).append(name)
    assert {"triton", "modelium"} <= set(known)
    assert all(len(names) == 1 for names in known.values()), known


@of_every_variant
def test_prometheus_asks_modelium_by_a_name_that_it_answers_to(variant: str) -> None:
    (one,) = [one for name, one in services(variant).items() if name.startswith("modelium")]
    allowed = json.loads(one["environment"]["MODELIUM__GATEWAY__ALLOWED_HOSTS"])
    scrapes = yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    (target,) = next(job for job in scrapes if job["job_name"] == "modelium")["static_configs"][0]["targets"]
    assert KnownHosts.of(allowed, bound="0.0.0.0", machine="").know(target)


def test_beyond_this_machine_only_with_keys() -> None:
    done = run_compose("config", "--quiet", environment={"MODELIUM_PUBLISH": "0.0.0.0"})
    assert done.returncode != 0 and "a published gateway needs API keys" in done.stderr
    open_to_all = {"MODELIUM_PUBLISH": "0.0.0.0", "MODELIUM_API_KEYS_FILE": "/keys"}
    for profile, name in (("gpu", "modelium"), ("cpu", "modelium-cpu")):
        model = compose(profile, environment=open_to_all)
        one = model["services"][name]
        secret, _ = one["secrets"]
        assert one["ports"][0]["host_ip"] == "0.0.0.0"
        assert one["environment"]["MODELIUM__GATEWAY__API_KEYS_FILE"] == secret["target"] == "/run/secrets/api_keys"
        assert model["secrets"]["api_keys"]["file"] == "/keys"


def test_triton_and_modelium_share_a_secret_and_nobody_else_has_it() -> None:
    for variables, file in (({}, "no-triton-secret"), ({"MODELIUM_TRITON_SECRET_FILE": "/secret"}, "secret")):
        model = compose("cpu", "ray-cpu", environment=variables)
        assert Path(model["secrets"]["triton_secret"]["file"]).name == file
        having = {n for n, one in model["services"].items() if "triton_secret" in {s["source"] for s in one.get("secrets", ())}}
        assert having == {"triton-cpu", "modelium-cpu"}
        at = model["services"]["triton-cpu"]["environment"]["TRITON_SECRET_FILE"]
        (source,) = load_settings(ROOT / "infra" / "compose" / "modelium.yaml").triton.headers.values()
        assert source == SecretSource(file=Path(at))


def test_grafana_is_published_only_with_a_password() -> None:
    done = run_compose(*(part for name in GRAFANA for part in ("--file", name)), "config", "--quiet")
    assert done.returncode != 0 and "MODELIUM_GRAFANA_PASSWORD_FILE" in done.stderr
    model = compose(files=GRAFANA, environment={"MODELIUM_GRAFANA_PASSWORD_FILE": "/password"})
    one = model["services"]["grafana"]
    assert (one["ports"][0]["host_ip"], one["ports"][0]["target"]) == ("127.0.0.1", 3000)
    assert one["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == one["secrets"][0]["target"]
    assert one["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert {"monitoring", "edge"} == set(one["networks"])


@of_every_variant
def test_what_is_mounted_is_there(variant: str) -> None:
    model = compose(*VARIANTS[variant])
    for name, one in model["services"].items():
        for volume in one.get("volumes", ()):
            if volume["type"] == "volume":
                assert volume["source"] in model["volumes"], name
                continue
            source = Path(volume["source"])
            room = ROOT / Path(*source.relative_to(ROOT).parts[:2])  # infra/prometheus and infra/grafana come as a whole
            assert source.exists() or not room.exists(), f"{name} mounts {source}"
    for secret in model["secrets"].values():
        assert Path(secret["file"]).is_file()


@of_every_variant
def test_models_are_written_by_modelium_alone(variant: str) -> None:
    for name, one in services(variant).items():
        for volume in one.get("volumes", ()):
            if volume["target"] == "/models":
                assert volume.get("read_only", False) is not name.startswith("modelium"), name


@of_every_variant
def test_the_configuration_fits_its_container(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everybody = services(variant)
    name, one = next((name, one) for name, one in everybody.items() if name.startswith("modelium"))
    for variable, value in one["environment"].items():
        monkeypatch.setenv(variable, value)
    (mounted,) = [volume for volume in one["volumes"] if volume["target"].endswith(".yaml")]
    image = read_dockerfile(ROOT / one["build"]["dockerfile"])
    assert last(image, "CMD").command[:2] == ["--config", mounted["target"]]
    assert last(image, "WORKDIR").rest == str(Path(mounted["target"]).parent), "the verbs find it too"
    settings = load_settings(Path(mounted["source"]))
    triton = settings.triton
    assert (triton.mode, settings.gateway.port, settings.gateway.api_keys_file) == ("external", 8080, None)
    assert {triton.http_url, triton.grpc_url, triton.metrics_url} == {"triton:8000", "triton:8001", "triton:8002"}
    paths = [triton.model_repository, triton.state_directory, *settings.orchestration.model_discovery.watch_directories]
    assert all(path.is_relative_to("/models") for path in paths)
    assert ("vllm" in triton.backends) is not name.endswith("-cpu")
    assert settings.ray.enabled is False


@of_every_variant
def test_health_is_asked_as_the_images_say_and_the_end_is_given_time(variant: str) -> None:
    for name, one in services(variant).items():
        if name.startswith("ray") or "build" not in one:
            continue
        image = read_dockerfile(ROOT / one["build"]["dockerfile"])
        assert one["healthcheck"]["test"] == ["CMD", *last(image, "HEALTHCHECK").command], name
        if name.startswith("triton"):
            assert int(one["environment"]["TRITON_EXIT_TIMEOUT"]) < int(one["stop_grace_period"].removesuffix("s"))
            assert int(one["shm_size"]) >= 2**30


def test_every_variable_is_in_the_file_of_variables_and_no_other() -> None:
    files = [ROOT / "compose.yaml", *sorted((ROOT / "infra" / "compose").glob("*.yaml"))]
    used = {name for path in files for name in re.findall(r"\$\{(MODELIUM_\w+)", path.read_text(encoding="utf-8"))}
    text = (ROOT / ".env").read_text(encoding="utf-8")
    assert used == set(re.findall(r"^#?(MODELIUM_\w+)=", text, re.MULTILINE))
    assert re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE) == [("COMPOSE_PROFILES", "gpu")], "only that is set"


def test_prometheus_scrapes_names_that_are_there() -> None:
    reachable = {alias for one in services("up").values() if "serving" in one["networks"] for alias in aliases(one, "serving")}
    for path in (ROOT / "infra" / "prometheus").glob("prometheus.y*ml"):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["scrape_configs"]:
            targets = [target for group in job.get("static_configs", ()) for target in group["targets"]]
            assert {target.partition(":")[0] for target in targets} <= reachable | {"localhost", "127.0.0.1"}, job["job_name"]
