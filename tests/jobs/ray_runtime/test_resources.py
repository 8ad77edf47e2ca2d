"""What tasks and workers reserve: GPUs by default, memory, a type of card; and how many are asked for at once."""

from __future__ import annotations

import math

import pytest
import torch

from jobs.ray_runtime import capacity
from jobs.ray_runtime.capacity import Cluster, Demand, Node, TaskLimits, tasks_that_fit
from jobs.training.resources import resources_of_worker, scaling_config
from promoter.errors import InputError, InputWarning

HEAD = Node(4, 0, 16e9)
CPUS = Node(16, 0, 64e9)
L4 = Node(4, 1, 16e9, frozenset({"L4"}))
FOUR_L4 = Node(48, 4, 190e9, frozenset({"L4"}))


@pytest.mark.parametrize(
    ("cluster", "gpus", "printed"),
    [
        (Cluster((HEAD, L4), local=False), 1, "a GPU each"),
        (Cluster((HEAD,), local=False, max_nodes=(HEAD, L4, CPUS)), 1, "a GPU each"),  # none yet
        (Cluster((HEAD,), local=False, max_nodes=(HEAD, CPUS)), 0, ""),
        (Cluster((HEAD,), local=False), 0, "where the cluster may start some: --gpus_per_worker 1"),
        (Cluster((Node(2, 0),), local=True), 0, ""),
    ],
)
def test_without_a_flag_each_job_takes_a_gpu_where_there_are_or_may_be_some(
    cluster: Cluster, gpus: float, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert TaskLimits(None, 1, None).on(cluster).gpus == gpus
    out = capsys.readouterr().out
    assert printed in out
    assert bool(printed) == bool(out)
    for asked in (0, 0.5):  # a flag wins, and nothing is printed
        assert cluster.choose_gpus(asked) == asked
    scaling = scaling_config(cluster, 1)
    assert (scaling.use_gpu, scaling.num_gpus_per_worker) == (gpus > 0, gpus)


def test_gpus_of_this_machine_that_pytorch_cannot_use_are_left_alone_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.warns(InputWarning, match="built for CPUs alone, so the 1 GPU of this machine will not be used"):
        assert TaskLimits(None, 1, None).on(Cluster((L4,), local=True)).gpus == 0
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.warns(InputWarning, match="no usable driver"):
        assert TaskLimits(None, 1, None).on(Cluster((L4,), local=True)).gpus == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert TaskLimits(None, 1, None).on(Cluster((L4,), local=True)).gpus == 1
    assert "a GPU each" in capsys.readouterr().out


def test_tasks_are_packed_by_memory_too() -> None:
    assert tasks_that_fit([Node(16, 0, 10e9)], Demand(1, 0, 3e9)) == 3
    cluster = Cluster((Node(16, 0, 10e9), Node(16, 0, 40e9)), local=False, max_nodes=None)
    assert TaskLimits(None, 1, 0).on(cluster, 4e9).max_concurrent_tasks(cluster) == 2 + 10
    options = TaskLimits(None, 1, 0).on(cluster, 4e9).apply(_Options())
    assert options == {"num_cpus": 1, "num_gpus": 0, "memory": 4_000_000_000, "max_retries": 0}
    # more than any node has: the largest, where it then runs alone, since Ray would wait for ever
    assert TaskLimits(None, 1, 0).on(cluster, 1e12).memory == 40e9
    # a node type that does not state its memory: for Ray's autoscaler it has none
    unknown = Cluster((HEAD,), local=False, max_nodes=(HEAD, Node(4, 1)))
    assert TaskLimits(None, 1, 1).on(unknown, 4e9).memory == 0
    scaling = scaling_config(cluster, 2, cpus_per_worker=1, memory=4e9)
    assert resources_of_worker(scaling) == {"CPU": 1, "memory": 4_000_000_000}


def test_a_type_of_card_reaches_ray_and_what_no_node_has_is_refused() -> None:
    cluster = Cluster((HEAD, L4), local=False, max_nodes=(HEAD, L4, FOUR_L4))
    limits = TaskLimits(None, 1, None, "L4").on(cluster)
    assert (limits.gpus, limits.max_concurrent_tasks(cluster)) == (1, 5)
    assert limits.apply(_Options())["accelerator_type"] == "L4"
    scaling = scaling_config(cluster, 2, accelerator_type="L4")
    assert scaling.accelerator_type == "L4"
    assert resources_of_worker(scaling) == {"CPU": 1, "GPU": 1, "accelerator_type:L4": 0.001}
    with pytest.raises(InputError, match="1 CPUs and 1 GPUs of type H100, which this cluster can never give"):
        TaskLimits(None, 1, None, "H100").on(cluster)
    with pytest.raises(
        InputError, match=r"of type H100, this machine has .*\(L4\); lower .* or --accelerator_type"
    ):
        TaskLimits(None, 1, 1, "H100").on(Cluster((L4,), local=True))
    with pytest.raises(InputError, match="--accelerator_type L4: a worker without GPU has no card to choose"):
        TaskLimits(None, 1, 0, "L4")


def test_as_many_tasks_are_submitted_at_once_as_the_cluster_may_ever_run(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[Node] = [HEAD]
    monkeypatch.setattr(capacity, "alive_nodes", lambda: tuple(alive))
    known = Cluster((HEAD,), local=False, max_nodes=(HEAD, *[L4] * 512))
    limit = TaskLimits(None, 1, 1).on(known).in_flight(known)
    assert limit() == 512
    unknown = Cluster((HEAD,), local=False)
    assert TaskLimits(None, 1, 1).on(unknown).in_flight(unknown)() == capacity._MIN_ASKED
    alive += [CPUS] * 16  # more than was known of
    assert TaskLimits(None, 1, 0).on(known).in_flight(known)() == max(2 * (4 + 16 * 16), 4 * 513)
    here = Cluster((Node(2, 0),), local=True)
    alive[:] = here.nodes
    assert TaskLimits(None, 1, 0).on(here).in_flight(here)() == 4
    assert TaskLimits(3, 1, 0).on(known).in_flight(known)() == 3


def test_a_node_that_states_no_memory_has_any() -> None:
    assert Node(4, 1).memory == math.inf
    assert tasks_that_fit([Node(4, 1)], Demand(1, 0, 1e12)) == 4


class _Options:
    def options(self, **options: object) -> dict[str, object]:
        return options
