"""Every format is read by the tool that users read it with, and compared with a loop over single bases."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pybigtools
import pyBigWig
import pytest
from support.disks import limited

from promoter import storage
from promoter.errors import InputError, StorageError
from promoter.export import tracks as tracks_module
from promoter.export.formats import FORMATS
from promoter.export.modisco import modisco_command
from promoter.export.scores import export_scores
from promoter.export.writer import Batch, ExportSource, FormatWriter
from promoter.ism import Scores
from promoter.ism.store import write_part
from promoter.storage.parts import part_path

UPSTREAM, DOWNSTREAM = 33, 7
LENGTH = UPSTREAM + DOWNSTREAM
SIZES = {"chr10": 150, "chr2": 420, "chrM": 60}
TARGETS = ["basal", "salt.response / 2"]
NAMES = ["HLA-DRB1*03:01", "5% of 'them'", 'say "x"', "a b\tc", "πρωτεΐνη", "[x];y,z|w", "\x1b[1m\n"]
ALL = list(FORMATS)


@dataclass(frozen=True)
class Case:
    folder: Path
    genome: dict[str, str]
    tss: dict[str, int]
    scores: Scores

    @property
    def sizes(self) -> Path:
        return self.folder / "chrom.sizes"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """70 genes so near each other that most windows overlap and many pass an end, in parts of 20, in no order."""
    rng = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("scored")
    genome = {
        name: "".join(rng.choice(list("ACGTN"), size, p=[0.24] * 4 + [0.04])) for name, size in SIZES.items()
    }
    complement = str.maketrans("ACGTN", "TGCAN")
    rows, tss_of = [], {}
    for index in range(70):
        chrom = str(rng.choice(list(SIZES), p=[0.25, 0.6, 0.15]))
        tss, strand = int(rng.integers(0, SIZES[chrom])), str(rng.choice(["+", "-"]))
        if index == 40:  # the TSS of another: only their order tells which one a base shows
            chrom, tss, strand = rows[39][1], tss_of[rows[39][0]], rows[39][4]
        start = tss - UPSTREAM if strand == "+" else tss + 1 - DOWNSTREAM
        letters = ["N" if not 0 <= at < SIZES[chrom] else genome[chrom][at] for at in range(start, start + LENGTH)]
        sequence = "".join(letters) if strand == "+" else "".join(letters).translate(complement)[::-1]
        name = NAMES[index] if index < len(NAMES) else f"g{index}"
        rows.append((name, chrom, start, start + LENGTH, strand, sequence))
        tss_of[name] = tss
    genes = pd.DataFrame(rows, columns=["gene_id", "chrom", "start", "end", "strand", "sequence"])
    genes.insert(1, "gene_name", pd.Series([None if row % 3 else f"name {row}" for row in range(70)], dtype="str"))
    values = rng.normal(size=(len(genes), 2, 4, LENGTH)).astype(np.float32)
    for row, sequence in enumerate(genes["sequence"]):
        for position, letter in enumerate(sequence):
            if letter != "N":
                values[row, :, "ACGT".index(letter), position] = 0
    values[5, :, :, :15] = 0  # a network that does not see the far end
    scores = Scores(genes, TARGETS, rng.normal(size=(len(genes), 2)).astype(np.float32), values)
    write(folder, scores)
    (folder / "chrom.sizes").write_text("".join(f"{name}\t{size}\n" for name, size in SIZES.items()))
    return Case(folder, genome, tss_of, scores)


def write(folder: Path, scores: Scores, complete: bool = True, **more: object) -> None:
    parts = []
    for index, first in enumerate(range(0, len(scores.genes), 20)):
        rows = slice(first, first + 20)
        one = replace(scores, predictions=scores.predictions[rows], scores=scores.scores[rows])
        one = replace(one, genes=scores.genes.iloc[rows])
        write_part(part_path(folder / "scores", index), one, {"model": "m"})
        parts.append({"file": f"scores/{part_path('', index).name}", "genes": len(one.genes)})
    window = {"upstream": UPSTREAM, "downstream": DOWNSTREAM}
    manifest = {"window": window, "complete": complete, "parts": parts, **more}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def hypothetical(case: Case, row: int, target: int, position: int) -> list[float]:
    """Return the four contributions at one position, by hand."""
    four = [float(case.scores.scores[row, target, base, position]) for base in range(4)]
    known = case.scores.genes["sequence"].iloc[row][position] != "N"
    return [one - sum(four) / 4 if known else 0.0 for one in four]


def tracks(case: Case, target: int, chosen: list[str] | None = None) -> dict[str, np.ndarray]:
    """Return each chromosome's contributions, base by base, NaN where no window has a known base."""
    found = {chrom: np.full(size, np.nan) for chrom, size in SIZES.items()}
    nearest: dict[tuple[str, int], int] = {}
    for row, gene in enumerate(case.scores.genes.to_dict("records")):
        if chosen is not None and gene["gene_id"] not in chosen:
            continue
        for position, letter in enumerate(gene["sequence"]):
            if letter == "N":
                continue
            at = gene["start"] + position if gene["strand"] == "+" else gene["end"] - 1 - position
            distance = abs(at - case.tss[gene["gene_id"]])
            if distance < nearest.get((gene["chrom"], at), 10**9):
                nearest[gene["chrom"], at] = distance
                four = hypothetical(case, row, target, position)
                found[gene["chrom"]][at] = four["ACGT".index(letter)]
    return found


