"""`benchmarks/published.py`: its tables against other computations on the real files; skipped without them."""

from __future__ import annotations

import csv
import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import published_data, published_salt, published_scrambles, published_sources
from benchmarks.published_data import LEAF, NATIVE, Table
from benchmarks.published_sources import Files
from promoter.sequence import encode

CNN, MLP, FOREST = published_data.ECOLI_THEIRS
SPLIT = "tss_expression_model_format_{}_genome_split"


@pytest.fixture(scope="module")
def data(yeast: Path) -> Path:
    """The folder of the real data, or skip."""
    if not (yeast.parent / "ecoli_mpra").is_dir():
        pytest.skip(f"no published tables in {yeast.parent}")
    return yeast.parent


@pytest.fixture(scope="module")
def ecoli(data: Path) -> Table:
    return published_data.read_ecoli(Files(data))


@pytest.fixture(scope="module")
def native(data: Path) -> Table:
    return published_data.read_yeast_mpra(Files(data))


def raw(data: Path, name: str, separator: str = "\t") -> list[list[str]]:
    """Read the cells of a file without pandas."""
    with gzip.open(data / f"{name}.gz", "rt") as lines:
        return list(csv.reader(lines, delimiter=separator))


def test_the_files_of_the_published_classifier_reproduce_its_auroc_on_the_distinct_test_promoters(data: Path):
    labels = {row[0]: row[5] == "active" for row in raw(data, "ecoli_mpra/tss_expression_model_format.txt")}
    test = raw(data, f"ecoli_mpra/{SPLIT.format('test')}.txt")
    file = "20191118_tss_scramble_peak_classification_hyperparam_tuned_predictions.txt"
    predicted = [float(row[0]) for row in raw(data, f"ecoli_mpra/{file}")]
    distinct = {row[0]: score for row, score in zip(test, predicted[: len(test)], strict=True)}
    active = [labels[sequence] for sequence in distinct]
    assert len(distinct) == 4517
    assert roc_auc_score(active, list(distinct.values())) == pytest.approx(0.845, abs=0.0006)
    assert average_precision_score(active, list(distinct.values())) == pytest.approx(0.539, abs=0.0006)


def test_rows_of_ecoli_are_those_of_the_published_split_without_shared_sequences(data: Path, ecoli: Table):
    files = {name: raw(data, f"ecoli_mpra/{SPLIT.format(name)}.txt") for name in ("train", "test")}
    sequences = {name: [row[0] for row in rows] for name, rows in files.items()}
    shared = set(sequences["train"]) & set(sequences["test"])
    assert len(shared) == 28
    rows = ecoli.rows
    judged = rows[rows["split"] == "test"]
    assert judged["sequence"].tolist() == [text for text in sequences["test"] if text not in shared]
    learned = rows["sequence"][rows["split"] == "train"]
    assert learned.is_unique
    assert set(learned) == set(sequences["train"]) - shared
    value = {row[0]: np.log2(max(float(row[1]), 0) + 0.1) for rows in files.values() for row in rows}
    np.testing.assert_allclose(rows["value"], rows["sequence"].map(value))
    assert any(
        "28 sequences" in line and "49 rows" in line and "34 of the test" in line for line in ecoli.left_out
    )
    assert any("96 controls of 49 to 75 bases" in line for line in ecoli.left_out)


def test_predictions_of_ecoli_are_beside_the_observed_values_that_their_file_gives(data: Path, ecoli: Table):
    judged = ecoli.rows[ecoli.rows["split"] == "test"].set_index("sequence")
    test = raw(data, f"ecoli_mpra/{SPLIT.format('test')}.txt")
    for name, part in published_data.ECOLI_THEIRS.items():
        predicted = raw(data, f"ecoli_mpra/{part}_predictions.txt")[: len(test)]
        for (sequence, expression), (value, observed) in zip(test[::37], predicted[::37], strict=True):
            if sequence not in judged.index:
                continue
            row = judged.loc[[sequence]].iloc[0]
            expected = float(value) if name == CNN else np.log2(max(float(value), 0) + 0.1)
            assert row[name] == pytest.approx(expected)
            assert float(observed) == (float(row["active"]) if name == CNN else pytest.approx(float(expression)))
    r = [stats.pearsonr(judged["value"], judged[name])[0] for name in (MLP, FOREST)]
    assert r == pytest.approx([0.175, 0.275], abs=0.001)


def test_a_fold_of_ecoli_is_one_stretch_of_the_training_genome_that_nothing_learned_overlaps(data: Path):
    files = Files(data)
    table, genome = published_data.read_ecoli(files, "2"), published_sources.read_genome(files)
    published_test = {row[0] for row in raw(data, f"ecoli_mpra/{SPLIT.format('test')}.txt")}
    assert published_test.isdisjoint(table.rows["sequence"])
    assert not table.theirs
    turn = str.maketrans("ACGT", "TGCA")

    def find(sequence: str) -> int:  # one of the two strands
        return max(genome.find(sequence), genome.find(sequence[::-1].translate(turn)))

    sample = table.rows.dropna(subset="split").iloc[::150]
    position = sample["sequence"].map(find)
    inside, outside = (position[sample["split"] == name] for name in ("test", "train"))
    assert len(inside) > 10
    assert not outside.between(inside.min() - 150, inside.max() + 150).any()
    assert (table.rows["split"] == "test").mean() == pytest.approx(0.2, abs=0.01)


