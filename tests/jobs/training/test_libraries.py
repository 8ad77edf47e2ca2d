"""A table of sequences through training, folds and a search, split by what it says itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.commands import exit_code, outcome

from jobs.predict import predict
from jobs.prepare import prepare
from jobs.train import train
from jobs.tune import tune
from promoter.checkpoint import load_info
from promoter.dataset.promoters import read_promoters
from promoter.metrics import pearson
from promoter.sequence import decode
from promoter.splits.assign import assign_splits
from promoter.splits.config import SplitConfig

pytestmark = pytest.mark.ray
SMALL = [
    *("--model.channels", "8", "--model.kernel_sizes", "7", "--model.pool_sizes", "[]", "--model.hidden", "8"),
    *("--training.epochs", "2", "--training.batch_size", "16", "--workers", "0"),
]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """150 sequences in 50 groups of three, in sets of whole groups; one row in no set."""
    rng = np.random.default_rng(0)
    sequences = decode(rng.integers(0, 4, (150, 60), dtype=np.uint8))
    sets = np.repeat(["train"] * 30 + ["val"] * 8 + ["test"] * 12, 3).astype(object)
    sets[[0, 1, 2]] = None
    activity = np.array([sequence.count("G") for sequence in sequences]) / 10 + rng.normal(0, 0.1, 150)
    return pd.DataFrame(
        {
            "id": [f"oligo{i}" for i in range(150)],
            "sequence": sequences,
            "activity": activity.round(4),
            "split": sets,
            "group": np.repeat([f"element{i}" for i in range(50)], 3),
            "weight": rng.choice([0.5, 1.0, 2.0], 150),
        }
    )


@pytest.fixture(scope="module")
def library(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    table.to_csv(folder / "t.tsv", sep="\t", index=False)
    assert exit_code(prepare, "--sequences", folder / "t.tsv", "--out", folder / "data") == 0
    return folder / "data"


def test_a_library_is_trained_on_its_own_sets_and_known_again(
    ray_cluster: object, table: pd.DataFrame, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    code, printed, error = outcome(capsys, train, "--data", library, "--out", run, *SMALL)
    assert code == 0, error
    assert "split by column" in printed
    assert "train: 87 sequences" in printed
    assert "3 sequences without a value in the column split: in no set" in printed
    assert " genes" not in printed.replace("genes/s", "")
    predictions = pd.read_parquet(run / "predictions.parquet")
    assert predictions["split"].where(predictions["split"].notna(), None).tolist() == table["split"].tolist()
    assert predictions["chrom"].isna().all()
    metrics = json.loads((run / "metrics.json").read_text())["test"]["activity"]
    tested = (table["split"] == "test").to_numpy()
    observed, predicted, weight = (
        column[tested].to_numpy(float)
        for column in (table["activity"], predictions["activity_predicted"], table["weight"])
    )
    assert metrics["pearson"] == pytest.approx(pearson(observed[:, None], predicted[:, None])[0], abs=1e-5)
    repeated = (np.repeat(values, (2 * weight).astype(int))[:, None] for values in (observed, predicted))
    assert metrics["weighted"]["pearson"] == pytest.approx(pearson(*repeated)[0], abs=1e-5)
    assert {"mean", "composition", "kmers"} <= metrics["baselines"].keys()

    # in another table the same sequences are known by their bases, whatever their ids
    other = table[["sequence", "activity"]].iloc[::-1].assign(id=[f"oligo{i}" for i in range(150)])
    other.to_csv(tmp_path / "other.csv", index=False)
    words = ["--sequences", tmp_path / "other.csv", "--out", tmp_path / "other"]
    assert exit_code(prepare, *words) == 0
    found = tmp_path / "p.parquet"
    assert exit_code(predict, "--model", run / "model", "--data", tmp_path / "other", "--out", found) == 0
    splits = pd.read_parquet(found)["split"]
    assert splits.where(splits.notna(), None).tolist() == table["split"].tolist()[::-1]


def test_a_search_deals_out_groups_and_trains_the_best_as_any_training_would(
    ray_cluster: object, table: pd.DataFrame, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "search"
    space = "{training.learning_rate: {choices: [1.0e-3, 1.0e-2]}}"
    words = [
        "--split.by",
        "group",
        "--space",
        space,
        "--algorithm",
        "grid",
        "--folds",
        "2",
        "--keep_folds",
        "true",
    ]
    code, printed, error = outcome(capsys, tune, "--data", library, "--out", out, *words, *SMALL)
    assert code == 0, error
    final = assign_splits(read_promoters(library), SplitConfig(by="group"))
    genes = read_promoters(library).genes
    assert load_info(out / "model").get_split(genes).tolist() == final.split.tolist()
    of_fold = [load_info(out / "folds" / f"fold_{fold}").get_split(genes) for fold in (1, 2)]
    for split in of_fold:
        assert ((split == "test") == (final.split == "test")).all()
        assert (split.groupby(table["group"]).nunique() == 1).all()
    assert ((of_fold[0] == "val") | (of_fold[1] == "val") | (final.split == "test")).all()
    assert f"fold 1: validates on {(of_fold[0] == 'val').sum()} sequences" in printed


@pytest.mark.slow
def test_folds_of_a_library_test_each_sequence_once_and_never_part_a_group(
    ray_cluster: object, table: pd.DataFrame, library: Path, tmp_path: Path
) -> None:
    words = ["--folds", "3", "--split.by", "group", "--baselines", "false", *SMALL]
    assert exit_code(train, "--data", library, "--out", tmp_path / "folds", *words) == 0
    predictions = pd.read_parquet(tmp_path / "folds" / "predictions.parquet")
    assert predictions["gene_id"].tolist() == table["id"].tolist()
    assert (predictions["split"] == "test").all()
    assert sorted(predictions["fold"].value_counts()) == [48, 51, 51]  # 16, 17 and 17 groups of three
    assert (predictions["fold"].groupby(table["group"]).nunique() == 1).all()
    off = (predictions["activity"] - predictions["activity_predicted"]).astype(float) ** 2
    weighted = json.loads((tmp_path / "folds" / "metrics.json").read_text())["test"]["activity"]["weighted"]
    assert weighted["mse"] == pytest.approx(np.average(off, weights=table["weight"]))
    alone = [*words[2:], "--split.fold", "2,3", "--out", tmp_path / "alone"]  # one of them, by hand
    assert exit_code(train, "--data", library, *alone) == 0
    member = tmp_path / "folds" / "folds" / "fold_2"
    assert (tmp_path / "alone" / "metrics.json").read_text() == (member / "metrics.json").read_text()
