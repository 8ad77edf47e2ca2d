"""A cluster that starts nodes when tasks wait for them: Ray's own autoscaler, with nodes on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from support.ray_head import ROOT, Head

from promoter.checkpoint import ModelInfo, save_model
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode

pytestmark = [pytest.mark.ray, pytest.mark.slow]
_V2 = {"RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID}  # as `ray up` sets it

_COMMANDS = ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray", "initialization")


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    """A head without GPU, whose autoscaler may start two nodes that say they have one."""
    fake = {"RAY_FAKE_CLUSTER": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID}
    one = Head(variables={**_V2, **fake, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "HOME": str(tmp_path)})
    memory = {"object_store_memory": 150 * 1024 * 1024}
    config = {
        "cluster_name": "fake",
        "max_workers": 2,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "external",  # "fake_multinode" wants a file that Ray's wheel lacks
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"127.0.0.1:{one.port}",
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": {"CPU": 1, "GPU": 1, **memory}, "node_config": {}, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",
        **{f"{name}_commands": [] for name in _COMMANDS},
        **{"auth": {}, "file_mounts": {}, "cluster_synced_files": [], "upscaling_speed": 1.0},
    }
    (tmp_path / "ray_bootstrap_config.yaml").write_text(json.dumps(config))  # where `ray up` leaves it
    try:
        one.start(**{"autoscaling-config": tmp_path / "ray_bootstrap_config.yaml", "num-cpus": 1})
        yield one
    finally:
        one.end()


def test_nodes_are_started_for_tasks_and_what_never_fits_is_refused(head: Head, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = PromoterCNN(CNNConfig((32, 16), (15, 3), (4,))).eval()
    length, genes = 300, 24
    window: dict[str, int | None] = {"upstream": None, "downstream": None, "length": length}
    save_model(tmp_path / "model", model, ModelInfo(["y"], window))
    tokens = np.random.default_rng(0).integers(0, 4, (genes, length), dtype=np.uint8)
    (tmp_path / "p.fa").write_text("".join(f">g{i:02d}\n{one}\n" for i, one in enumerate(decode(tokens))))
    flags = ["--model", tmp_path / "model", "--data", tmp_path / "p.fa", "--out", tmp_path / "ism"]
    words = [sys.executable, "-m", "jobs.ism", *map(str, flags), "--genes_per_task", "1"]

    def run(gpus: int) -> subprocess.CompletedProcess[str]:
        environment = {**head.environment, "RAY_ADDRESS": f"127.0.0.1:{head.port}"}
        given = [*words, "--gpus_per_worker", str(gpus)]
        return subprocess.run(given, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    refused = run(2)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "can never give: its autoscaler stops at 3 nodes with 3 CPUs and 2 GPUs" in refused.stderr
    assert not (tmp_path / "ism").exists()
    done = run(1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting for its autoscaler" in done.stdout
    expected = saturation_mutagenesis(model, tokens)
    # in other batches than a task: rounding
    np.testing.assert_allclose(load_scores(tmp_path / "ism").scores, expected, rtol=0, atol=1e-5)
