"""Nodes whose card fails: their errors blame no gene, and they get no more tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray.cluster_utils import Cluster as RayCluster
from support.commands import ROOT

from jobs.ray_runtime import devices
from jobs.ray_runtime.capacity import Cluster, Node, TaskLimits
from jobs.ray_runtime.devices import DeviceError, SickNodes, ends_process_on_device_error
from jobs.ray_runtime.fan_out import Retry, fan_out
from jobs.ray_runtime.progress import Progress
from promoter.checkpoint import ModelInfo, save_model
from promoter.device_errors import is_device_error, is_out_of_memory
from promoter.errors import NetworkError
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode

ECC = "CUDA error: uncorrectable ECC error encountered"


@pytest.mark.parametrize(
    ("error", "of_device"),
    [
        (RuntimeError(ECC), True),  # as PyTorch before 2.8 raises it
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x4 and 5x2)"), False),
        (ValueError(ECC), False),
        (FloatingPointError("the model's output is not a finite number"), False),
    ],
)
def test_errors_of_a_card_are_told_from_those_of_a_model(error: Exception, of_device: bool) -> None:
    assert is_device_error(error) == of_device
    wrapped = NetworkError("net of user.py: failed")
    wrapped.__cause__ = error
    assert is_device_error(wrapped) == of_device
    if hasattr(torch, "AcceleratorError"):
        assert is_device_error(torch.AcceleratorError(ECC))
    assert is_out_of_memory(error) == ("out of memory" in str(error))


def test_a_full_card_asks_for_smaller_batches_and_other_nodes() -> None:
    retry = Retry().after(DeviceError("CUDA out of memory", "n1", "host1", True))
    assert (retry.number, retry.batch_size, retry.tried) == (1, 64, {"n1"})
    retry = retry.after(DeviceError(ECC, "n2", "host2"))
    assert (retry.number, retry.batch_size, retry.tried) == (2, 64, {"n1", "n2"})


def test_a_node_is_left_out_after_three_errors_and_a_run_without_others_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alive = {"n1": Node(4, 1), "n2": Node(4, 1), "n3": Node(4, 0)}
    monkeypatch.setattr(devices, "alive_nodes_by_id", lambda: alive)
    sick = SickNodes(TaskLimits(None, 1, 1))
    sick.count(DeviceError(ECC, "n1", "host1"))
    assert sick.label_selector({"n1"}) == {"ray.io/node-id": "!in(n1)"}  # elsewhere, as there is one
    assert sick.label_selector({"n1", "n2"}) == {}  # tried everywhere: anywhere again; n3 has no card
    for _ in range(5):
        sick.count(DeviceError("CUDA out of memory", "n2", "host2", True))  # a neighbour's fault, or the model's
    assert sick.left_out == []
    sick.count(DeviceError(ECC, "n1", "host1"))
    sick.count(DeviceError(ECC, "n1", "host1"))
    assert sick.left_out == ["n1"]
    assert "node host1: CUDA error: uncorrectable ECC error encountered; its card failed 3 times" in (
        capsys.readouterr().out
    )
    assert sick.label_selector(()) == {"ray.io/node-id": "!in(n1)"}
    assert sick.label_selector({"n2"}) == {"ray.io/node-id": "!in(n1)"}
    sick.require_others(may_grow=False)
    del alive["n2"]
    sick.require_others(may_grow=True)  # another may join
    monkeypatch.setattr(devices, "_WAIT_SECONDS", 0)
    for may_grow in (True, False):
        with pytest.raises(RuntimeError, match=r"no node is left whose card works: host1 \(CUDA error"):
            sick.require_others(may_grow)


_spoiled = False


@ray.remote
@ends_process_on_device_error
def _fail_for_good(folder: str, item: int) -> int:
    """Fail once as CUDA does: whatever this process is given afterwards fails as well."""
    global _spoiled  # noqa: PLW0603 # the state of the process
    mark = Path(folder) / str(item)
    if item == 1 and not mark.exists():
        mark.touch()
        _spoiled = True
    if _spoiled:
        raise RuntimeError(ECC)
    return item


@pytest.mark.ray
def test_one_error_of_a_process_is_counted_once_though_more_tasks_reach_it(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    limits, progress = TaskLimits(6, 1, 0).on(ray_cluster), Progress("test", 12, "tasks")
    submit = limits.apply(_fail_for_good).remote
    found = fan_out(lambda item, _: submit(str(tmp_path), item), range(12), limits, ray_cluster, progress=progress)
    assert dict(found) == {item: item for item in range(12)}
    assert [count for reason, count in progress.reasons.items() if "DeviceError" in reason] == [1]


# in a process of its own, and in the workers through the environment: the real job, with one sick node
JOB = """
    import os
    import time
    from pathlib import Path

    import torch
    from jobs.inference import scoring

    predict = scoring.predict
    errors = Path(os.environ["ERRORS"])

    def fail(*args, **options):
        if os.environ.get("SICK_NODE"):
            (errors / str(os.getpid())).touch()
            raise torch.AcceleratorError("{error}")
        for _ in range(20):  # so that the other node cannot do all the work before
            if len(list(errors.iterdir())) < 3:  # for long it must not wait: all tasks may be meant for this node
                time.sleep(0.1)
        return predict(*args, **options)

    scoring.predict = fail