def assert_track(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for chrom, values in expected.items():
        np.testing.assert_allclose(found[chrom], values, rtol=1e-5, atol=1e-6, err_msg=chrom)  # float32


def bigwig(path: Path) -> dict[str, np.ndarray]:
    with pyBigWig.open(str(path)) as file:
        assert file.chroms().items() <= SIZES.items()  # those without a value are not named
        empty = {name: np.full(size, np.nan) for name, size in SIZES.items()}
        return empty | {name: file.values(name, 0, size, numpy=True) for name, size in file.chroms().items()}


def bedgraph(path: Path) -> dict[str, np.ndarray]:
    table = pd.read_csv(path, sep="\t", header=None, names=["chrom", "start", "end", "value"])
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines == sorted(
        lines, key=lambda cells: (cells[0].encode(), int(cells[1]))
    )  # LC_ALL=C sort -k1,1 -k2,2n
    found = {chrom: np.full(size, np.nan) for chrom, size in SIZES.items()}
    for chrom, start, end, value in table.itertuples(index=False):
        assert np.isnan(found[chrom][start:end]).all(), "a base twice"
        assert 0 <= start < end <= SIZES[chrom]
        found[chrom][start:end] = value
    return found


def dataset(path: Path, key: str) -> np.ndarray:
    with h5py.File(path) as file:
        found = file[key]
        assert isinstance(found, h5py.Dataset)
        return found[:]


def label(gene: Mapping[Any, Any] | pd.Series) -> str:
    """Return id and name as BED files show them."""
    return gene["gene_id"] if pd.isna(gene["gene_name"]) else f"{gene['gene_id']}|{gene['gene_name']}"


@pytest.mark.parametrize("target", [0, 1])
def test_tracks_hold_each_bases_contribution_to_the_nearest_gene(case: Case, tmp_path: Path, target: int) -> None:
    export_scores(case.folder, tmp_path, ["bigwig", "bedgraph"], genome=case.sizes, target=TARGETS[target])
    expected = tracks(case, target)
    assert sum(np.isfinite(values).sum() for values in expected.values()) > 400  # of 630, the rest N or far
    assert_track(bigwig(tmp_path / "contributions.bw"), expected)
    assert_track(bedgraph(tmp_path / "contributions.bedgraph"), expected)
    with pybigtools.open(str(tmp_path / "contributions.bw")) as file:
        assert_track({name: file.values(name, 0, size, fillna=None) for name, size in SIZES.items()}, expected)


def test_the_mean_over_genes_would_be_another_track(case: Case) -> None:
    """The oracle tells overlaps apart: gene 40 shares the TSS of 39, and others are near."""
    genes = case.scores.genes["gene_id"]
    one, other = tracks(case, 0, [genes[39]]), tracks(case, 0, [genes[40]])
    both, chrom = tracks(case, 0, [genes[39], genes[40]]), case.scores.genes["chrom"][39]
    known = np.isfinite(one[chrom])
    assert known.any()
    assert np.array_equal(both[chrom][known], one[chrom][known])
    assert (both[chrom][known] != other[chrom][known]).all()


def test_only_chosen_genes_are_exported(case: Case, tmp_path: Path) -> None:
    chosen = ["g44", NAMES[3], "g17"]
    written = export_scores(case.folder, tmp_path, ALL, genome=case.sizes, genes=chosen, target=TARGETS[1])
    assert written.genes == 3
    assert_track(bigwig(tmp_path / "contributions.bw"), tracks(case, 1, chosen))
    names = pd.read_csv(tmp_path / "genes.tsv", sep="\t")["gene_id"].tolist()
    assert names == [NAMES[3], "g17", "g44"]  # in the order of the scores
    assert np.load(tmp_path / "shap.npz")["arr_0"].shape == (3, 4, LENGTH)


@pytest.mark.parametrize("target", [0, 1])
def test_arrays_for_modisco_are_one_hot_and_hypothetical(case: Case, tmp_path: Path, target: int) -> None:
    export_scores(case.folder, tmp_path, ["modisco"], target=TARGETS[target])
    ohe, shap = (np.load(tmp_path / name)["arr_0"] for name in ("ohe.npz", "shap.npz"))
    assert ohe.shape == shap.shape == (70, 4, LENGTH)
    for row, sequence in enumerate(case.scores.genes["sequence"]):
        for position, letter in enumerate(sequence):
            assert ohe[row, :, position].tolist() == [int(base == letter) for base in "ACGT"]
            expected = hypothetical(case, row, target, position)
            np.testing.assert_allclose(shap[row, :, position], expected, rtol=1e-5, atol=1e-6)
    table = pd.read_csv(tmp_path / "genes.tsv", sep="\t")
    pd.testing.assert_frame_equal(table, case.scores.genes[table.columns.tolist()], check_dtype=False)


def test_h5_has_chrombpnets_layout_and_its_rows_lie_where_the_bed_says(case: Case, tmp_path: Path) -> None:
    written = export_scores(case.folder, tmp_path, ["h5"], genome=case.sizes, target=TARGETS[0])
    columns = ["chr", "start", "end", "name", "4", "strand", "6", "7", "8", "summit"]
    regions = pd.read_csv(tmp_path / "contributions.h5.regions.bed", sep="\t", names=columns)
    genes = case.scores.genes
    inside = (genes["start"] >= 0) & (genes["end"] <= genes["chrom"].map(SIZES))
    assert regions["name"].map(unquote).tolist() == [label(gene) for _, gene in genes[inside].iterrows()]
    assert written.past_ends == (~inside).sum() > 5
    file = tmp_path / "contributions.h5"
    raw, shap, projected = (dataset(file, f"{name}/seq") for name in ("raw", "shap", "projected_shap"))
    assert [name.decode() for name in dataset(file, "gene_id")] == genes["gene_id"][inside].tolist()
    assert [name.decode() for name in dataset(file, "coords_chrom")] == regions["chr"].tolist()
    assert dataset(file, "coords_start").tolist() == regions["start"].tolist()
    assert dataset(file, "coords_end").tolist() == regions["end"].tolist()
    assert raw.shape == shap.shape == projected.shape == (inside.sum(), 4, LENGTH)
    assert raw.dtype == np.int8
    rows = np.flatnonzero(inside).tolist()
    for index, (row, region) in enumerate(zip(rows, regions.to_dict("records"), strict=True)):
        for offset in range(LENGTH):
            at = region["start"] + region["summit"] - LENGTH // 2 + offset  # as chrombpnet and finemo place it
            letter = case.genome[region["chr"]][at]
            ones = [int(base == letter) for base in "ACGT"]
            assert raw[index, :, offset].tolist() == ones
            plus = region["strand"] == "+"
            along = hypothetical(case, row, 0, offset if plus else LENGTH - 1 - offset)
            forward = along if plus else along[::-1]  # A and T, C and G change places
            np.testing.assert_allclose(shap[index, :, offset], forward, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(projected[index, :, offset], np.multiply(ones, forward), atol=1e-6)


def test_regions_are_merged_windows_above_the_genes_quantile(case: Case, tmp_path: Path) -> None:
    export_scores(case.folder, tmp_path, ["bed"], target=TARGETS[1])
    columns = ["chrom", "start", "end", "name", "score", "strand"]
    found = pd.read_csv(tmp_path / "regions.bed", sep="\t", names=columns, quoting=3)
    expected = []
    for row, gene in enumerate(case.scores.genes.to_dict("records")):
        size = [np.nan] * LENGTH
        for position, letter in enumerate(gene["sequence"]):
            if letter != "N":
                size[position] = abs(hypothetical(case, row, 1, position)["ACGT".index(letter)])
        means = {first: sum(size[first : first + 7]) / 7 for first in range(LENGTH - 6)}
        whole = {first: mean for first, mean in means.items() if not np.isnan(mean)}
        bases: set[int] = set()
        for first, mean in whole.items():
            if mean > np.quantile(list(whole.values()), 0.95):
                bases |= set(range(first, first + 7))
        for first in sorted(bases - {base + 1 for base in bases}):
            last = next(base for base in range(first, LENGTH + 1) if base not in bases)
            places = [
                gene["start"] + p if gene["strand"] == "+" else gene["end"] - 1 - p for p in (first, last - 1)
            ]
            place = (gene["chrom"], min(places), max(places) + 1)
            expected.append((*place, label(gene), np.mean(size[first:last]), gene["strand"]))
    largest = max(region[4] for region in expected)
    assert len(found) == len(expected) >= 60
    described = [(*region[:4], region[5], round(1000 * region[4] / largest)) for region in expected]
    found["name"] = found["name"].map(unquote)
    assert sorted(
        found[["chrom", "start", "end", "name", "strand", "score"]].itertuples(index=False, name=None)
    ) == (sorted(described))
    assert found["score"].max() == 1000
    order = list(zip(found["chrom"], found["start"], strict=True))
    assert order == sorted(order)
    assert not any(
        set(line.split("\t")[3]) & set(" \t") for line in (tmp_path / "regions.bed").read_text().splitlines()
    )


def test_a_gene_without_known_bases_and_one_without_contributions_have_no_regions(tmp_path: Path) -> None:
    genes = pd.DataFrame({"gene_id": ["n", "flat"], "chrom": "c", "start": [0, 50], "strand": ["+", "-"]})
    genes = genes.assign(end=genes["start"] + 10, sequence=["N" * 10, "ACGTACGTAC"])
    write(tmp_path / "in", Scores(genes, ["y"], np.zeros((2, 1), "f4"), np.zeros((2, 1, 4, 10), "f4")))
    export_scores(tmp_path / "in", tmp_path, ["bed", "bedgraph"])
    assert (tmp_path / "regions.bed").read_text() == ""
    assert (tmp_path / "contributions.bedgraph").read_text() == "c\t50\t60\t0\n"  # equal neighbours are one line
    (tmp_path / "sizes").write_text("c\t60\n")
    with pytest.raises(InputError, match="no known base"):
        export_scores(tmp_path / "in", tmp_path, ["bigwig"], genome=tmp_path / "sizes", genes=["n"])


@pytest.mark.parametrize("kind", ["fasta", "fai", "chrom.sizes"])
def test_chromosome_sizes_come_from_a_fasta_its_index_or_a_table_in_any_spelling(
    case: Case, tmp_path: Path, kind: str
) -> None:
    fasta = tmp_path / "genome.fa"
    other = {"chr10": "10", "chr2": "2", "chrM": "MT"}
    fasta.write_text("".join(f">{other[name]} note\n{sequence}\n" for name, sequence in case.genome.items()))
    genome = fasta
    if kind != "fasta":
        genome = tmp_path / f"genome.{kind}"
        more = "\t7\t80\t81" if kind == "fai" else ""
        genome.write_text("".join(f"{other[name]}\t{size}{more}\n" for name, size in SIZES.items()))
    written = export_scores(case.folder, tmp_path / "out", ["bigwig", "bed"], genome=genome, target=TARGETS[0])
    assert written.renamed == other
    with pyBigWig.open(str(tmp_path / "out" / "contributions.bw")) as file:
        assert file.chroms() == {other[name]: size for name, size in SIZES.items()}
        found = {name: file.values(other[name], 0, size, numpy=True) for name, size in SIZES.items()}
    assert_track(found, tracks(case, 0))
    chroms = pd.read_csv(tmp_path / "out" / "regions.bed", sep="\t", header=None, dtype=str, quoting=3)[0]
    assert set(chroms) == set(other.values())


def spoil(case: Case, folder: Path, how: str) -> dict[str, object]:
    """Write scores that are spoiled in some way, and return what is passed otherwise than in a good call."""
    scores = case.scores
    if how == "fasta":
        none = pd.array([None] * 70, dtype="Int64")
        scores = replace(scores, genes=scores.genes.assign(chrom=None, strand=None, start=none, end=none))
    write(folder, scores, complete=how != "unfinished")
    if how == "lost part":
        part_path(folder / "scores", 2).unlink()
    if how == "damaged part":  # in a column of scores only, long after the names have been read
        path = Path(str(part_path(folder / "scores", 3)))
        chunk = pq.ParquetFile(path).metadata.row_group(0).column(7)
        data = bytearray(path.read_bytes())
        first = chunk.data_page_offset
        data[first : first + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
        path.write_bytes(data)
    lines = {"short genome": "chr2\t300\nchr10\t150\nchrM\t60\n", "other genome": "chr1\t9\n", "text": "hello\n"}
    (folder / "sizes").write_text(lines.get(how, case.sizes.read_text()))
    return {
        "no target": {"target": None},
        "other target": {"target": "y"},
        "other gene": {"genes": ["g9", "nobody"]},
        "other format": {"formats": ["bed", "wig"]},
        "no genome": {"genome": None},
    }.get(how, {})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unfinished", "is not finished; run the same job again"),
        ("lost part", r"part-00002\.parquet: no such part"),
        ("damaged part", r"part-00003\.parquet: cannot be read .*; run the same job again"),
        (
            "fasta",
            r"\['bigwig', 'bedgraph', 'bed'\]`: needs coordinates, .* choose `formats=\['modisco', 'h5'\]`",
        ),
        ("no target", r"`target`: is missing; there are basal, salt\.response / 2"),
        ("other target", r"`target='y'`: is not in the scores; there are basal, salt\.response / 2"),
        ("other gene", r"has no scores of nobody; score them with ism \(`genes`\)"),
        ("other format", r"`formats=\['wig'\]`: choose among modisco, bigwig, bedgraph, bed, h5"),
        (
            "no genome",
            r"`formats=\['bigwig', 'h5'\]`: needs .*`genome`, a FASTA.*`formats=\['modisco', 'bedgraph', 'bed'\]`",
        ),
        ("other genome", r"sizes: has no chr.*\(it has chr1\); give the genome that"),
        ("short genome", r"sizes: chr2 has 300 bases, but .* has some at .*; give the genome that"),
        ("text", r"sizes: line 1 has no chromosome and length \('hello'\); give"),
    ],
)
def test_bad_input_of_an_export_is_refused_and_leaves_nothing(
    case: Case, tmp_path: Path, how: str, message: str
) -> None:
    (tmp_path / "in").mkdir()
    arguments = {"formats": ALL, "genome": tmp_path / "in" / "sizes", "target": TARGETS[0]}
    arguments |= spoil(case, tmp_path / "in", how)
    with pytest.raises(InputError, match=message) as raised:
        export_scores(tmp_path / "in", tmp_path / "out", **arguments)  # type: ignore[arg-type] # one dictionary of all
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "out").glob("*")) == []


