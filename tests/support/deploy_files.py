"""The files that deploy the project, as the tests read them."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LAUNCHED = ("cluster.yaml", "deploy/gcp.yaml")


def load(name: str, root: Path = ROOT) -> Any:
    """Read a YAML file of one document."""
    return yaml.safe_load((root / name).read_text())


def pins(name: str) -> dict[str, str]:
    """Read a constraints file: package → version."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def kuberay(kind: str, root: Path = ROOT) -> dict[str, Any]:
    """Read the Kubernetes object of this kind."""
    name = {"RayCluster": "kuberay-cluster.yaml", "RayJob": "kuberay-job.yaml"}.get(kind, "kuberay-account.yaml")
    documents = yaml.safe_load_all((root / "deploy" / name).read_text())
    return next(document for document in documents if document["kind"] == kind)


def kuberay_specs(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Read the two specs of a RayCluster: of the one that stands, and of the one that a RayJob makes."""
    return {
        "cluster": kuberay("RayCluster", root)["spec"],
        "job": kuberay("RayJob", root)["spec"]["rayClusterSpec"],
    }


def kuberay_config(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what Ray's autoscaler makes of the spec of a RayCluster."""
    from ray.autoscaler._private.kuberay.autoscaling_config import (  # noqa: PLC0415 # takes a second
        _derive_autoscaling_config_from_ray_cr,
    )

    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "promoter", "namespace": "default"}, "spec": spec}
    )


def launched(config: dict[str, Any], count: int, *, together: bool, **request: float) -> dict[str, int]:
    """Return the workers that Ray's autoscaler starts for requests on an empty cluster: type → number.

    Args:
        config: configuration of the autoscaler, with `available_node_types`.
        count: number of requests, all alike.
        together: true for one placement group (PACK), as the workers of a training are; false for tasks.
        request: resources of each request.
    """
    from ray.autoscaler.v2 import scheduler  # noqa: PLC0415
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig  # noqa: PLC0415 # as above
    from ray.autoscaler.v2.utils import ResourceRequestUtil  # noqa: PLC0415

    kinds = {
        name: NodeTypeConfig(
            name=name,
            min_worker_nodes=0,
            max_worker_nodes=kind["max_workers"],
            resources=kind["resources"],
            priority=kind.get("priority", 0),
        )
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    }
    gang = importlib.import_module("ray.core.generated.autoscaler_pb2").GangResourceRequest  # without types
    requests = [ResourceRequestUtil.make(request) for _ in range(count)]
    reply = scheduler.ResourceDemandScheduler(event_logger=None).schedule(
        scheduler.SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=kinds,
            max_num_nodes=config["max_workers"],
            gang_resource_requests=[gang(requests=requests)] if together else [],
            resource_requests=[] if together else ResourceRequestUtil.group_by_count(requests),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def page_options(section: str) -> list[str]:
    """Return the options that a section of docs/cluster.md gives to `ray job submit`."""
    page = (ROOT / "docs" / "cluster.md").read_text()
    assign = re.search(r"^options=\(.*?\)$", page[page.index(f"\n## {section}\n") :], re.DOTALL | re.MULTILINE)
    assert assign
    script = f"USER=me; {assign[0]}; printf '%s\\0' \"${{options[@]}}\""
    run = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, check=True)
    return run.stdout.split("\0")[:-1]