"""


def start_nodes(*environments: dict[str, str]) -> RayCluster:
    """Start a head without CPUs, and a node of one CPU with each environment, which its workers inherit."""
    nodes = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for environment in environments:
        nodes.add_node(num_cpus=1, env_vars=environment)
    return nodes


def save_inputs(folder: Path, genes: int) -> tuple[PromoterCNN, np.ndarray, list[object]]:
    torch.manual_seed(0)
    model = PromoterCNN(CNNConfig((8,), (7,), ())).eval()
    save_model(folder / "model", model, ModelInfo(["y"], {"upstream": None, "downstream": None, "length": 50}))
    tokens = np.random.default_rng(0).integers(0, 4, (genes, 50), dtype=np.uint8)
    (folder / "p.fa").write_text("".join(f">g{i:03d}\n{one}\n" for i, one in enumerate(decode(tokens))))
    flags = [
        "--model",
        folder / "model",
        "--data",
        folder / "p.fa",
        "--out",
        folder / "ism",
        "--genes_per_task",
        2,
    ]
    return model, tokens, flags


@pytest.mark.ray
@pytest.mark.slow
def test_a_sick_node_loses_no_gene_and_is_named(tmp_path: Path) -> None:
    patch = tmp_path / "patch"
    patch.mkdir()
    hook = "import sys\nif any('default_worker' in word for word in sys.orig_argv):\n    import sick\n"
    (patch / "sitecustomize.py").write_text(hook)
    (patch / "sick.py").write_text(textwrap.dedent(JOB).format(error=ECC))
    model, tokens, flags = save_inputs(tmp_path, genes=40)
    path = os.pathsep.join([str(patch), str(ROOT)])
    (tmp_path / "errors").mkdir()
    shared = {"PYTHONPATH": path, "ERRORS": str(tmp_path / "errors")}
    nodes = start_nodes({"SICK_NODE": "1", **shared}, shared)
    try:
        words = [sys.executable, "-m", "jobs.ism", *map(str, flags)]
        environment = {**os.environ, "RAY_ADDRESS": str(nodes.address), **shared}
        ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    finally:
        nodes.shutdown()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "its card failed 3 times: nothing more is sent to this node" in ended.stdout
    assert "1 node left out, for errors of the card" in ended.stdout
    assert "DeviceError on" in ended.stdout
    assert json.loads((tmp_path / "ism" / "manifest.json").read_text())["complete"]
    expected = saturation_mutagenesis(model, tokens)
    np.testing.assert_allclose(load_scores(tmp_path / "ism").scores, expected, rtol=0, atol=1e-5)
