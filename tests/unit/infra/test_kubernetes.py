"""``infra/k8s/`` as kubectl renders it: every object held to Kubernetes' schemas, to the others, to the code and to compose.

Nothing here asks a cluster. Of the operator's two kinds the schema is that of PyPI's cloudcoil models, which are made from its
resource definitions.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import cast

import kubernetes_validate
import pytest
import yaml
from aiohttp import web
from pydantic import BaseModel

import modelium
from modelium.api_keys import ApiKeys
from modelium.config import Settings, load_settings, parse_bytes
from modelium.controller import Controller
from modelium.errors import ConfigError
from modelium.gateway import build_app
from modelium.gateway.http.hosts import KnownHosts
from modelium.gateway.http.keys import OPEN_ROUTES
from modelium.metrics import Recorder
from modelium.triton.client import TritonClient
from tests.deployment import OVERLAYS, ROOT, Object, compose, container, environment_of, find, kustomize, pod_of
from tests.dockerfiles import read_dockerfile, read_environment
from tests.patience import PATIENCE_S

VERSIONS = ("1.30", "1.37")  # the oldest that is promised, and the newest whose schemas there are
OPERATOR = ("ServiceMonitor", "PrometheusRule")


@pytest.fixture(scope="module")
def operator() -> dict[str, type[BaseModel]]:
    """The operator's kinds; to import them takes seconds, which only the tests that ask for them pay."""
    kinds = importlib.import_module("cloudcoil.models.prometheus_operator.v1")
    return {kind: getattr(kinds, kind) for kind in OPERATOR}


@pytest.fixture(params=list(OVERLAYS))
def objects(request: pytest.FixtureRequest) -> tuple[Object, ...]:
    """Both variants, one after the other."""
    return kustomize(request.param)


