"""The metrics of a model on a data set that it may not have been trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from promoter.baselines import fit_baselines, fit_coefficients
from promoter.checkpoint import ModelInfo, SerializedModel
from promoter.dataset.promoters import Promoters
from promoter.errors import InputNote, InputWarning
from promoter.evaluation.evaluate import evaluate_data, kept_baselines, measured_targets
from promoter.evaluation.predictions import predictions_table
from promoter.kept_baselines import save_baselines

LENGTH = 60
INFO = ModelInfo(
    targets=["A", "B"],
    window={"upstream": LENGTH, "downstream": 0, "length": LENGTH},
    split={"train": ["c0", "c1"], "val": ["c2"], "test": ["c3"]},
)


def data(n: int = 120, names: tuple[str, ...] = ("A", "B"), seed: int = 0, **metadata: Any) -> Promoters:
    """Make sequences on chromosomes c0 to c4, of which the model does not know the last."""
    rng = np.random.default_rng(seed)
    sequences = ["".join(rng.choice(list("ACGT"), LENGTH)) for _ in range(n)]
    genes = pd.DataFrame(
        {"gene_id": [f"g{i}" for i in range(n)], "chrom": [f"c{i % 5}" for i in range(n)], "sequence": sequences}
    ).assign(strand="+", start=np.arange(n) * 1000, end=np.arange(n) * 1000 + LENGTH)
    gc = np.array([sequence.count("G") + sequence.count("C") for sequence in sequences])
    targets = (gc[:, None] + rng.normal(0, 3, (n, len(names)))).astype(np.float32)
    return Promoters(genes, targets, list(names), {"window": None, **metadata})


def member(folder: Path, name: str) -> SerializedModel:
    (folder / name).mkdir()
    return SerializedModel(name.encode(), b"", str(folder / name))


def test_metrics_are_by_what_the_model_remembers_and_beside_the_mean_of_the_members_baselines(
    tmp_path: Path,
) -> None:
    promoters = data()
    split = INFO.get_split(promoters.genes)
    members = [member(tmp_path, name) for name in ("first", "second", "without")]
    by_member = []
    for one, left_out in zip(members[:2], ("c0", "c1"), strict=True):
        rows = (split == "train").to_numpy() & (promoters.genes["chrom"] != left_out).to_numpy()
        units = np.arange(120) % 5
        fitted, coefficients = fit_coefficients(promoters.tokens, promoters.targets, units, rows)
        save_baselines(one.source, coefficients, one.checksum, LENGTH)
        by_member.append(fitted)
    predicted = promoters.targets + np.random.default_rng(1).normal(0, 4, (120, 2)).astype(np.float32)
    promoters.genes["weight"] = np.random.default_rng(2).lognormal(size=120).astype(np.float32)
    table = predictions_table(promoters, INFO, predicted)
    found = evaluate_data(table, promoters, INFO, targets=["B"], baselines=kept_baselines(members, promoters))
    assert set(found) == {"train", "val", "test", "new"}
    assert promoters.weights is not None
    for name, of_target in found.items():
        rows = (split.fillna("new") == name).to_numpy()
        x, y, w = promoters.targets[rows, 1].astype(float), predicted[rows, 1], promoters.weights[rows]
        assert set(of_target) == {"B"}
        assert of_target["B"]["n"] == rows.sum() == (48 if name == "train" else 24)
        assert of_target["B"]["pearson"] == pytest.approx(stats.pearsonr(x, y)[0])
        assert of_target["B"]["weighted"]["mse"] == pytest.approx(np.average((x - y) ** 2, weights=w))
        assert ("baselines" in of_target["B"]) == (name != "train")
        for baseline, values in of_target["B"].get("baselines", {}).items():
            mean = np.mean([fitted[baseline][rows, 1] for fitted in by_member], axis=0)
            assert values["mse"] == pytest.approx(np.mean((x - mean) ** 2), rel=1e-4)
            if baseline != "mean":
                r = stats.pearsonr(x, mean)[0]
                assert values["pearson"] == pytest.approx(r, abs=1e-4)
                difference = of_target["B"]["pearson"] - r
                assert values["pearson_difference"] == pytest.approx(difference, abs=1e-4)
                low, high = values["pearson_difference_ci95"]
                assert low < difference < high


def test_a_folder_without_baselines_or_with_those_of_other_lengths_gives_none(tmp_path: Path) -> None:
    promoters, one = data(), member(tmp_path, "one")
    assert kept_baselines([one], promoters) == {}
    save_baselines(one.source, {"mean": np.zeros((1, 2))}, one.checksum, 2000)
    assert kept_baselines([one], promoters) == {}


def test_the_baselines_of_genes_in_a_target_are_fitted_once(tmp_path: Path) -> None:
    promoters, one = data(), member(tmp_path, "one")
    in_training = np.arange(120) < 80
    _, coefficients = fit_coefficients(promoters.tokens, promoters.targets, np.arange(120), in_training)
    save_baselines(one.source, coefficients, one.checksum, LENGTH)
    expected = fit_baselines(promoters.tokens, promoters.targets, np.arange(120), in_training)["composition"]
    table = predictions_table(promoters, INFO, expected)  # a model that predicts as the baseline does
    found = evaluate_data(table, promoters, INFO, targets=["A"], baselines=kept_baselines([one], promoters))[
        "new"
    ]["A"]
    assert found["baselines"]["composition"]["pearson_difference"] == pytest.approx(0, abs=1e-6)
    assert found["baselines"]["composition"]["mse"] == pytest.approx(found["mse"], rel=1e-5)


@pytest.mark.parametrize(
    ("names", "model", "measured", "said"),
    [
        (("A", "B"), ["A", "B"], ["A", "B"], None),
        (("B", "Z", "A"), ["A", "B"], ["A", "B"], None),
        ((), ["A"], [], None),  # sequences alone
        (("activity",), ["A"], [], r"is called activity, the model's A, .* rename the column activity to A"),
        (("B",), ["A", "B"], ["B"], r"no target A \(it has B\), so there are no metrics of it"),
        (("X", "Y"), ["A", "B"], [], r"no target A, B \(it has X, Y\), so there are no metrics of them"),
        (("X", "Y"), ["A"], [], r"no target A \(it has X, Y\)"),
    ],
)
def test_targets_are_those_of_the_same_name_and_others_are_named_in_a_note(
    names: tuple[str, ...], model: list[str], measured: list[str], said: str | None
) -> None:
    info = ModelInfo(targets=model, window=INFO.window)
    if said is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert measured_targets(data(names=names), info) == measured
        return
    with pytest.warns(InputNote, match=said):
        assert measured_targets(data(names=names), info) == measured


def test_a_target_without_any_value_is_not_measured() -> None:
    promoters = data()
    promoters.targets[:, 0] = np.nan
    assert measured_targets(promoters, INFO) == ["B"]


def test_values_of_another_transform_are_doubted() -> None:
    info = ModelInfo(targets=["A"], window=INFO.window, transform="log2p1")
    with pytest.warns(InputWarning, match="transform none, the model's log2p1, .*`transform='log2p1'`"):
        assert measured_targets(data(names=("A",), transform="none"), info) == ["A"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured_targets(data(names=("A",), transform="log2p1"), info)
        measured_targets(data(names=("A",), transform="none"), INFO.__class__(targets=["A"], window=INFO.window))
