"""`configs/small-genome.yaml`, which crops to 500 bases and pools into 5 bins, on windows of other lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from support.commands import ROOT, outcome

from jobs.ism import ism
from jobs.predict import predict
from jobs.train import train
from jobs.tune import tune
from promoter.checkpoint import load_model
from promoter.dataset.promoters import read_promoters, write_promoters
from promoter.ism import load_scores
from promoter.sequence import BASES, encode, one_hot

pytestmark = pytest.mark.ray
SMALL_GENOME = ROOT / "configs" / "small-genome.yaml"


@pytest.fixture
def windows(ray_cluster: object, data: Path, tmp_path: Path) -> Callable[[int], Path]:
    """Write a data set with windows of so many random bases."""

    def write(length: int) -> Path:
        promoters = read_promoters(data)
        letters = np.random.default_rng(length).choice(list(BASES), (len(promoters), length))
        genes = promoters.genes.assign(sequence=["".join(row) for row in letters])
        metadata = promoters.metadata | {"window": {"upstream": length, "downstream": 0}}
        write_promoters(tmp_path / "data", replace(promoters, genes=genes, metadata=metadata))
        return tmp_path / "data"

    return write


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("length", "bins", "notes"),
    [
        (
            50,
            1,
            [
                "note: --model.crop 500: the windows have 50 bases, all of them are used",
                "note: --model.bins 5: 50 bases leave 1 position after pool_sizes [8, 4], so the network has 1",
            ],
        ),
        pytest.param(64, 2, ["the windows have 64 bases", "64 bases leave 2 positions"], marks=SLOW),
        pytest.param(110, 3, ["the windows have 110 bases", "110 bases leave 3 positions"], marks=SLOW),
        (150, 4, ["the windows have 150 bases", "so the network has 4 bins"]),
        pytest.param(499, 5, ["the windows have 499 bases"], marks=SLOW),
        pytest.param(500, 5, [], marks=SLOW),
        (501, 5, []),
    ],
)
def test_small_genome_yaml_trains_and_is_explained_as_it_stands(
    windows: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    length: int,
    bins: int,
    notes: list[str],
) -> None:
    folder, run = windows(length), tmp_path / "run"
    words = ["--data", folder, "--out", run, "--config", SMALL_GENOME, "--training.epochs", "1"]
    words += ["--split.test", "chr4", "--workers", "0", "--baselines", "false"]
    code, printed, error = outcome(capsys, train, *words)
    assert code == 0, error
    said = [line for line in printed.splitlines() if line.startswith(("note:", "warning:"))]
    assert len(said) == len(notes)
    assert all(note in line for note, line in zip(notes, said, strict=True))
    config = yaml.safe_load((run / "config.yaml").read_text())["model"]
    assert (config["crop"], config["bins"]) == (None if length < 500 else 500, bins)
    code, printed, _ = outcome(capsys, train, *words)
    assert code == 0
    assert "finished already" in printed

    model = load_model(run / "model")
    promoters = read_promoters(folder)
    predicted = tmp_path / "p.parquet"
    assert outcome(capsys, predict, "--model", run / "model", "--data", folder, "--out", predicted)[0] == 0
    with torch.no_grad():
        expected = model(one_hot(promoters.tokens))[:, 0].numpy()
    np.testing.assert_allclose(pd.read_parquet(predicted)["expression_predicted"], expected, rtol=1e-5, atol=1e-5)

    gene = promoters.genes["gene_id"].iloc[0]
    out = tmp_path / "ism"
    assert outcome(capsys, ism, "--model", run / "model", "--data", folder, "--genes", gene, "--out", out)[0] == 0
    found = load_scores(out).scores[0, 0]
    exact, sequence = model.double(), promoters.genes["sequence"].iloc[0]
    naive = np.zeros((4, length))
    with torch.no_grad():
        reference = exact(one_hot(encode([sequence])).double())[0, 0]
        for row, base in enumerate(BASES):
            mutants = [sequence[:at] + base + sequence[at + 1 :] for at in range(length)]
            naive[row] = (exact(one_hot(encode(mutants)).double())[:, 0] - reference).numpy()
    assert np.abs(naive).max() > 0
    np.testing.assert_allclose(found, naive, rtol=0, atol=1e-5 * np.abs(naive).max() + 1e-7)


def test_windows_shorter_than_the_pools_are_refused_with_the_fix(
    windows: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = outcome(
        capsys, train, "--data", windows(31), "--out", tmp_path / "run", "--config", SMALL_GENOME
    )
    assert code == 2
    assert error == (
        "error: a window of 31 bases is too short for pool_sizes [8, 4], which need at least 32; prepare a wider "
        "window, or pool less by --model.pool_sizes\n"
    )
    assert not list((tmp_path / "run").glob("*"))


def test_a_search_fits_each_trial_to_the_windows_and_best_yaml_holds_what_was_fitted(
    windows: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "search"
    space = "{model.pool_sizes.0: {choices: [4, 8]}, model.crop: {choices: [500, null]}}"
    words = ["--config", SMALL_GENOME, "--space", space, "--algorithm", "grid", "--folds", "1"]
    small = ["--training.epochs", "1", "--model.hidden", "8", "--split.test", "chr4"]
    code, _, error = outcome(capsys, tune, "--data", windows(110), "--out", out, *words, *small)
    assert code == 0, error
    trials = pd.read_csv(out / "trials.csv")
    assert sorted(trials["model.pool_sizes.0"]) == [4, 8]  # a crop of 500 and none are the same network here
    best = yaml.safe_load((out / "best.yaml").read_text())["model"]
    assert (best["pool_sizes"], best["bins"]) in (([4, 4], 5), ([8, 4], 3))
    assert best["crop"] is None
    assert asdict(load_model(out / "model").config)["bins"] == best["bins"]
