"""The variants job: its files, resuming, ensembles, and what it says."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from support.commands import exit_code

from jobs.ism import ism
from jobs.variants import variants
from promoter.checkpoint import load_info, load_model, save_model
from promoter.dataset.genome import Genome
from promoter.dataset.promoters import read_promoters
from promoter.errors import InputNote, InputWarning
from promoter.ism import load_scores
from promoter.sequence import BASES, encode, reverse_complement
from promoter.training import predict

pytestmark = pytest.mark.ray
HEADER = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
COLUMNS = [
    *("chrom", "pos", "ref", "alt", "gene_id", "gene_name", "tss_distance"),
    *("expression_ref", "expression_alt", "expression_difference"),
]


def snv(genome: Genome, chrom: str, pos: int, *, wrong: bool = False) -> str:
    """Write a substitution at a position, 1-based; a wrong one has its alleles the wrong way round."""
    ref = genome.fetch(chrom, pos - 1, pos)
    alt = "A" if ref != "A" else "C"
    return "\t".join([chrom, str(pos), ".", *((alt, ref) if wrong else (ref, alt)), ".", ".", "."]) + "\n"


@pytest.fixture(scope="module")
def vcf(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three SNVs, a deletion and an insertion in each window of two chromosomes, in no order, without `chr`."""
    genome, rng = Genome(data / "genome" / "genome.fa"), np.random.default_rng(0)
    lines = []
    for row in read_promoters(data).genes.itertuples():
        if row.chrom not in ("chr3", "chr4"):
            continue
        low, high = max(int(row.start), 1), min(int(row.end), genome.lengths[str(row.chrom)] - 4)  # type: ignore[arg-type] # numbers
        for kind in ("snv", "snv", "snv", "deletion", "insertion"):
            pos = int(rng.integers(low + 1, high - 4))
            ref = genome.fetch(str(row.chrom), pos, pos + (4 if kind == "deletion" else 1))
            other = str(rng.choice([base for base in BASES if base != ref[0]]))
            alt = {"snv": other, "deletion": ref[0], "insertion": f"{ref}{other}{other}"}[kind]
            lines.append(f"{str(row.chrom)[3:]}\t{pos + 1}\t.\t{ref}\t{alt}\t.\t.\t.\n")
    rng.shuffle(lines)
    lines.append("4\t1\t.\tA\t<DEL>\t.\t.\t.\n")
    path = tmp_path_factory.mktemp("vcf") / "in.vcf.gz"
    path.write_bytes(gzip.compress((HEADER + "".join(lines)).encode()))
    return path


@pytest.fixture(scope="module")
def flags(vcf: Path, data: Path, run: Path) -> dict[str, Any]:
    genome = str(data / "genome" / "genome.fa")
    return {"variants": str(vcf), "genome": genome, "model": str(run / "model"), "data": str(data)}


