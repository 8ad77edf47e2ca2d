"""One Ray cluster, one small data set and one trained model for all tests of the jobs."""

from __future__ import annotations

import jobs  # noqa: F401 # isort: skip # before ray, which reads the environment that it sets

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from jobs import cluster
from jobs.prepare import prepare
from jobs.train import train
from promoter.model import CNNConfig
from promoter.simulate import simulate
from promoter.splits import SplitConfig
from promoter.training import TrainingConfig

UPSTREAM = 100
SPLIT = SplitConfig(val=["chr3"], test=["chr4"])
MODEL = CNNConfig(channels=(8, 8), kernel_sizes=(7, 3), pool_sizes=(4,), hidden=8)
TRAINING = TrainingConfig(epochs=6, batch_size=16, learning_rate=3e-3, jitter=2)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[cluster.Cluster]:
    yield cluster.connect()
    ray.shutdown()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 chromosomes × 51 genes: neither genes nor splits divide by batches or workers."""
    folder = tmp_path_factory.mktemp("data")
    files = simulate(folder / "genome", chromosomes=4, genes_per_chromosome=51, upstream=UPSTREAM)
    prepare(
        str(folder),
        genome=str(files.genome),
        genes=str(files.genes),
        expression=str(files.expression),
        upstream=UPSTREAM,
    )
    return folder


@pytest.fixture(scope="session")
def run(ray_cluster: cluster.Cluster, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run on two DDP workers, never interrupted."""
    out = tmp_path_factory.mktemp("run")
    train(str(data), str(out), SPLIT, MODEL, TRAINING, workers=2)
    return out


@pytest.fixture(scope="session")
def train_flags(data: Path) -> list[str]:
    """The command line of the run that the fixture `run` made."""
    return [
        *("--data", str(data), "--split.val", "chr3", "--split.test", "chr4"),
        *("--model.channels", "8", "8", "--model.kernel_sizes", "7,3", "--model.pool_sizes", "[4]"),
        *("--model.hidden", "8", "--training.epochs", "6", "--training.batch_size", "16"),
        *("--training.learning_rate", "3e-3", "--training.jitter", "2", "--workers", "2"),
    ]