def test_sequences_without_coordinates_go_to_modisco(case: Case, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    spoil(case, tmp_path / "in", "fasta")
    export_scores(tmp_path / "in", tmp_path, ["modisco"], target=TARGETS[0])
    export_scores(case.folder, tmp_path / "placed", ["modisco"], target=TARGETS[0])
    assert (tmp_path / "shap.npz").read_bytes() == (tmp_path / "placed" / "shap.npz").read_bytes()


def test_sequences_without_coordinates_go_to_h5_as_they_are(case: Case, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    spoil(case, tmp_path / "in", "fasta")
    written = export_scores(tmp_path / "in", tmp_path / "out", ["h5", "modisco"], target=TARGETS[0])
    assert written.noun == "sequence"
    assert [path.name for path in written.files] == ["contributions.h5", "ohe.npz", "shap.npz", "genes.tsv"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in written.files}
    one_hot, shap = (np.load(tmp_path / "out" / name)["arr_0"] for name in ("ohe.npz", "shap.npz"))
    with h5py.File(tmp_path / "out" / "contributions.h5") as file:
        assert set(file) == {"raw", "shap", "projected_shap", "gene_id"}
        ids = [name.decode() for name in np.array(file["gene_id"])]
        assert ids == case.scores.genes["gene_id"].tolist()
        np.testing.assert_array_equal(np.array(file["raw/seq"]), one_hot)
        np.testing.assert_array_equal(np.array(file["shap/seq"]), shap)
        np.testing.assert_array_equal(np.array(file["projected_shap/seq"]), shap * one_hot)
    for row, position in ((0, 0), (37, 11), (69, LENGTH - 1)):
        np.testing.assert_allclose(shap[row, :, position], hypothetical(case, row, 0, position), atol=1e-6)


def test_a_genome_for_sequences_without_coordinates_is_refused(case: Case, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    spoil(case, tmp_path / "in", "fasta")
    with pytest.raises(
        InputError, match=r"`genome=.*sizes'`: the scores are of sequences without coordinates; leave"
    ):
        export_scores(tmp_path / "in", tmp_path, ["h5"], genome=case.sizes, target=TARGETS[0])


def test_a_failing_bigwig_leaves_nothing(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pybigtools prints its errors and goes on; here values in descending order, which it refuses."""
    real = tracks_module.genome_track
    monkeypatch.setattr(tracks_module, "genome_track", lambda *arguments: reversed(list(real(*arguments))))
    with pytest.raises(RuntimeError, match=r"contributions\.bw: could not be written \(Invalid"):
        export_scores(case.folder, tmp_path, ALL, genome=case.sizes, target=TARGETS[0])
    assert list(tmp_path.iterdir()) == []


class ListWriter(FormatWriter):
    """A format that lists the genes, as a user might add it."""

    files = ("genes.txt",)

    def __init__(self, source: ExportSource, outputs: storage.Outputs) -> None:
        super().__init__(source, outputs)
        self.names: list[str] = []

    def add(self, batch: Batch) -> None:
        self.names += self.source.genes["gene_id"].iloc[batch.rows].tolist()

    def finish(self) -> None:
        with storage.open_atomic(self.source.out_dir / "genes.txt") as file:
            file.write("\n".join(self.names).encode())


def test_an_export_format_is_added_by_one_entry(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "list", ListWriter)
    written = export_scores(case.folder, tmp_path, ["list", "bed"], target=TARGETS[0])
    assert [path.name for path in written.files] == ["genes.txt", "regions.bed"]
    names = case.scores.genes["gene_id"].tolist()
    assert (tmp_path / "genes.txt").read_text(encoding="utf-8") == "\n".join(names)


def test_scores_are_exported_to_a_remote_folder(case: Case, tmp_path: Path) -> None:
    remote = f"memory:/{tmp_path}/out"
    export_scores(case.folder, remote, ALL, genome=case.sizes, target=TARGETS[0])
    export_scores(case.folder, tmp_path, ALL, genome=case.sizes, target=TARGETS[0])
    names = sorted(path.name for path in storage.resolve(remote).iterdir())
    assert names == sorted(name for writer in FORMATS.values() for name in writer.files)
    for name in names:
        if not name.endswith((".h5", ".bw", ".npz")):  # those hold times, or an order of threads
            assert (storage.resolve(remote) / name).read_bytes() == (tmp_path / name).read_bytes()
    (tmp_path / "back.bw").write_bytes((storage.resolve(remote) / "contributions.bw").read_bytes())
    assert_track(bigwig(tmp_path / "back.bw"), tracks(case, 0))
    storage.remove_folder(remote)


def test_modisco_is_told_to_take_the_whole_window(tmp_path: Path) -> None:
    for length, window in ((500, 500), (2001, 2000)):  # it refuses odd windows of odd sequences
        words = shlex.split(modisco_command(tmp_path, 300, length))
        assert words[words.index("-w") + 1] == str(window)
        assert int(words[words.index("-n") + 1]) == 300 * length // 30


@pytest.mark.slow
def test_modisco_finds_every_implanted_motif_by_the_command_that_is_printed(tmp_path: Path) -> None:
    """They stand near the windows' ends, which hold N at the start; the folder's name needs quotes."""
    rng = np.random.default_rng(0)
    motif, n, length = "TGACGTCATT", 120, 101
    letters = rng.choice(list("ACGT"), (n, length))
    values = rng.normal(size=(n, 1, 4, length), scale=0.01)
    for row in range(n):
        at = length - 30 - row % 10
        letters[row, at : at + len(motif)] = list(motif)
        letters[row, :3] = "N"
        values[row, 0, :, at : at + len(motif)] -= rng.uniform(0.7, 1.3, (4, len(motif)))
    sequences = ["".join(row) for row in letters]
    for row, sequence in enumerate(sequences):
        for position, letter in enumerate(sequence):
            if letter != "N":
                values[row, 0, "ACGT".index(letter), position] = 0
    genes = pd.DataFrame({"gene_id": [f"g{row}" for row in range(n)], "chrom": "c", "start": 0, "end": length})
    genes = genes.assign(strand="+", sequence=sequences)
    write(tmp_path / "in", Scores(genes, ["y"], np.zeros((n, 1), "f4"), values.astype("f4")))
    written = export_scores(tmp_path / "in", tmp_path / "an out", ["modisco"])
    words = shlex.split(modisco_command(tmp_path / "an out", written.genes, written.length))
    command = [str(Path(sys.executable).parent / words[0]), *words[1:], "-v"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Using 120 positive seqlets" in done.stdout
    assert "negative seqlets" not in done.stdout.replace("Extracted 0 negative seqlets", "")
    with h5py.File(tmp_path / "an out" / "modisco.h5") as file:
        assert file.attrs["window_size"] == length - 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_an_export_to_a_full_disk_is_one_line_and_leaves_nothing(
    case: Case, tmp_path: Path, name: str, share: float
) -> None:
    """With h5py a full disk ends the process, with pybigtools it is a panic or goes unsaid."""
    whole = export_scores(case.folder, tmp_path / "whole", [name], genome=case.sizes, target=TARGETS[0])
    size = max(file.stat().st_size for file in whole.files)
    message = "could not be written .* choose another"
    with limited(int(size * share)), pytest.raises(StorageError, match=message) as raised:
        export_scores(case.folder, tmp_path / "out", [name], genome=case.sizes, target=TARGETS[0])
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith((f"{tmp_path}/out/", f"{tempfile.gettempdir()}: "))
    assert not list((tmp_path / "out").glob("*"))
    again = export_scores(case.folder, tmp_path / "out", [name], genome=case.sizes, target=TARGETS[0])
    for file, expected in zip(again.files, whole.files, strict=True):
        assert file.read_bytes() == expected.read_bytes()
