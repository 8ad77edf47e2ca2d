"""The files for KubeRay: their fields, what Ray's autoscaler makes of them, and how the RayJob repeats a job."""

from __future__ import annotations

import jobs  # noqa: F401 # isort: skip # before ray, which reads the environment that it sets

import copy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.deploy_files import DEPLOY, PROJECT, kuberay, kuberay_config, kuberay_specs, launched

from jobs.ray_runtime.capacity import autoscaler_limits

# The fields of ray.io/v1 that our files use, from KubeRay's API reference (1.6); a pod's are Kubernetes' own.
_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}


def fields(required: str, **properties: Any) -> dict[str, Any]:
    closed = {"type": "object", "additionalProperties": False}
    return {**closed, "properties": properties, "required": required.split()}


def listed(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "array", "items": fields(required, **properties), "minItems": 1}


_AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
_RESOURCES = fields("requests limits", requests=_AMOUNTS, limits=_AMOUNTS)
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_CONTAINER = {
    **{"name": _TEXT, "image": _TEXT, "resources": _RESOURCES},
    "securityContext": fields(
        "allowPrivilegeEscalation capabilities",
        allowPrivilegeEscalation={"const": False},
        capabilities=fields("drop", drop={"const": ["ALL"]}),
    ),
    "ports": listed("name containerPort", name=_TEXT, containerPort=_WHOLE),
    "env": listed("name value", name=_TEXT, value=_TEXT),
    "volumeMounts": listed("name mountPath subPath", name=_TEXT, mountPath=_TEXT, subPath=_TEXT),
}
_POD = fields(
    "spec",
    spec=fields(
        "serviceAccountName securityContext containers",
        serviceAccountName={"const": "promoter"},
        securityContext=fields("runAsNonRoot", runAsNonRoot={"const": True}, runAsUser=_WHOLE, runAsGroup=_WHOLE),
        nodeSelector=_TEXTS,
        tolerations=listed("key operator effect", key=_TEXT, operator=_TEXT, effect={"enum": ["NoSchedule"]}),
        volumes=listed("name configMap", name=_TEXT, configMap=fields("name", name=_TEXT)),
        containers=listed("name image resources securityContext", **_CONTAINER),
    ),
)
_CLUSTER_SPEC = fields(
    "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs",
    rayVersion=_TEXT,
    authOptions=fields("mode", mode={"const": "token"}),
    enableInTreeAutoscaling={"const": True},
    autoscalerOptions=fields(
        "version", version={"const": "v2"}, idleTimeoutSeconds=_WHOLE, resources=_RESOURCES
    ),  # without it KubeRay does not prepare pods for the autoscaler that Ray 2.60 runs
    headGroupSpec=fields(
        "rayStartParams template", serviceType={"const": "ClusterIP"}, rayStartParams=_TEXTS, template=_POD
    ),
    workerGroupSpecs=listed(
        "groupName replicas minReplicas maxReplicas rayStartParams template",
        groupName=_TEXT,
        **{"replicas": _WHOLE, "minReplicas": _WHOLE, "maxReplicas": _WHOLE},
        rayStartParams=_TEXTS,
        template=_POD,
    ),
)
_JOB_SPEC = fields(
    "entrypoint backoffLimit rayClusterSpec",
    entrypoint=_TEXT,
    metadata=_TEXTS,
    shutdownAfterJobFinishes={"const": True},
    ttlSecondsAfterFinished=_WHOLE,
    backoffLimit={"const": 0},  # each retry would be a new cluster, for wrong input too
    rayClusterSpec=_CLUSTER_SPEC,
)
_SPECS = {"RayCluster": ("name", _CLUSTER_SPEC), "RayJob": ("generateName", _JOB_SPEC)}


def schema_of(kind: str) -> dict[str, Any]:
    name, spec = _SPECS[kind]
    return fields(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=fields(name, **{name: _TEXT}),
        spec=spec,
    )


@pytest.fixture
def on_gke(tmp_path: Path) -> Path:
    """A copy of the files after the command of docs/cluster.md for GKE."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    subprocess.run("sed -i 's/# GKE: //' deploy/kuberay-*.yaml", shell=True, check=True, cwd=tmp_path)  # noqa: S602, S607
    return tmp_path


@pytest.mark.parametrize("kind", _SPECS)
def test_kuberay_files_use_its_fields_on_gke_too(kind: str, on_gke: Path) -> None:
    document = kuberay(kind)
    jsonschema.validate(document, schema_of(kind))
    jsonschema.validate(kuberay(kind, on_gke), schema_of(kind))
    document["spec"]["authOption"] = {"mode": "token"}
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        jsonschema.validate(document, schema_of(kind))


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the container of each group."""
    groups = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}
    return {name: group["template"]["spec"]["containers"][0] for name, group in groups.items()}


def test_kuberay_pods_hold_what_they_ask_for_and_only_gpu_pods_have_the_large_image() -> None:
    spec = kuberay_specs()["cluster"]
    assert kuberay_specs()["job"] == spec
    image = f"MY-REGISTRY/promoter:{PROJECT['version']}"
    found = containers(spec)
    assert {name: one["image"] for name, one in found.items()} == {
        **{"head": f"{image}-cpu", "cpu": f"{image}-cpu"},
        "gpu": image,
    }
    for container in found.values():
        asked, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {**asked, "ephemeral-storage": None} == {**limits, "ephemeral-storage": None}
    assert [name for name, one in found.items() if "nvidia.com/gpu" in one["resources"]["limits"]] == ["gpu"]
    assert all(group["replicas"] == group["minReplicas"] == 0 for group in spec["workerGroupSpecs"])
    assert kuberay("ServiceAccount")["metadata"]["name"] == "promoter"


