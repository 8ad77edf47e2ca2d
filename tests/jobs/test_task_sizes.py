"""How many genes a task of ism takes and holds in memory, by targets and members; no cluster is needed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from jobs.inference import scoring
from jobs.inference.scoring import ScoredBytes, choose_size, engine_seconds, score_genes
from jobs.inference.variant_effects import choose_genes_per_part
from jobs.ray_runtime.capacity import Cluster, Node, TaskLimits
from jobs.ray_runtime.part_files import PartTask
from promoter.ism import saturation_mutagenesis
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode
from promoter.training import predict

LENGTH, GENES = 100, 70
ONE = 4 * 4 * LENGTH  # bytes of the scores of a gene and target


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (GENES, LENGTH), dtype=np.uint8)


@pytest.fixture
def score(tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Score a part in this process and return what the task does; `networks` stand for serialized models."""
    monkeypatch.setattr(scoring, "loaded_model", lambda network: network)

    def run(path: Path, networks: list[PromoterCNN], *, genes: int = GENES, batch_size: int | None = None) -> Any:
        ids = [f"g{row}" for row in range(genes)]
        columns = {"gene_id": ids, "gene_name": None, "chrom": "I", "start": 0, "end": LENGTH, "strand": "+"}
        table = pd.DataFrame({**columns, "sequence": decode(tokens[:genes])})
        part = PartTask(str(path), ids, {"precision": None, "dtype": "float32"}, batch_size)
        names = [f"t{index}" for index in range(networks[0].config.n_targets)]
        options = {"targets": names, "outputs": None, "sds": None, "region": None, "both_strands": False}
        return score_genes(part, *networks, genes=table, tokens=tokens[:genes], **options)  # type: ignore[arg-type] # as above

    return run


def members(count: int, targets: int) -> list[PromoterCNN]:
    networks = []
    for seed in range(count):
        torch.manual_seed(seed)
        networks.append(PromoterCNN(CNNConfig((4, 4), (5, 3), (4,), 8, n_targets=targets)).eval())
    return networks


def stored(path: Path, targets: int, suffix: str = "") -> np.ndarray:
    table = pq.read_table(path)
    columns = [np.array(table[f"t{index}_scores{suffix}"].to_pylist()) for index in range(targets)]
    return np.stack(columns, axis=1).reshape(len(table), targets, 4, LENGTH)


