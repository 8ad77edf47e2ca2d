"""A library of sequences, which lie on no genome, through the jobs that come after training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.commands import exit_code, outcome
from support.files import Write
from support.libraries import LENGTH, save_library_model, write_library

from jobs.export import export
from jobs.ism import ism
from jobs.motifs import motifs
from jobs.predict import predict as predict_job
from jobs.ray_runtime.capacity import Cluster
from jobs.report import report
from jobs.variants import variants
from promoter.checkpoint import load_model
from promoter.dataset.promoters import read_promoters
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.sequence import encode
from promoter.training import predict

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set in `data/`, a run in `run/` with its model, and scores of the last 30 bases in `ism/`."""
    out = tmp_path_factory.mktemp("library")
    write_library(out / "data")
    save_library_model(out / "run" / "model")
    assert exit_code(ism, *_flags(out), "--out", out / "ism", "--positions", "10,40") == 0
    return out


def _flags(folder: Path) -> list[object]:
    return ["--model", folder / "run" / "model", "--data", folder / "data"]


def test_positions_of_a_library_count_from_its_first_base(folder: Path):
    scores, promoters = load_scores(folder / "ism"), read_promoters(folder / "data")
    expected = saturation_mutagenesis(load_model(folder / "run" / "model"), promoters.tokens)[..., 10:40]
    np.testing.assert_allclose(scores.scores, expected, atol=2e-5)
    assert scores.genes["sequence"].tolist() == promoters.genes["sequence"].str[10:40].tolist()
    assert scores.genes[["chrom", "start", "end", "strand"]].isna().all(axis=None)
    manifest = json.loads((folder / "ism" / "manifest.json").read_text())
    assert (manifest["window"], manifest["positions"]) == (None, [10, 40])


@pytest.mark.parametrize("fasta", [False, True])
def test_ism_speaks_of_sequences_and_counts_from_0(
    folder: Path, tmp_path: Path, fasta: bool, capsys: pytest.CaptureFixture[str]
):
    promoters = read_promoters(folder / "data")
    data = folder / "data"
    if fasta:
        data = tmp_path / "library.fa"
        rows = zip(promoters.genes["gene_id"], promoters.genes["sequence"], strict=True)
        data.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in rows))
    flags = ["--model", folder / "run" / "model", "--data", data, "--positions", "5,6", "--out", tmp_path / "ism"]
    code, printed, _ = outcome(capsys, ism, *flags)
    assert (code, "gene" in printed) == (0, False)
    assert f"scores of {len(promoters)} sequences in" in printed
    line = printed.split("position", 2)[2].splitlines()[1].split()
    assert line[1] == "5"  # the only position that was changed
    sequences = dict(zip(promoters.genes["gene_id"], promoters.genes["sequence"], strict=True))
    assert sequences[line[0]][5] == line[2][0]


def test_predictions_of_a_library_speak_of_sequences(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    code, printed, error = outcome(capsys, predict_job, *_flags(folder), "--out", tmp_path / "p.parquet")
    assert (code, "gene" in printed + error) == (0, False)
    assert "sequences in" in printed


@pytest.mark.parametrize("positions", ["-5,10", "0,41", "40,50"])
def test_positions_outside_a_library_are_refused(
    folder: Path, tmp_path: Path, positions: str, capsys: pytest.CaptureFixture[str]
):
    flags = [*_flags(folder), "--out", tmp_path / "ism", "--positions", positions]
    code, _, error = outcome(capsys, ism, *flags)
    assert (code, (tmp_path / "ism").exists()) == (2, False)
    assert (
        f"--positions {positions}: must be first and last, the last not included, from 0 to 40, counted from"
        in error
    )


def test_variants_of_a_library_are_predicted_and_resumed(
    folder: Path, tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
):
    sequences = read_promoters(folder / "data").genes.set_index("gene_id")["sequence"]
    lines = [f"{name},7,{sequence[6]},{sequence[6]}ACG" for name, sequence in sequences.items()]
    lines += [f"{name},1,{sequence[:3]},{sequence[0]}" for name, sequence in sequences.items()]
    table = write("v.csv", "\n".join(["id,position,ref,alt", *lines, "nobody,1,A,C"]) + "\n")
    flags = ["--variants", table, *_flags(folder), "--out", tmp_path / "out"]
    code, printed, _ = outcome(capsys, variants, *flags)
    assert (code, "gene" in printed, "TSS" in printed) == (0, False, False)
    assert "48 effects in" in printed
    assert "alleles used" in printed
    assert "skipped: the data has no such sequence" in printed
    found = pd.read_parquet(tmp_path / "out" / "variants.parquet")
    changed = [
        (sequence[:6] + sequence[6] + "ACG" + sequence[7:])[:LENGTH]
        if row.pos == 7
        else sequence[0] + sequence[3:] + "NN"
        for row, sequence in zip(found.itertuples(), sequences[found["gene_id"]], strict=True)
    ]
    model = load_model(folder / "run" / "model")
    expected = predict(model, encode(changed)) - predict(model, encode(sequences[found["gene_id"]].tolist()))
    np.testing.assert_allclose(found["activity_difference"], expected[:, 0], atol=2e-6)
    assert found[["chrom", "tss_distance", "gene_name"]].isna().all(axis=None)
    assert found.columns.tolist()[:7] == ["chrom", "pos", "ref", "alt", "gene_id", "gene_name", "tss_distance"]
    text = pd.read_csv(tmp_path / "out" / "variants.tsv.gz", sep="\t")
    pd.testing.assert_frame_equal(text, found, check_dtype=False, rtol=1e-5)
    skipped = pd.read_csv(tmp_path / "out" / "skipped.tsv", sep="\t")
    assert skipped.to_numpy().tolist() == [["nobody", 1, "A", "C", "the data has no such sequence"]]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["rows"], summary["unknown_id"], len(summary["notes"])) == (48, 1, 1)
    (tmp_path / "out" / "parts" / "part-00000.parquet").unlink()
    first = (tmp_path / "out" / "variants.parquet").read_bytes()
    assert exit_code(variants, *flags) == 0
    assert (tmp_path / "out" / "variants.parquet").read_bytes() == first
    code, printed, _ = outcome(capsys, variants, *flags)
    assert "nothing to do" in printed