def test_gke_pods_select_spot_nodes_and_gpu_pods_the_card(on_gke: Path) -> None:
    for spec in kuberay_specs(on_gke).values():
        chosen = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
        spot = {"cloud.google.com/gke-spot": "true"}
        assert chosen["cpu"]["nodeSelector"] == spot
        assert chosen["gpu"]["nodeSelector"] == {**spot, "cloud.google.com/gke-accelerator": "nvidia-l4"}
        for pod in chosen.values():
            assert "cloud.google.com/gke-spot" in [one["key"] for one in pod["tolerations"]]
        assert "nvidia.com/gpu" in [one["key"] for one in chosen["gpu"]["tolerations"]]
        assert "nodeSelector" not in spec["headGroupSpec"]["template"]["spec"]


# --- what Ray makes of them --------------------------------------------------------------------------------------


def test_ray_starts_pods_with_gpus_for_jobs_that_ask_for_one_alone() -> None:
    config = kuberay_config(kuberay_specs()["cluster"])
    for memory in ({}, {"memory": 2e9}):
        assert launched(config, 4, together=True, CPU=1, GPU=1, **memory) == {"gpu": 4}
        assert launched(config, 7, together=False, CPU=1, **memory) == {"cpu": 1}


def test_tasks_and_drivers_may_not_reserve_the_memory_of_the_object_store() -> None:
    spec = kuberay_specs()["cluster"]
    kinds = kuberay_config(spec)["available_node_types"]
    limits = {name: one["resources"]["limits"]["memory"] for name, one in containers(spec).items()}
    for name, kind in kinds.items():
        whole = int(limits[name.removesuffix("group")].removesuffix("Gi")) * 2**30
        assert 0.6 * whole < kind["resources"]["memory"] <= 0.7 * whole
    assert kinds["headgroup"]["resources"]["CPU"] == 0


def test_jobs_on_kubernetes_read_the_maximum_of_nodes_from_a_file_that_agrees_with_the_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mounted,) = containers(kuberay_specs()["cluster"])["head"]["volumeMounts"]
    (volume,) = kuberay_specs()["cluster"]["headGroupSpec"]["template"]["spec"]["volumes"]
    table = kuberay("ConfigMap")
    assert (mounted["name"], volume["configMap"]["name"]) == (volume["name"], table["metadata"]["name"])
    assert mounted["mountPath"] == "/home/ray/ray_bootstrap_config.yaml"  # where autoscaler_limits looks

    text = table["data"][mounted["subPath"]]
    written, derived = yaml.safe_load(text), kuberay_config(kuberay_specs()["cluster"])
    assert [written[key] for key in ("head_node_type", "max_workers")] == [
        derived[key] for key in ("head_node_type", "max_workers")
    ]
    assert written["available_node_types"] == {
        name: {key: kind[key] for key in ("max_workers", "resources")}
        for name, kind in derived["available_node_types"].items()
    }
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / Path(mounted["mountPath"]).name).write_text(text)
    limits = autoscaler_limits()
    assert limits is not None
    assert sorted((node.cpus, node.gpus) for node in limits[0]) == sorted([(0, 0), *[(7, 0)] * 8, *[(3, 1)] * 8])
    assert limits[1] == derived["max_workers"]


# --- how the RayJob repeats a job --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "last", "runs"),
    [([0], 0, 1), ([2], 2, 1), ([1, 1, 0], 0, 3), ([1, 2], 2, 2), ([1, 1, 1, 0], 1, 3), ([143], 143, 1)],
    ids=str,
)
def test_the_ray_job_runs_a_job_again_while_it_ends_with_1(
    tmp_path: Path, codes: list[int], last: int, runs: int
) -> None:
    """The shell text itself, through each shell on its way: that of KubeRay's pod, and that of Ray's head."""
    entrypoint = kuberay("RayJob")["spec"]["entrypoint"]
    pasted = f"printf '%s\\0' -- {entrypoint} ;"  # KubeRay writes it into the script of the pod that submits
    words = subprocess.run(["/bin/bash", "-ce", pasted], capture_output=True, text=True, check=True).stdout
    submitted = shlex.join(words.removesuffix("\0").split("\0")[1:])  # as `ray job submit` does

    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    called = f'echo "$(basename $0) $*" >> {tmp_path}/called'
    for name, then in (
        ("python", f"code=$(head -1 {tmp_path}/codes); sed -i 1d {tmp_path}/codes"),
        ("sleep", "code=0"),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{called}\n{then}\nexit $code\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    ended = subprocess.run(submitted, shell=True, check=False, env=environment)  # noqa: S602 # as Ray's head does
    assert ended.returncode == last
    lines = (tmp_path / "called").read_text().splitlines()
    train = (
        "python -m jobs.train --data s3://MY-BUCKET/data --out s3://MY-BUCKET/run --workers 4 --gpus_per_worker 1"
    )
    assert [line for line in lines if line.startswith("python")] == [train] * runs
    pauses = [int(line.split()[1]) for line in lines if line.startswith("sleep")]
    assert [pause for pause in pauses if pause] == [60, 600][: codes[:runs].count(1)]


def test_a_ray_job_that_kubernetes_would_repeat_is_refused() -> None:
    document = copy.deepcopy(kuberay("RayJob"))
    document["spec"]["backoffLimit"] = 2
    with pytest.raises(jsonschema.ValidationError, match="0 was expected"):
        jsonschema.validate(document, schema_of("RayJob"))
