"""One Ray cluster, one small data set and one trained model for all tests of the jobs."""

from __future__ import annotations

import jobs  # noqa: F401 # isort: skip # before ray, which reads the environment that it sets

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from support import s3_server
from support.files import Command

from jobs.prepare import prepare
from jobs.ray_runtime.capacity import Cluster
from jobs.ray_runtime.connect import connect
from jobs.train import train
from promoter.models.cnn import CNNConfig
from promoter.simulation.genome import simulate
from promoter.splits.config import SplitConfig
from promoter.training import TrainingConfig

UPSTREAM = 100
SPLIT = SplitConfig(val=["chr3"], test=["chr4"])
MODEL = CNNConfig(channels=(8, 8), kernel_sizes=(7, 3), pool_sizes=(4,), hidden=8)
TRAINING = TrainingConfig(epochs=6, batch_size=16, learning_rate=3e-3, jitter=2)


@pytest.fixture(scope="session")
def s3_port() -> Iterator[socket.socket]:
    """Where the bucket will be served; in the environment before Ray's processes start, which keep theirs."""
    with socket.create_server(("127.0.0.1", 0)) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment(port.getsockname()[1]).items():
            patch.setenv(name, value)
        yield port


@pytest.fixture(scope="session")
def ray_cluster(s3_port: socket.socket) -> Iterator[Cluster]:
    yield connect()
    ray.shutdown()


@pytest.fixture(scope="session")
def s3(ray_cluster: Cluster, s3_port: socket.socket) -> Iterator[s3_server.Server]:
    """A bucket that this process and the cluster's reach."""
    if not ray_cluster.local:
        pytest.skip("the cluster was there before, and knows nothing of the bucket")
    with s3_server.serve(s3_port) as server:
        yield server


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 chromosomes × 51 genes: neither genes nor splits divide by batches or workers."""
    folder, source = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("source")
    files = simulate(source / "genome", chromosomes=4, genes_per_chromosome=51, upstream=UPSTREAM)
    prepare(
        str(folder),
        genome=str(files.genome),
        genes=str(files.genes),
        expression=str(files.expression),
        upstream=UPSTREAM,
        max_n=1,
    )
    shutil.move(source / "genome", folder)
    return folder


@pytest.fixture(scope="session")
def run(ray_cluster: Cluster, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run on two DDP workers, never interrupted."""
    out = tmp_path_factory.mktemp("run")
    train(str(data), str(out), SPLIT, MODEL, TRAINING, workers=2, gpus_per_worker=0)  # a GPU is not two
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


@dataclass(frozen=True)
class CommandRun:
    """A run made by a command, and what it printed."""

    out: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def long_flags(train_flags: list[str]) -> list[str]:
    """The command line of a training of which something is killed: an epoch takes a tenth of a second or more."""
    return [*train_flags, "--training.epochs", "30", "--training.early_stopping", "null"]


@pytest.fixture(scope="session")
def long_run(long_flags: list[str], command: Command, tmp_path_factory: pytest.TempPathFactory) -> CommandRun:
    """The long training never interrupted, as a command with a Ray of its own."""
    out = tmp_path_factory.mktemp("long")
    done = command("train", *long_flags, "--out", out)
    assert done.returncode == 0, done.stderr
    return CommandRun(out, done.stdout, done.stderr)