def test_complete_sequences_are_variants(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sequences = read_promoters(folder / "data").genes.set_index("gene_id")["sequence"]
    table = pd.DataFrame({"id": sequences.index[:5], "alternative": ["T" * LENGTH] * 5})
    table.to_parquet(tmp_path / "v.parquet")
    save_library_model(tmp_path / "other", seed=1)
    flags = ["--variants", tmp_path / "v.parquet", *_flags(folder), "--ensemble", tmp_path / "other"]
    code, printed, _ = outcome(capsys, variants, *flags, "--out", tmp_path / "out")
    assert (code, "TTTTTTTTT..." in printed) == (0, True)
    found = pd.read_parquet(tmp_path / "out" / "variants.parquet")
    assert found["alt"].tolist() == ["T" * LENGTH] * 5
    assert found[["pos", "ref"]].isna().all(axis=None)
    models = [load_model(path) for path in (folder / "run" / "model", tmp_path / "other")]
    expected = [predict(model, encode(["T" * LENGTH]))[0, 0] for model in models]
    np.testing.assert_allclose(found["activity_alt"], np.mean(expected), atol=1e-6)


def test_scores_of_a_library_are_exported_searched_and_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scores = ["--scores", folder / "ism"]
    code, printed, error = outcome(capsys, export, *scores, "--out", tmp_path / "default")
    assert (code, error, "gene" in printed.replace("genes.tsv", "")) == (0, "", False)
    assert "contributions to activity of 24 sequences, by ISM, in" in printed
    assert {path.name for path in (tmp_path / "default").iterdir()} == {
        *("ohe.npz", "shap.npz", "genes.tsv", "config.yaml")
    }
    assert exit_code(export, *scores, "--out", tmp_path / "h5", "--formats", "h5") == 0
    code, printed, error = outcome(capsys, motifs, *scores, "--out", tmp_path / "motifs", "--taxon", "none")
    assert (code, error) == (0, "")
    assert "no motifs: too few regions of these 24 sequences stand out; score more sequences" in printed
    page = tmp_path / "report.html"
    words = ["--model", folder / "run" / "model", *scores, "--motifs", tmp_path / "motifs", "--out", page]
    code, printed, error = outcome(capsys, report, *words, "--genes", "s3")
    assert (code, error) == (0, "")
    assert "report with 4 sequences" in printed
    assert "activity from sequence" in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--formats", "bigwig,modisco"],
            "--formats bigwig: needs coordinates, but the scores are of sequences with",
        ),
        (["--formats", "bed"], "without coordinates; choose --formats modisco,h5"),
        (
            ["--formats", "h5", "--genome", "g.fa"],
            "--genome g.fa: the scores are of sequences without coordinates",
        ),
    ],
)
def test_formats_that_need_coordinates_are_refused_at_once(
    folder: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    code, _, error = outcome(capsys, export, "--scores", folder / "ism", "--out", tmp_path / "out", *words)
    assert (code, (tmp_path / "out").exists()) == (2, False)
    assert message in error


VCF = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t1\t.\tA\tC\t.\t.\t.\n"


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (
            VCF,
            [],
            "is a VCF, but the sequences of the data have no coordinates; give a table of id, position, ref and",
        ),
        (VCF, ["--genome", "g.fa"], "--genome g.fa: the sequences of the data have no coordinates; leave it out"),
        ("id,alternative\ns0,A\n", ["--chrom_names", "x"], "--chrom_names x: the sequences of the data have no"),
        (
            "id,position,ref,alt\ns0,999,A,C\n",
            [],
            "no allele can be used (1: the sequence ends before it); do pos",
        ),
    ],
)
def test_what_a_library_cannot_use_is_refused(  # the cases, and pytest's fixtures
    folder: Path, tmp_path: Path, content: str, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "v.vcf").write_text(content)
    flags = ["--variants", tmp_path / "v.vcf", *_flags(folder), "--out", tmp_path / "out", *more]
    code, _, error = outcome(capsys, variants, *flags)
    assert code == 2
    assert message in error
    assert not (tmp_path / "out").exists()


def test_genes_need_their_genome(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "v.vcf").write_text(VCF)
    flags = ["--variants", tmp_path / "v.vcf", "--model", run / "model", "--data", data, "--out", tmp_path / "out"]
    code, _, error = outcome(capsys, variants, *flags)
    assert code == 2
    assert "--genome: is missing; the data lie on a genome, and a VCF needs the FASTA" in error
