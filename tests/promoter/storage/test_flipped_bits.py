"""A flipped bit in any file of ours is refused with the file's name, or changes nothing that a reader returns."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from upath import UPath

from promoter import storage
from promoter.checkpoint import ModelInfo, deserialize_model, save_model, serialize_model
from promoter.dataset.promoters import Promoters, read_promoters, write_promoters
from promoter.errors import InputError
from promoter.evaluation.intervals import Calibration, Scale, read_calibration, write_calibration
from promoter.evaluation.predictions import read_predictions, write_predictions
from promoter.ism.store import Scores, iterate_scores, load_contents, load_scores, write_part
from promoter.kept_baselines import load_baselines, save_baselines
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode
from promoter.storage.parts import PartFiles, check_part, part_path
from promoter.storage.records import Record, read_record, require_intact, write_record

LENGTH = 24
GENES = 9
TARGETS = ["heat", "salt"]
FLIPS = 200  # of each file; a smaller file has each of its bits flipped
METADATA = {"model": "m" * 64, "data": "d" * 64}
CHECKSUM = "c" * 64


def genes() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    start = 100 * np.arange(GENES)
    return pd.DataFrame(
        {
            "gene_id": [f"g{row}" for row in range(GENES)],
            "gene_name": pd.Series([None if row % 2 else f"name{row}" for row in range(GENES)], dtype="str"),
            "chrom": ["chr1"] * 4 + ["chr2"] * 5,
            "tss": start + 20,
            "strand": [*"+-" * GENES][:GENES],
            "start": start,
            "end": start + LENGTH,
            "sequence": decode(rng.integers(0, 5, (GENES, LENGTH)).astype(np.uint8)),
        }
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """A file, and what reads it.

    Attributes:
        write: function that writes it, and what belongs to it, into a folder.
        file: its path in the folder.
        read: function that reads it, from the folder.
        named: what the message of a refusal begins with, in the folder: the file, or the folder of a model.
    """

    write: Callable[[Path], None]
    file: str
    read: Callable[[Path], Any]
    named: str | None = None


def write_data(folder: Path) -> None:
    targets = np.random.default_rng(1).normal(size=(GENES, 2)).astype(np.float32)
    promoters = Promoters(genes(), targets, TARGETS, {"format": 1, "targets": TARGETS, "window": None}, "")
    write_promoters(folder, promoters)


def recorded(write: Callable[[Path], None], file: str) -> Callable[[Path], None]:
    """Let the folder be that of a finished run."""

    def write_all(folder: Path) -> None:
        write(folder)
        record = Record("job", {"out": str(folder), "seed": 3}, {"a.fa": "0" * 64}, {"promoter": "1"})
        path = UPath(folder / file)
        write_record(folder / "config.yaml", record.finished(UPath(folder), [path]))

    return write_all


def write_scores(folder: Path) -> None:
    rng = np.random.default_rng(2)
    predictions = rng.normal(size=(GENES, 2)).astype(np.float32)
    values = rng.normal(size=(GENES, 2, 4, LENGTH)).astype(np.float32)
    write_part(part_path(folder / "scores", 0), Scores(genes(), TARGETS, predictions, values), METADATA)


def parts(folder: Path) -> PartFiles:
    return PartFiles(UPath(folder), "scores", [genes()["gene_id"].tolist()], [METADATA], {"genes": GENES})


def write_run(folder: Path) -> None:
    write_scores(folder)
    run = parts(folder)
    assert run.missing() == []
    run.write_manifest(complete=True)


def check(folder: Path) -> bool:
    """As a run that resumes without manifest; what it refuses is computed again."""
    path = part_path(folder / "scores", 0)
    if check_part(path, genes()["gene_id"].tolist(), METADATA) is None:
        raise InputError(f"{path}: to be computed again")
    return True


def scores_of(folder: Path) -> Any:
    """What `check` takes for intact, read without manifest."""
    return check(folder) and load_scores(folder)


def write_model(folder: Path) -> None:
    torch.manual_seed(0)
    info = ModelInfo(
        TARGETS,
        {"upstream": 20, "downstream": 4, "length": LENGTH},
        {"mean": [0.5, 1.0], "sd": [2.0, 3.5]},
        split={"train": ["chr1"], "val": [], "test": ["chr2"]},
        split_of_gene={"g1": ("chr1", "test"), "g2": ("chr2", None)},
        training={"best_epoch": 2, "learning_rate": 1e-05},
    )
    save_model(folder / "model", PromoterCNN(CNNConfig((2,), (3,), (), hidden=2, n_targets=2), LENGTH), info)


def read_model(folder: Path) -> Any:
    network, info = deserialize_model(serialize_model(folder / "model"))
    weights = {name: values.numpy() for name, values in network.state_dict().items()}
    return weights, dataclasses.asdict(info)


def write_kept(folder: Path) -> None:
    save_baselines(folder, {"mean": np.array([[1.5, 2.0]]), "composition": np.ones((4, 2))}, CHECKSUM, LENGTH)


def read_kept(folder: Path) -> Any:
    return load_baselines(folder, CHECKSUM, LENGTH)


def write_table(folder: Path) -> None:
    table = genes()[["gene_id", "gene_name", "chrom"]].assign(split="test", heat=1.5, heat_predicted=2.5)
    write_predictions(folder / "predictions.parquet", table)


def write_embeddings(folder: Path) -> None:
    values = np.random.default_rng(3).normal(size=(GENES * 8)).astype(np.float32)
    arrays = [pa.array(genes()["gene_id"], pa.string()), pa.FixedSizeListArray.from_arrays(pa.array(values), 8)]
    storage.write_table(part_path(folder, 0), pa.table(arrays, names=["gene_id", "embedding"]), METADATA)


def read_embeddings(folder: Path) -> Any:
    with storage.open_table(part_path(folder, 0), "part") as file:
        return file.read().to_pandas()


def write_text(folder: Path) -> None:
    storage.write_text(folder / "history.csv", "epoch,train_mse\n1,0.5\n2,0.25\n")


def read_text(folder: Path) -> str:
    require_intact(folder / "history.csv", "train again")
    return (folder / "history.csv").read_text()


PART = "scores/part-00000.parquet"
CASES = {
    "data set": Case(recorded(write_data, "promoters.parquet"), "promoters.parquet", read_promoters),
    "data set, without record": Case(
        write_data, "promoters.parquet", lambda f: vars(read_promoters(f)) | {"checksum": ""}
    ),
    "scores": Case(write_run, PART, load_scores),
    "scores, some genes": Case(write_run, PART, lambda f: load_scores(f, ["g7", "g0"])),
    "scores, one target": Case(write_run, PART, lambda f: list(iterate_scores(f, targets=["salt"]))),
    "contents of scores": Case(write_run, PART, load_contents),
    "scores to resume": Case(write_scores, PART, scores_of),
    "manifest": Case(write_run, "manifest.json", lambda f: (load_scores(f), load_contents(f))),
    "embeddings": Case(write_embeddings, "part-00000.parquet", read_embeddings),
    "predictions": Case(
        recorded(write_table, "predictions.parquet"),
        "predictions.parquet",
        lambda f: read_predictions(f / "predictions.parquet"),
    ),
    "record": Case(recorded(write_text, "history.csv"), "config.yaml", lambda f: read_record(f / "config.yaml")),
    "text with a record": Case(recorded(write_text, "history.csv"), "history.csv", read_text),
    "model.yaml": Case(write_model, "model/model.yaml", read_model, "model"),
    "weights": Case(write_model, "model/model.safetensors", read_model, "model"),
    "split.tsv": Case(write_model, "model/split.tsv", read_model, "model"),
    "kept baselines": Case(write_kept, "baselines.safetensors", read_kept),
    "intervals": Case(
        lambda f: write_calibration(f, Calibration([["a"], ["b"]], {"heat": Scale(1.0, 0.5, 2.0)})),
        "intervals.json",
        read_calibration,
    ),
}


def equal(one: Any, other: Any) -> bool:
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        one, other = vars(one), vars(other)
    if isinstance(one, pd.DataFrame):
        return one.equals(other) and one.dtypes.equals(other.dtypes)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f") and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("name", CASES)
def test_a_flipped_bit_is_refused_or_changes_nothing(
    tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    case = CASES[name]
    case.write(tmp_path)
    path = tmp_path / case.file
    content = path.read_bytes()
    expected = case.read(tmp_path)
    bits = range(8 * len(content))
    if len(bits) > 8 * FLIPS:
        footer = 8 * (len(content) - 600)  # flips of a large file are half in its end, where Parquet's footer is
        draw = random.Random(0)  # noqa: S311 # no secret
        bits = [*draw.sample(bits, FLIPS // 2), *draw.sample(range(max(0, footer), len(bits)), FLIPS // 2)]
    counts: Counter[str] = Counter()
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            actual = case.read(tmp_path)
        except InputError as error:
            message = str(error)
            counts["refused"] += 1
        else:
            assert equal(actual, expected), f"bit {bit}"
            counts["harmless"] += 1
            continue
        assert message.startswith(str(tmp_path / (case.named or case.file))), f"bit {bit}: {message}"
    record_property("flips", dict(counts))
    print(f"{name}: {dict(counts)}")
    assert counts["refused"] > counts["harmless"]