def settings_in(objects: tuple[Object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the pod's Modelium: its file, and its container's variables."""
    for name, value in environment_of(container(objects, "modelium")).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "modelium.yaml").write_text(find(objects, "ConfigMap")["data"]["modelium.yaml"], encoding="utf-8")
    return load_settings(tmp_path / "modelium.yaml")


def ports_of(objects: tuple[Object, ...]) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for one in pod_of(objects)["containers"] for port in one["ports"]}


# -- schemas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_one_of_kubernetes(objects: tuple[Object, ...], version: str) -> None:
    for one in objects:
        if one["kind"] not in OPERATOR:
            kubernetes_validate.validate(one, version, strict=True)


def test_the_operators_objects_are_of_its_kinds_and_have_no_field_that_it_does_not_know(
    objects: tuple[Object, ...], operator: dict[str, type[BaseModel]]
) -> None:
    for kind, model in operator.items():
        one = find(objects, kind)
        assert model.model_validate(one).model_dump(mode="json", by_alias=True, exclude_unset=True) == one


def test_a_wrong_field_would_be_seen(operator: dict[str, type[BaseModel]]) -> None:
    """The validators themselves: without this, ones that accept everything would look like success."""
    one = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
    wrong = {"kind": "ServiceMonitor", "apiVersion": "monitoring.coreos.com/v1", "metadata": {"name": "x"}}
    wrong |= {"spec": {"selector": {}, "endpoints": [{"prot": "metrics"}]}}
    model = operator["ServiceMonitor"].model_validate(wrong)
    assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) != wrong


def test_the_secrets_example_is_a_secret_and_lets_nobody_start(tmp_path: Path) -> None:
    example = yaml.safe_load((ROOT / "infra" / "k8s" / "secret.example.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(example, VERSIONS[-1], strict=True)
    (file,) = example["stringData"]
    (tmp_path / file).write_text(example["stringData"][file], encoding="utf-8")
    with pytest.raises(ConfigError, match="there is no key in"):
        ApiKeys(tmp_path / file)


def write_rules(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts" / "write_prometheus_rules.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_prometheus_rules_are_those_of_infra_prometheus() -> None:
    done = write_rules("--check")
    assert done.returncode == 0, done.stderr


def test_rule_files_become_one_resource(tmp_path: Path) -> None:
    for name, groups in (("b.yml", [{"name": "b", "rules": []}]), ("a.yaml", [{"name": "a", "rules": []}]), ("c.txt", [])):
        (tmp_path / name).write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    out = tmp_path / "out" / "rules.yaml"
    out.parent.mkdir()
    assert write_rules("--rules", tmp_path, "--out", out, "--check").returncode == 1
    assert write_rules("--rules", tmp_path, "--out", out).returncode == 0
    assert [group["name"] for group in yaml.safe_load(out.read_text(encoding="utf-8"))["spec"]["groups"]] == ["a", "b"]
    assert write_rules("--rules", tmp_path, "--out", out, "--check").returncode == 0


# -- who finds whom ------------------------------------------------------------------------------------------------


def test_everything_is_in_the_one_namespace(objects: tuple[Object, ...]) -> None:
    assert {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"} == {"modelium"}
    assert find(objects, "Namespace")["metadata"]["name"] == "modelium"


def test_every_selector_finds_the_pod(objects: tuple[Object, ...]) -> None:
    labels = find(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    selectors = [one["spec"]["selector"] for one in objects if one["kind"] == "Service"]
    selectors += [find(objects, kind)["spec"]["selector"]["matchLabels"] for kind in ("StatefulSet", "PodDisruptionBudget")]
    selectors.append(find(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    assert len(selectors) == 5
    assert all(selector and selector.items() <= labels for selector in selectors)


def test_every_port_that_is_named_exists(objects: tuple[Object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(objects, tmp_path, monkeypatch)
    ports = ports_of(objects)
    gateway = {"http": settings.gateway.port, "grpc": settings.gateway.grpc_port}
    assert ports == gateway | {"metrics": settings.metrics.port, "triton-metrics": 8002}
    for service in (one for one in objects if one["kind"] == "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
        assert all(ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    policy = find(objects, "NetworkPolicy")["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports.keys()
    headless = find(objects, "Service", find(objects, "StatefulSet")["spec"]["serviceName"])
    assert headless["spec"]["clusterIP"] == "None"


def test_only_the_gateway_is_for_everybody_and_nothing_goes_out(objects: tuple[Object, ...]) -> None:
    policy = find(objects, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and "egress" not in policy
    assert [[port["port"] for port in rule["ports"]] for rule in policy["ingress"] if "from" not in rule] == [["http", "grpc"]]
    (service,) = [one for one in objects if one["kind"] == "Service" and one["spec"].get("clusterIP") != "None"]
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http", "grpc"]


def test_prometheus_finds_both_metrics_ports(objects: tuple[Object, ...]) -> None:
    monitor = find(objects, "ServiceMonitor")["spec"]
    found = [
        one
        for one in objects
        if one["kind"] == "Service" and monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    (service,) = found
    assert {port["name"] for port in service["spec"]["ports"]} == {endpoint["port"] for endpoint in monitor["endpoints"]}
    assert [endpoint["relabelings"][0]["replacement"] for endpoint in monitor["endpoints"]] == ["modelium", "triton"]


def test_modelium_answers_to_its_services_names(
    objects: tuple[Object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = KnownHosts.of(settings_in(objects, tmp_path, monkeypatch).gateway.allowed_hosts, bound="0.0.0.0", machine="")
    for service in (one["metadata"] for one in objects if one["kind"] == "Service"):
        if service["name"] == "modelium":
            assert hosts.know(service["name"]) and hosts.know(f"{service['name']}.{service['namespace']}:8080")
        for domain in ("svc", "svc.cluster.local"):
            assert hosts.know(f"{service['name']}.{service['namespace']}.{domain}:8080")


# -- the pod -------------------------------------------------------------------------------------------------------


def test_every_volume_is_there_and_used(objects: tuple[Object, ...]) -> None:
    claims = [claim["metadata"]["name"] for claim in find(objects, "StatefulSet")["spec"]["volumeClaimTemplates"]]
    declared = {volume["name"] for volume in pod_of(objects)["volumes"]} | set(claims)
    used = [mount["name"] for one in pod_of(objects)["containers"] for mount in one["volumeMounts"]]
    assert declared == set(used) and claims == ["models", "cache"]
    volumes = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
    assert volumes["config"]["configMap"]["name"] == find(objects, "ConfigMap")["metadata"]["name"]
    example = yaml.safe_load((ROOT / "infra" / "k8s" / "secret.example.yaml").read_text(encoding="utf-8"))
    assert volumes["api-keys"]["secret"]["secretName"] == example["metadata"]["name"]
    assert example["metadata"]["namespace"] == "modelium"
    assert volumes["api-keys"]["secret"]["defaultMode"] & 0o004 == 0
    assert not volumes["api-keys"]["secret"].get("optional"), "without keys it waits"


def test_the_configuration_fits_the_pod(objects: tuple[Object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(objects, tmp_path, monkeypatch)
    mounts = {mount["mountPath"]: mount for mount in container(objects, "modelium")["volumeMounts"]}
    triton = settings.triton
    paths = [triton.model_repository, triton.state_directory, *settings.orchestration.model_discovery.watch_directories]
    assert all(path.is_relative_to("/models") for path in paths) and "readOnly" not in mounts["/models"]
    assert settings.gateway.api_keys_file == Path("/run/secrets/modelium/api-keys") and "/run/secrets/modelium" in mounts
    assert (triton.mode, settings.gateway.host, settings.metrics.host) == ("external", "0.0.0.0", "0.0.0.0")
    assert "/etc/modelium" in mounts, "where the image's command looks for modelium.yaml"
    models = next(mount for mount in container(objects, "triton")["volumeMounts"] if mount["mountPath"] == "/models")
    assert models["readOnly"] is True
    address = environment_of(container(objects, "triton"))["TRITON_ADDRESS"]
    assert {triton.http_url, triton.grpc_url} == {f"{address}:8000", f"{address}:8001"}


def test_models_may_take_what_the_container_has(
    objects: tuple[Object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node's memory is not the pod's: the budget is written down, and fits beside shared memory and Triton itself."""
    settings = settings_in(objects, tmp_path, monkeypatch)
    volumes = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
    limit = _bytes(container(objects, "triton")["resources"]["limits"]["memory"])
    shared = _bytes(volumes["shared-memory"]["emptyDir"]["sizeLimit"])
    assert settings.devices.host_memory is not None
    assert settings.devices.host_memory + shared <= limit - 2**30


def _bytes(quantity: str) -> int:
    size = parse_bytes(f"{quantity}B")
    assert isinstance(size, int)
    return size


def test_probes_ask_what_the_gateway_answers_without_a_key(objects: tuple[Object, ...]) -> None:
    gateway: web.Application = build_app(cast("Controller", None), cast("TritonClient", None), Settings(), Recorder())
    served = {route.resource.canonical for route in gateway.router.routes() if route.resource and route.method == "GET"}
    one = container(objects, "modelium")
    paths = {kind: one[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
    assert set(paths.values()) <= served & OPEN_ROUTES
    assert {one[f"{kind}Probe"]["httpGet"]["port"] for kind in paths} <= {port["name"] for port in one["ports"]}


def test_the_end_is_given_time(objects: tuple[Object, ...]) -> None:
    exit_timeout = int(environment_of(container(objects, "triton"))["TRITON_EXIT_TIMEOUT"])
    assert pod_of(objects)["terminationGracePeriodSeconds"] >= exit_timeout + 30
    assert str(exit_timeout) == compose("cpu")["services"]["triton-cpu"]["environment"]["TRITON_EXIT_TIMEOUT"]


def test_it_can_do_no_more_than_it_must(objects: tuple[Object, ...]) -> None:
    """What Pod Security's restricted profile asks, which the namespace enforces, and a root that is read-only besides."""
    pod = pod_of(objects)
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for one in pod["containers"]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert one["resources"]["limits"]["memory"] and one["resources"]["requests"]["cpu"]
    assert find(objects, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "secret"}


def test_its_images_are_composes(objects: tuple[Object, ...]) -> None:
    services = compose()["services"]
    for name in ("triton", "modelium"):
        assert container(objects, name)["image"] == services[name]["image"] == f"modelium/{name}:{modelium.__version__}"


def test_gpus_are_asked_for_where_they_are_wanted() -> None:
    for variant, wanted in (("gpu", {"requests": 1, "limits": 1}), ("cpu", {})):
        resources = container(kustomize(variant), "triton")["resources"]
        assert {kind: given["nvidia.com/gpu"] for kind, given in resources.items() if "nvidia.com/gpu" in given} == wanted
        assert "nvidia.com/gpu" not in str(container(kustomize(variant), "modelium"))
        assert ("MODELIUM__TRITON__BACKENDS" in environment_of(container(kustomize(variant), "modelium"))) is (variant == "cpu")
    assert "tolerations" not in pod_of(kustomize("cpu"))
    assert not environment_of(container(kustomize("cpu"), "modelium")).keys() & {"NVIDIA_VISIBLE_DEVICES"}


def test_what_engines_compile_outlives_the_pod() -> None:
    caches = {"VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    places = {value for name, value in read_environment(read_dockerfile(ROOT / "triton/Dockerfile")).items() if name in caches}
    assert len(places) == 3
    for variant in OVERLAYS:
        claimed = {
            claim["metadata"]["name"] for claim in find(kustomize(variant), "StatefulSet")["spec"]["volumeClaimTemplates"]
        }
        mounts = {mount["mountPath"]: mount for mount in container(kustomize(variant), "triton")["volumeMounts"]}
        assert all(Path(place).parent == Path("/cache") for place in places)
        assert mounts["/cache"]["name"] in claimed and not mounts["/cache"].get("readOnly")


def test_triton_has_shared_memory_of_its_own() -> None:
    for variant in OVERLAYS:
        volumes = {volume["name"]: volume for volume in pod_of(kustomize(variant))["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container(kustomize(variant), "triton")["volumeMounts"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