def test_blocks_that_are_judged_lie_where_the_file_of_sites_has_them(data: Path, ecoli: Table):
    files = Files(data)
    blocks, left_out = published_scrambles.read_scrambles(files, ecoli.rows)
    assert "3,242 sites" in left_out[0]
    judged = blocks[blocks["held_out"]]
    held_out = set(ecoli.rows["sequence"][ecoli.rows["split"] == "test"])
    learned = set(ecoli.rows["sequence"][ecoli.rows["split"] == "train"])
    assert set(judged["sequence"]) <= held_out
    assert learned.isdisjoint(judged["sequence"])
    sites = raw(data, "ecoli_mpra/scramble_merged_sites.txt")[1:]
    placed = {}
    for row in raw(data, "ecoli_mpra/tss_expression_model_format.txt"):
        placed.setdefault(row[0], set()).add((row[2], row[3], row[4][-1]))
    for block in judged.iloc[::11].to_dict("records"):
        site, begin, end = sites[block["site"]], int(block["first"]), int(block["end"])
        assert float(site[3]) == block["effect"]
        in_genome = [
            (int(first) + begin, int(first) + end) if strand == "+" else (int(last) - end, int(last) - begin)
            for first, last, strand in placed[block["sequence"]]
        ]
        assert any(int(site[1]) <= start < stop <= int(site[2]) for start, stop in in_genome)


def test_predictions_of_plants_agree_with_a_match_by_sorting(data: Path):
    table = published_data.read_plants(Files(data))
    rows, predicted = (raw(data, f"plant_core/CNN_test_leaf{name}.tsv")[1:] for name in ("", "_pred"))
    rows.sort(key=lambda row: (row[1], float(row[4])))
    predicted.sort(key=lambda row: (row[0], float(row[1])))
    found = table.rows.set_index("id")[LEAF]
    for row, other in zip(rows, predicted, strict=True):
        assert row[1] == other[0]
        assert float(row[4]) == pytest.approx(float(other[1]), abs=1e-9)
        assert np.isnan(found[row[2]]) or found[row[2]] == float(other[2])
    assert found.isna().sum() == 370
    expected = {
        row[2]: {0: "test", 1: "test", 2: "val"}.get(zlib.crc32(row[2].encode()) % 10, "train") for row in rows
    }
    assert table.rows.set_index("id")["split"].to_dict() == expected
    known = table.rows.dropna()
    assert stats.pearsonr(known["value"], known[LEAF])[0] == pytest.approx(0.845, abs=0.001)


def test_a_fold_of_plants_leaves_the_test_genes_out(data: Path):
    rows = published_data.read_plants(Files(data), "1").rows
    remainder = rows["id"].map(lambda gene: zlib.crc32(str(gene).encode()) % 10)
    assert rows["split"][remainder < 2].isna().all()
    assert set(remainder[rows["split"] == "test"]) == {3}
    assert LEAF not in rows


def test_native_yeast_promoters_are_200_families_that_the_published_network_predicts_by_r_0961(native: Table):
    judged = native.rows[native.rows["split"] == "test"]
    assert (len(judged), judged["group"].nunique()) == (3733, 200)
    assert stats.pearsonr(judged["value"], judged[NATIVE])[0] == pytest.approx(0.961, abs=0.0005)
    learned = native.rows[native.rows["split"] == "train"]
    assert set(learned["group"]).isdisjoint(judged["group"])
    assert native.rows["sequence"].str.strip("N").is_unique
    assert native.left_out[0].startswith("430 rows that repeat a sequence and its value: 430 of SSWM")


def test_yeast_families_are_those_of_few_differences(native: Table):
    rows = native.rows.sort_values("group").iloc[3000:3600]
    letters = encode(rows["sequence"].tolist())
    differences = (letters[:, None] != letters).sum(-1)
    same = rows["group"].to_numpy()[:, None] == rows["group"].to_numpy()
    assert same.sum() > len(rows)  # some have relatives
    assert differences[~same].min() > 30
    # links of a chain are close, its ends need not be
    np.fill_diagonal(same, False)
    nearest = np.where(same, differences, 99).min(axis=1)
    assert nearest[same.any(axis=1)].max() <= 15


@pytest.mark.parametrize("fold", ["1", "Random", "SSWM"])
def test_a_fold_of_the_yeast_mpra_divides_no_family_and_leaves_native_out(data: Path, fold: str):
    rows = published_data.read_yeast_mpra(Files(data), fold).rows
    assert not rows["id"].str.startswith("Native").any()
    kept = rows.dropna(subset="split")
    assert kept.groupby("group")["split"].nunique().max() == 1
    if fold == "1":
        assert (rows["split"] == "test").mean() == pytest.approx(0.2, abs=0.03)
    else:
        assert (rows["id"].str.startswith(fold) == (rows["split"] == "test")).all()


def test_the_ceiling_of_the_salt_response_is_a_correlation(data: Path):
    genes = [row[0] for row in csv.reader((data / "yeast" / "salt_response.tsv").open(), delimiter="\t")][1:]
    said = published_salt.salt_ceiling(Files(data), genes)
    assert 0.5 < float(said.split()[2]) < 1