def test_a_part_scored_within_little_memory_holds_the_mean_and_spread_of_all_members(
    score: Callable[..., Any], tokens: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = members(4, 3)
    each = np.stack([saturation_mutagenesis(network, tokens) for network in networks]).astype(np.float64)
    budgets = {"all": 1 << 28, "two row groups": 6 * 3 * ONE * 32, "less than a gene": 1}
    for name, budget in budgets.items():
        monkeypatch.setattr(scoring, "_BYTES_PER_TASK", budget)
        _, failed, checksums = score(tmp_path / f"{name}.parquet", networks)
        assert not failed
        assert checksums
    parts = [tmp_path / f"{name}.parquet" for name in budgets]
    for path in parts:
        tolerance = 1e-6 * np.abs(each).max()
        np.testing.assert_allclose(stored(path, 3), each.mean(axis=0), rtol=0, atol=tolerance)
        np.testing.assert_allclose(stored(path, 3, "_sd"), each.std(axis=0, ddof=1), rtol=0, atol=tolerance)
        assert [pq.ParquetFile(path).metadata.row_group(index).num_rows for index in range(5)] == [16] * 4 + [6]
        predicted = np.mean([predict(network, tokens) for network in networks], axis=0)
        np.testing.assert_allclose(pq.read_table(path)["t1_prediction"], predicted[:, 1], rtol=1e-5, atol=1e-6)


def test_the_strongest_changes_of_a_part_do_not_depend_on_its_memory(
    score: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for budget in (1 << 28, 1):
        monkeypatch.setattr(scoring, "_BYTES_PER_TASK", budget)
        strongest, _, _ = score(tmp_path / f"{budget}.parquet", members(1, 2))
        found.append([(one.gene, one.target, one.offset, one.alternative) for one in strongest])
    assert found[0] == found[1]
    assert len(found[0]) == 5


def peak_of(task: Callable[[], Any]) -> int:
    """Return the peak of what NumPy held while a task ran; tensors and Arrow's columns are not counted."""
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_of_a_task_grows_neither_with_its_genes_nor_with_the_members(
    score: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = 40
    budget = 6 * targets * ONE * 16  # a row group
    monkeypatch.setattr(scoring, "_BYTES_PER_TASK", budget)
    peaks = {
        (genes, count): peak_of(
            lambda genes=genes, count=count: score(
                tmp_path / f"{genes}-{count}.parquet", members(count, targets), genes=genes
            )
        )
        for genes, count in ((32, 3), (64, 3), (64, 6))
    }
    assert max(peaks.values()) < budget, peaks
    all_at_once = 6 * 64 * targets * ONE
    assert all_at_once > 3 * budget
    assert peaks[64, 6] < 1.2 * peaks[32, 3]


def test_after_memory_has_run_out_a_task_scores_a_gene_at_a_time(
    score: Callable[..., Any], tokens: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    whole = saturation_mutagenesis

    def noted(network: PromoterCNN, some: np.ndarray, **options: Any) -> np.ndarray:
        sizes.append(len(some))
        return whole(network, some, **options)

    monkeypatch.setattr(scoring, "saturation_mutagenesis", noted)
    score(tmp_path / "usual.parquet", members(1, 2))
    assert sizes == [GENES]
    score(tmp_path / "after.parquet", members(1, 2), batch_size=64)
    assert sizes[1:] == [1] * GENES
    expected = stored(tmp_path / "usual.parquet", 2)
    np.testing.assert_allclose(stored(tmp_path / "after.parquet", 2), expected, atol=1e-6 * np.abs(expected).max())
    rows = [pq.ParquetFile(tmp_path / f"{name}.parquet").metadata.num_row_groups for name in ("usual", "after")]
    assert rows == [5, 5]


def test_genes_that_a_model_cannot_score_are_named_and_the_others_written(
    score: Callable[..., Any], tokens: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, whole = {17, 18, 40}, saturation_mutagenesis

    def failing(network: PromoterCNN, some: np.ndarray, **options: Any) -> np.ndarray:
        if any((tokens[row] == one).all() for row in bad for one in some):
            raise RuntimeError("cannot")
        return whole(network, some, **options)

    monkeypatch.setattr(scoring, "saturation_mutagenesis", failing)
    _, failed, checksums = score(tmp_path / "part.parquet", members(1, 1))
    assert set(failed) == {"g17", "g18", "g40"}
    assert checksums
    kept = [f"g{row}" for row in range(GENES) if row not in bad]
    assert pq.read_table(tmp_path / "part.parquet")["gene_id"].to_pylist() == kept
    bad |= set(range(GENES))
    assert score(tmp_path / "none.parquet", members(1, 1))[1:] == (
        {f"g{row}": "RuntimeError: cannot" for row in range(GENES)},
        None,
    )
    assert not (tmp_path / "none.parquet").exists()


def inputs(targets: int, count: int, length: int = 2000) -> Any:
    network = PromoterCNN(CNNConfig(n_targets=targets))
    names = [f"t{index}" for index in range(targets)]
    promoters = SimpleNamespace(length=length)
    return SimpleNamespace(
        network=network, models=[None] * count, promoters=promoters, targets=names, strands_read=lambda _: 1
    )


def test_the_genes_of_a_task_fall_with_targets_and_members(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster((Node(8, 8),), local=True)
    sizes, at_a_time = {}, {}
    for targets in (1, 54, 1000):
        for count in (1, 5, 15):
            scored = ScoredBytes.of(targets, 2000, members=count)
            given = inputs(targets, count)
            limits = TaskLimits(None, 1, 1)
            seconds = engine_seconds(given, limits, both_strands=False)
            sizes[targets, count] = choose_size(seconds, 18_000, scored, limits, cluster)
            at_a_time[targets, count] = scored.genes_at_a_time
            assert scored.row_group * targets * 4 * 4 * 2000 <= 1 << 25 or scored.row_group == 1
            assert scored.genes_at_a_time % scored.row_group == 0
            if scored.row_group > 1:
                assert scored.genes_at_a_time * scored.in_memory <= 1 << 28
            assert sizes[targets, count] * scored.stored <= 1 << 28
    assert sizes[1, 1] > sizes[54, 1] > sizes[54, 5] > sizes[1000, 5] >= 1
    assert at_a_time[1, 1] > at_a_time[54, 1] > at_a_time[54, 5] > at_a_time[1000, 5] >= 1
    assert at_a_time[54, 5] == at_a_time[54, 15]  # members are taken one after another
    usual = at_a_time[54, 1]
    monkeypatch.setattr(scoring, "_BYTES_PER_TASK", scoring._BYTES_PER_TASK // 4)
    assert ScoredBytes.of(54, 2000, members=1).genes_at_a_time <= usual // 3
    assert ScoredBytes.of(1, 2000, members=1).genes_at_a_time >= 16


def test_the_genes_of_a_part_of_variants_fall_with_targets_and_members() -> None:
    assert choose_genes_per_part(inputs(1, 5)) == 128
    assert choose_genes_per_part(inputs(54, 5)) == 128 * 32 // (54 * 5)
    assert choose_genes_per_part(inputs(5313, 5)) == 1
    assert choose_genes_per_part(inputs(1, 1, length=1 << 17)) == 1
