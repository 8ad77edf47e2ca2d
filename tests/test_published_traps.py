"""`benchmarks/published.py` on small files with the traps of the real ones, its metrics beside others' code."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from support.libraries import random_sequences, save_library_model, write_library_run

from benchmarks import published, published_data, published_salt, published_scrambles, published_sources
from benchmarks.published_data import Table
from benchmarks.published_sources import Files
from promoter.errors import InputError
from promoter.ism import saturation_mutagenesis
from promoter.sequence import encode
from promoter.training import predict


def test_experiments_without_noise_agree_completely():
    rng = np.random.default_rng(0)
    samples = pd.DataFrame(
        [(f"{batch}{condition}", condition, batch) for batch in "abcde" for condition in ("basal", "salt")],
        columns=["sample", "condition", "batch"],
    ).set_index("sample")
    level = {condition: rng.lognormal(5, 2, 50) for condition in ("basal", "salt")}
    counts = pd.DataFrame({name: level[row["condition"]] for name, row in samples.iterrows()})
    counts.index = pd.Index(genes := [f"g{number}" for number in range(50)])
    length = pd.Series(1000, counts.index)
    assert published_salt.agreement(counts, samples, length, genes) == pytest.approx(1)
    noise = counts * rng.lognormal(0, 3, counts.shape)
    assert published_salt.agreement(noise, samples, length, genes) < 0.9


@pytest.fixture
def one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    content = b"id\tvalue\na\tNA\n"
    source = ("http://127.0.0.1:9", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(published_sources, "SOURCES", {"study/table.tsv": source})
    (tmp_path / "study").mkdir()
    return Files(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_plain_or_gzipped_and_na_is_text(one_file: Files, packed: bool):
    content = b"id\tvalue\na\tNA\n"
    path = one_file.folder / "study" / ("table.tsv.gz" if packed else "table.tsv")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert one_file.read("study/table.tsv").to_dict("list") == {"id": ["a"], "value": ["NA"]}


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_with_another_checksum_is_refused_and_stays(one_file: Files, packed: bool):
    path = one_file.folder / "study" / ("table.tsv.gz" if packed else "table.tsv")
    path.write_bytes(changed := gzip.compress(b"id\n") if packed else b"id\n")
    with pytest.raises(InputError, match=r"table\.tsv.*SHA-256"):
        one_file.read("study/table.tsv")
    assert path.read_bytes() == changed


def test_a_file_that_cannot_be_downloaded_is_asked_for(one_file: Files):
    with pytest.raises(InputError, match=r"table\.tsv: cannot be downloaded .*give its folder as `data`"):
        one_file.read("study/table.tsv")


def test_predictions_in_another_order_find_their_rows_and_ties_find_none():
    rows = pd.DataFrame({"sp": list("aabbb"), "enrichment": [0.1, 0.2, 0.1, 0.3, 0.3]})
    digits = [0.30000000000000004, 0.2, 0.30000000000000004, 0.1, 0.1]
    predicted = pd.DataFrame({"sample.name": list("babba"), "enrichment": digits, "prediction": [1.0, 2, 3, 4, 5]})
    found, ambiguous = published_data.match_predictions(rows, predicted)
    np.testing.assert_equal(found, [5, 2, 4, np.nan, np.nan])
    assert ambiguous == 2
    with pytest.raises(InputError, match="not of the same species"):
        published_data.match_predictions(rows, predicted.assign(enrichment=0.1))


@pytest.mark.parametrize("observed", [[0.2, 0.1, 0.3], [0.1, 0.2], [0.1, 0.2, 0.31]])
def test_predictions_of_other_rows_are_refused(observed: list[float]):
    predicted = pd.DataFrame({"predicted": [1.0] * len(observed), "observed": observed})
    with pytest.raises(InputError, match="observed values of theirs"):
        published_data.ours_in_their_order(predicted, pd.Series([0.1, 0.2, 0.3]), "theirs")


class Tables(Files):
    """Files that a test makes up."""

    def __init__(self, **tables: pd.DataFrame) -> None:
        super().__init__(Path())
        self.tables = tables

    def read(self, name: str, columns: Any = None) -> pd.DataFrame:
        return self.tables[name.split("/")[1].split("_", maxsplit=1)[0]]


def test_copies_variants_and_padding_of_the_yeast_mpra_are_left_out_or_said():
    whole = ["TGCATTTTTTTCACATC" + text + "GGTTACGGCTGTT" for text in random_sequences(5, 80).values()]
    variant = whole[0][:60] + ("A" if whole[0][60] != "A" else "C") + whole[0][61:]
    padded = "NN" + whole[1][:-2]

    def library(sequences: list[str], values: list[float]) -> pd.DataFrame:
        return pd.DataFrame({"sequence": sequences, "Measured Expression": values, "Predicted Expression": values})

    tables = Tables(
        Native=library([whole[0]], [1]),
        Random=library([padded, whole[2]], [2, 3]),
        Drift=library([whole[3], variant], [4, 5]),
        SSWM=library([whole[4], whole[4], whole[2]], [6, 6, 7]),
    )
    table = published_data.read_yeast_mpra(tables)
    assert table.rows["value"].tolist() == [1, 2, 3, 4, 6]
    assert table.rows["split"].tolist() == ["test", *["train"] * 4]
    assert [line.split()[0] for line in table.left_out] == ["1", "1", "N", "1"]
    assert table.left_out[2] == "N as padding, which stays: 1 of Random"


def test_blocks_are_read_from_names_with_commas_and_counted():
    text = "TSS_1_a,190,+_scrambled40-50,TSS_2_b_c,95,-_scrambled0-10_flipped"
    blocks = published_scrambles.parse_blocks(pd.DataFrame({"scrambles": [text], "num_scrambles": [2]}))
    assert blocks.to_numpy().tolist() == [[0, "TSS_1_a,190,+", 40, 50], [0, "TSS_2_b_c,95,-", 0, 10]]
    for wrong in ([text, 3], [text + ",more", 2]):
        with pytest.raises(InputError, match="site 1 cannot be read"):
            published_scrambles.parse_blocks(pd.DataFrame([wrong], columns=["scrambles", "num_scrambles"]))


def test_sequences_are_found_in_a_genome_on_both_strands():
    genome = random_sequences(1, 3000)["s0"]
    genome = genome[:2000] + genome[100:150] + genome[2000:]
    turned = genome[500:550][::-1].translate(str.maketrans("ACGT", "TGCA"))
    wanted = [genome[100:150], turned, genome[100:130] + "A" * 20]
    assert published_sources.place(wanted, genome) == [[(100, "+"), (2000, "+")], [(500, "-")], []]


def test_a_construct_with_two_sequences_or_the_other_strand_is_left_out():
    genome = random_sequences(1, 3000)["s0"]
    names = ["good,1,+", "two,2,+", "two,2,+", "turned,3,-", "absent,4,+", "not asked,5,+"]
    starts = [100, 200, 300, 400, 500, 600]
    sequences = [genome[start : start + 50] for start in starts]
    sequences[4] = "ACGT" * 12 + "AC"
    everything = pd.DataFrame({"construct": names, "sequence": sequences})
    blocks = pd.DataFrame({"construct": names[:5]})
    found = published_scrambles.construct_sequences(everything, blocks, genome)
    assert found.to_dict() == {"good,1,+": sequences[0]}


def test_predicted_effects_are_those_of_shuffled_sequences_and_of_ism(tmp_path: Path):
    models = [save_library_model(tmp_path / "folds" / f"fold_1_seed_{n}" / "model", seed=n) for n in (1, 2)]
    sequences = list(random_sequences(3).values())
    blocks = pd.DataFrame(
        {
            "site": [0, 0, 1, 2],
            "sequence": [sequences[0], sequences[1], sequences[1], sequences[2]],
            "first": [5, 10, 30, 0],
            "end": [15, 20, 40, 10],
            "effect": [1.0, 1.0, -2.0, 3.0],
            "group": [0, 0, 1, 2],
            "held_out": [True, True, True, False],
            "learned": [False, False, False, True],
        }
    )
    found = published_scrambles.predict_effects(tmp_path, blocks)
    assert found["site"].tolist() == [0, 1]
    tokens = encode(sequences)
    shuffled = published_scrambles.shuffle_blocks(tokens[[0, 1, 1]], blocks.iloc[:3], 0).reshape(3, 20, -1)
    np.testing.assert_array_equal(np.sort(shuffled[0, :, 5:15]), np.sort(np.tile(tokens[0, 5:15], (20, 1))))
    np.testing.assert_array_equal(
        shuffled[0][:, [*range(5), *range(15, 40)]][7], np.delete(tokens[0], range(5, 15))
    )
    assert len(np.unique(shuffled[0], axis=0)) > 10
    changes = [
        np.mean([predict(m, shuffled[row])[:, 0].mean() - predict(m, tokens[of][None])[0, 0] for m in models])
        for row, of in enumerate((0, 1, 1))
    ]
    expected = [np.mean(changes[:2]), changes[2]]
    np.testing.assert_allclose(found[published_scrambles.SHUFFLED], expected, atol=1e-6)
    scores = np.mean([saturation_mutagenesis(m, tokens)[:, 0] for m in models], axis=0)
    # the base that is there scores 0, so its contribution is minus the mean over the four
    sums = [
        scores[of, :, first:end].mean(axis=0).sum() for of, first, end in ((0, 5, 15), (1, 10, 20), (1, 30, 40))
    ]
    np.testing.assert_allclose(found[published_scrambles.ISM], [np.mean(sums[:2]), sums[2]], atol=1e-6)
    assert found[published_scrambles.POSITION].isna().tolist() == [
        True,
        True,
    ]  # nothing learned at these positions


def test_metrics_of_classes_are_those_of_sklearn_with_paired_intervals():
    rng = np.random.default_rng(0)
    active = rng.random(200) < 0.3
    good, bad = active + rng.normal(0, 0.5, 200), active + rng.normal(0, 3, 200)
    scores = {"good": good, "same": good, "bad": bad}
    found = published.rank_metrics(active, scores, np.arange(200), resamples=200)
    for name, function in (("AUROC", roc_auc_score), ("average precision", average_precision_score)):
        for model, score in scores.items():
            entry = found[model][name]
            assert entry["value"] == pytest.approx(function(active, score))
            assert entry["interval"][0] < entry["value"] < entry["interval"][1]
        np.testing.assert_array_equal(found["same"][name]["difference_interval"], 0)
        assert found["bad"][name]["difference_interval"][0] > 0
    rounded = np.round(bad)  # with ties
    weight = rng.integers(0, 3, (5, 200))
    for score in (bad, rounded):
        expected = [
            [function(active[w > 0], score[w > 0], sample_weight=w[w > 0]) for w in weight]
            for function in (roc_auc_score, average_precision_score)
        ]
        np.testing.assert_allclose(published.weighted_rank_metrics(active, score, weight), expected)
    copies = published.rank_metrics(
        np.repeat(active, 4), {"good": np.repeat(good, 4)}, np.repeat(np.arange(200), 4), resamples=200
    )
    # four copies of each row tell no more than one
    np.testing.assert_allclose(copies["good"]["AUROC"]["interval"], found["good"]["AUROC"]["interval"])


def test_networks_are_compared_with_authors_and_baselines_on_the_rows_that_both_have(tmp_path: Path):
    promoters = write_library_run(tmp_path, count=90)
    judged, metrics = published.read_judged(tmp_path, by="family")
    ids = promoters.genes["gene_id"][2::3].tolist()
    assert judged["id"].tolist() == ids
    assert metrics["test"]["n"] == 30
    rows = pd.DataFrame({"id": promoters.genes["gene_id"], "theirs": promoters.targets[:, 0]})
    rows.loc[rows["id"] == ids[0], "theirs"] = np.nan
    rows["active"] = promoters.targets[:, 0] > 0
    comparison = published.compare_with_authors(Table(rows, ("theirs",)), judged, "this model")
    assert comparison.rows["id"].tolist() == ids[1:]
    assert comparison.notes == ["The table is of the 29 sequences with a published prediction."]
    compared = published.compare(comparison.rows, comparison.first, comparison.others)
    ours, observed = comparison.rows["predicted"], comparison.rows["value"]
    assert compared["this model"]["r"]["value"] == pytest.approx(stats.pearsonr(ours, observed)[0])
    assert compared["theirs"]["r"]["value"] == pytest.approx(1)
    assert compared["theirs"]["AUROC"]["difference"] == pytest.approx(roc_auc_score(observed > 0, ours) - 1)
    lines = published.markdown(compared, ["r"]).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [*("| this model", "| theirs", "| baseline: kmers")]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == 8
    assert "rho" not in lines[0]
    assert "30 judged, 0 of which share sequence" in published.describe_training(metrics)[0]


def test_the_test_set_is_judged_only_where_it_is_asked_for():
    assert published.chosen_fold("ecoli", "validation", None) == "1"
    assert published.chosen_fold("ecoli", "test", None) is None
    assert published.chosen_fold("yeast_mpra", "validation", "Drift") == "Drift"
    for table, on, fold in (
        ("ecoli", "validation", "Drift"),
        ("plants", "validation", "6"),
        ("ecoli", "test", "1"),
    ):
        with pytest.raises(InputError, match="--fold"):
            published.chosen_fold(table, on, fold)