@pytest.fixture(scope="module")
def done(flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("variants")
    variants(**flags, out=str(out))
    return out


def haplotype_window(genome: Genome, row: pd.Series, tss: int, strand: str, upstream: int) -> str:
    """Edit the padded chromosome and cut upstream of the TSS, which no variant here changes."""
    chrom, pos = row["chrom"], row["pos"] - 1
    sequence = genome.fetch(chrom, 0, genome.lengths[chrom])
    edited = sequence[:pos] + row["alt"] + sequence[pos + len(row["ref"]) :]
    padded, moved = "N" * upstream + edited + "N" * upstream, len(edited) - len(sequence)
    if strand == "+":
        border = tss + upstream + (moved if pos < tss else 0)
        return padded[border - upstream : border]
    border = tss + 1 + upstream
    return str(reverse_complement(padded[border : border + upstream]))


def test_variant_effects_are_those_of_haplotypes_and_snvs_those_of_ism(
    done: Path, flags: dict[str, Any], run: Path, data: Path, tmp_path: Path
):
    ism(str(run / "model"), str(data), str(tmp_path / "ism"))
    scores = load_scores(tmp_path / "ism")
    row_of = {gene: row for row, gene in enumerate(scores.genes["gene_id"])}
    found, promoters, genome = (
        pd.read_parquet(done / "variants.parquet"),
        read_promoters(data),
        Genome(flags["genome"]),
    )
    assert found.columns.tolist() == COLUMNS
    model, seen = load_model(run / "model"), {"snv": 0, "other": 0}
    windows, references = [], []
    for _, row in found.iterrows():
        gene = promoters.genes.iloc[row_of[row["gene_id"]]]
        windows.append(haplotype_window(genome, row, gene["tss"], gene["strand"], 100))
        references.append(gene["sequence"])
    reference, changed = predict(model, encode(references))[:, 0], predict(model, encode(windows))[:, 0]
    # other batches and threads: float32 rounding only
    np.testing.assert_allclose(found["expression_ref"], reference, atol=2e-5)
    np.testing.assert_allclose(found["expression_alt"], changed, atol=2e-5)
    np.testing.assert_allclose(found["expression_difference"], changed - reference, atol=2e-5)
    for (_, row), window, old in zip(found.iterrows(), windows, references, strict=True):
        at = [place for place, pair in enumerate(zip(old, window, strict=True)) if pair[0] != pair[1]]
        if len(row["ref"]) == len(row["alt"]) == 1:
            score = scores.scores[row_of[row["gene_id"]], 0, BASES.index(window[at[0]]), at[0]]
            assert abs(row["expression_difference"] - score) < 2e-5
            assert row["tss_distance"] == at[0] - 100
            seen["snv"] += 1
        else:
            seen["other"] += 1
    assert min(seen.values()) > 100
    assert np.abs(found["expression_difference"]).max() > 0.05


def test_counts_and_tables_of_variants_agree(done: Path):
    found = pd.read_parquet(done / "variants.parquet")
    text = pd.read_csv(done / "variants.tsv.gz", sep="\t")
    pd.testing.assert_frame_equal(text, found, check_dtype=False, rtol=1e-6)
    summary = json.loads((done / "summary.json").read_text())
    assert summary["rows"] == len(found)
    assert summary["variants"] == summary["alleles"] == 2 * 51 * 5 + 1
    skipped = pd.read_csv(done / "skipped.tsv", sep="\t")
    assert skipped["alt"].tolist().count("<DEL>") == summary["symbolic"] == 1
    assert len(skipped) == summary["symbolic"] + summary["duplicate"]
    assert summary["in_windows"] + summary["outside"] + len(skipped) == summary["alleles"]
    assert json.loads((done / "manifest.json").read_text())["complete"]


def test_rerun_of_variants_computes_only_what_is_missing(
    flags: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jobs.inference.variant_effects._GENES_PER_PART", 20)
    variants(**flags, out=str(tmp_path))
    whole = (tmp_path / "variants.parquet").read_bytes()
    parts = sorted((tmp_path / "parts").iterdir())
    assert len(parts) == 6  # 102 genes in twenties
    before = {path: path.stat().st_mtime_ns for path in parts}
    capsys.readouterr()
    variants(**flags, out=str(tmp_path))
    assert "nothing to do" in capsys.readouterr().out
    parts[1].unlink()
    parts[3].write_bytes(parts[3].read_bytes()[:200])
    variants(**flags, out=str(tmp_path))
    assert "4 of 6 parts are there already" in capsys.readouterr().out
    kept = [path for path in parts if path.stat().st_mtime_ns == before[path]]
    assert kept == [parts[0], parts[2], parts[4], parts[5]]
    assert (tmp_path / "variants.parquet").read_bytes() == whole
    for different, named in (
        ({"both_strands": True}, "both_strands"),
        ({"genes": ["chr4_g0003"]}, "different: genes"),
    ):
        arguments = [f"--{key}={value}" for key, value in {**flags, "out": tmp_path, **different}.items()]
        assert exit_code(variants, *arguments) == 2
        assert named in capsys.readouterr().err
    assert (tmp_path / "variants.parquet").read_bytes() == whole


def test_variants_of_an_ensemble_have_mean_and_spread(flags: dict[str, Any], run: Path, tmp_path: Path):
    other = load_model(run / "model")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(tmp_path / "other", other, load_info(run / "model"))
    genes = ["chr4_g0003", "chr4_g0004", "chr3_g0050"]
    tables = []
    for name, settings in {
        "one": flags,
        "two": {**flags, "model": str(tmp_path / "other")},
        "both": {**flags, "ensemble": [str(tmp_path / "other")]},
    }.items():
        variants(**settings, genes=genes, out=str(tmp_path / name))  # type: ignore[arg-type] # as the flags are
        tables.append(pd.read_parquet(tmp_path / name / "variants.parquet"))
    one, two, both = tables
    assert set(both["gene_id"]) == set(genes)
    for name in COLUMNS[-3:]:
        np.testing.assert_allclose(both[name], (one[name] + two[name]) / 2, atol=2e-5)
    spread = np.abs(one[COLUMNS[-1]] - two[COLUMNS[-1]]) / np.sqrt(2)
    np.testing.assert_allclose(both["expression_difference_sd"], spread, atol=2e-5)
    assert spread.max() > 1e-3


def test_a_vcf_without_variants_in_windows_gives_tables_without_rows_and_a_warning(
    flags: dict[str, Any], tmp_path: Path
):
    genome = Genome(flags["genome"])
    path = tmp_path / "none.vcf"
    path.write_text(HEADER + f"chr3\t{genome.lengths['chr3']}\t.\tN\tA\t.\t.\t.\n" + snv(genome, "chr3", 1))
    with pytest.warns(InputWarning, match="none of 1 alleles alters a window of the genes"):
        variants(**{**flags, "variants": str(path)}, genes=["chr4_g0003"], out=str(tmp_path / "out"))
    assert pq.read_table(tmp_path / "out" / "variants.parquet").schema.names == COLUMNS
    assert pd.read_csv(tmp_path / "out" / "variants.tsv.gz", sep="\t").columns.tolist() == COLUMNS
    assert (tmp_path / "out" / "variants.tsv.gz").read_bytes()[3:8] == bytes(5)  # no name, no time
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["variants"] == 2
    assert summary["notes"] == [f"{path}: none of 1 alleles alters a window of the genes"]


def test_chromosomes_of_a_vcf_are_matched_by_number_and_by_table(
    flags: dict[str, Any], done: Path, tmp_path: Path
):
    with gzip.open(flags["variants"], "rt") as file:
        text = file.read()
    renamed = {"3": "NC_000003.1", "4": "NC_000004.1"}
    lines = [re.sub(r"^[34]\t", lambda match: f"{renamed[match[0][0]]}\t", line) for line in text.splitlines()]
    path, table = tmp_path / "in.vcf", tmp_path / "names.tsv"
    path.write_text("\n".join(lines) + "\n")
    words = [f"--{key}={value}" for key, value in {**flags, "variants": path}.items()]
    assert exit_code(variants, *words, "--out", tmp_path / "out") == 2
    table.write_text("NC_000003.1\tchr3\nNC_000004.1\tchr4\n")
    with pytest.warns(InputNote, match="by their other names: NC_00000"):
        variants(**{**flags, "variants": str(path)}, chrom_names=str(table), out=str(tmp_path / "named"))
    renamed, original = (pd.read_parquet(folder / "variants.parquet") for folder in (tmp_path / "named", done))
    pd.testing.assert_frame_equal(renamed, original)
    path.write_text(
        "\n".join(re.sub(r"^3\t", "III\t", re.sub(r"^4\t", "IV\t", line)) for line in text.splitlines())
    )
    with pytest.warns(InputNote, match="IV is chr4"):
        variants(**{**flags, "variants": str(path)}, out=str(tmp_path / "numbers"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "numbers" / "variants.parquet"), original)


def test_a_vcf_of_which_nothing_can_be_used_ends_on_one_line_and_leaves_nothing(
    flags: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    genome = Genome(flags["genome"])
    for body, message in (
        ("", "holds no variants"),
        (
            "".join(snv(genome, "chr3", pos, wrong=True) for pos in range(300, 309)),
            "9: REF is not .*another assembly",
        ),
        ("other\t5\t.\tA\tC\t.\t.\t.\n", "1: the genome has no such chromosome.*--chrom_names"),
    ):
        path = tmp_path / "x.vcf"
        path.write_text(HEADER + body)
        words = [f"--{key}={value}" for key, value in {**flags, "variants": path}.items()]
        assert exit_code(variants, *words, "--out", tmp_path / "out") == 2
        assert re.search(message, capsys.readouterr().err)
        assert not (tmp_path / "out").exists()


def test_a_refused_run_of_variants_leaves_nothing(
    ray_cluster: object, flags: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [f"--{key}={value}" for key, value in flags.items()]
    out = tmp_path / "made" / "out"
    assert exit_code(variants, *words, "--out", out, "--max_hours", 1e-9) == 2
    assert re.match(r"error: --max_hours 1e-09: [\d,]+ forward passes \(windows\)", capsys.readouterr().err)
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"variants": "genes.bed"}, "is neither VCF nor BCF"),
        ({"variants": "missing.vcf"}, "no such VCF"),
        ({"data": "genome.fa"}, "all sequences need one length|windows of"),
    ],
)
def test_wrong_input_of_variants_ends_on_one_line_and_leaves_nothing(
    flags: dict[str, Any],
    data: Path,
    tmp_path: Path,
    changed: dict[str, str],
    message: str,
    capfd: pytest.CaptureFixture[str],
):
    given = flags | {name: str(data / "genome" / value) for name, value in changed.items()}
    words = [f"--{key}={value}" for key, value in given.items()]
    assert exit_code(variants, *words, "--out", tmp_path / "out") == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert any(part in lines[0] for part in message.split("|"))
    assert not (tmp_path / "out").exists()
