"""prepare as strangers call it: files as their tools wrote them, on the command line, against one oracle."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.commands import outcome
from support.files import oracle

from jobs.prepare import prepare

UPSTREAM, GENES = 30, 24
ACCESSIONS = {"I": "NC_000001.2", "II": "NC_000002.1"}
Run = Callable[..., tuple[int, str, str]]


class Case:
    """A small genome with its genes, written in the ways of several tools.

    Attributes:
        folder: folder of the files.
        chromosomes: name -> sequence.
        genes: a row a gene: `gene_id`, `gene_name`, `chrom`, `start`, `end`, `strand`, `tss`.
        counts: a row a gene, a column a sample.
    """

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(5)
        self.folder = folder
        self.chromosomes = {name: "".join(rng.choice(list("ACGT"), 3000)) for name in ACCESSIONS}
        start = rng.permutation(np.arange(100, 2800, 100))[:GENES]
        strand = np.where(np.arange(GENES) % 3, "+", "-")
        self.genes = pd.DataFrame(
            {
                "gene_id": [f"SPX{number}.0{number % 7}c" for number in range(GENES)],
                "gene_name": [f"rpl{number}" if number % 2 else "" for number in range(GENES)],
                "chrom": np.where(np.arange(GENES) < GENES // 2, "I", "II"),
                "start": start,
                "end": start + 60,
                "strand": strand,
                "tss": np.where(strand == "+", start, start + 59),
            }
        )
        samples = ["a_1", "a_2", "b_1", "b_2"]
        self.counts = pd.DataFrame(rng.integers(1, 500, (GENES, 4)), columns=samples, index=self.genes["gene_id"])

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    def fasta(self, spelling: Callable[[str], str] = str) -> Path:
        records = (f">{spelling(name)}\n{sequence}\n" for name, sequence in self.chromosomes.items())
        return self.write("genome.fa.gz", "".join(records))

    def gff(self) -> Path:
        """As NCBI writes it: accessions, prefixes, the name of the chromosome in a region line."""
        lines = ["##gff-version 3"]
        for name, accession in ACCESSIONS.items():
            lines.append(
                f"{accession}\tRefSeq\tregion\t1\t3000\t.\t+\t.\tID={accession};Name={name};chromosome={name};"
                "genome=chromosome"
            )
        for gene in self.genes.itertuples():
            place = f"{gene.start + 1}\t{gene.end}\t.\t{gene.strand}\t."  # type: ignore[operator] # a number
            accession = ACCESSIONS[str(gene.chrom)]
            named = f";Name={gene.gene_name}" if gene.gene_name else ""
            lines += [
                f"{accession}\tRefSeq\tgene\t{place}\tID=gene-{gene.gene_id}{named};gene_biotype=protein_coding",
                f"{accession}\tRefSeq\tmRNA\t{place}\tID=rna-{gene.gene_id}.1;Parent=gene-{gene.gene_id}",
            ]
        return self.write("genes.gff.gz", "\n".join(lines) + "\n")

    def expected(self) -> list[str]:
        return [
            oracle(self.chromosomes[chrom], tss, strand, UPSTREAM, 0)
            for chrom, tss, strand in self.genes[["chrom", "tss", "strand"]].itertuples(index=False)
        ]

    def featurecounts(self) -> Path:
        rows = [f"# Program:featureCounts v2\nGeneid\tChr\tStart\tEnd\tStrand\tLength\t{self._bams()}"]
        for gene, counts in zip(self.genes.itertuples(), self.counts.to_numpy(), strict=True):
            place = f"{gene.chrom}\t{gene.start}\t{gene.end}\t{gene.strand}\t60"
            rows.append(f"{gene.gene_id}\t{place}\t" + "\t".join(map(str, counts)))
        return self.write("counts.txt", "\n".join(rows) + "\n")

    def salmon(self) -> Path:
        """A transcript a row, the TPM of each gene split between two."""
        for sample in self.counts:
            rows = ["Name\tLength\tEffectiveLength\tTPM\tNumReads"]
            for gene, count in self.tpm[sample].items():
                rows.append(f"rna-{gene}.1\t60\t40.0\t{count}\t9")
            self.write(f"quants/{sample}/quant.sf", "\n".join(rows) + "\n")
        return self.folder / "quants"

    def htseq(self) -> Path:
        for sample in self.counts:
            rows = [f"{gene}\t{count}" for gene, count in self.counts[sample].items()]
            rows += ["__no_feature\t100000", "__ambiguous\t7"]
            self.write(f"htseq/{sample}.txt", "\n".join(rows) + "\n")
        return self.folder / "htseq"

    @property
    def tpm(self) -> pd.DataFrame:
        return (self.counts / self.counts.sum() * 1e6).round(6)

    def _bams(self) -> str:
        return "\t".join(f"/data/{sample}.bam" for sample in self.counts)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Case(tmp_path)


@pytest.fixture
def run(case: Case, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run prepare on the case's genome and genes; a word after these takes their place."""

    def job(expression: Path, *words: Any) -> tuple[int, str, str]:
        files = ["--genome", case.fasta(), "--genes", case.gff(), "--expression", expression]
        return outcome(capsys, prepare, *files, "--upstream", UPSTREAM, "--out", case.folder / "out", *words)

    return job


def data(case: Case) -> pd.DataFrame:
    return pd.read_parquet(case.folder / "out" / "promoters.parquet")


def summary(case: Case) -> dict[str, Any]:
    return json.loads((case.folder / "out" / "summary.json").read_text())


@pytest.mark.parametrize("tool", ["featurecounts", "htseq", "salmon"])
def test_what_a_quantifier_wrote_becomes_the_same_targets(case: Case, run: Run, tool: str) -> None:
    """Gzip FASTA of Roman numbers, GFF3 of accessions: the ids, values and sequences of the oracle."""
    of_counts = tool != "salmon"
    code, out, err = run(getattr(case, tool)(), "--transform", "cpm_log2p1" if of_counts else "log2p1")
    assert (code, err) == (0, "")
    table = data(case)
    assert table["gene_id"].tolist() == case.genes["gene_id"].tolist()
    assert table["gene_name"].fillna("").tolist() == case.genes["gene_name"].tolist()
    assert table["sequence"].tolist() == case.expected()
    assert list(table.columns[8:]) == list(case.counts)
    expected = np.log2(case.counts / case.counts.sum() * 1e6 + 1)  # the summary rows do not count
    np.testing.assert_allclose(table[list(case.counts)], expected, rtol=1e-5)
    told = summary(case)
    assert told["layout"] == tool
    assert [target["name"] for target in told["targets"]] == list(case.counts)
    assert told["targets"][0]["mean"] == pytest.approx(expected["a_1"].mean(), rel=1e-5)
    assert any("NC_000001.2 is I" in note for note in told["assumptions"])
    assert told["warnings"] == []
    for note in told["assumptions"]:
        assert f"note: {note}" in out
    for sample in case.counts.columns:
        assert str(sample) in out


def test_replicates_become_conditions_and_a_contrast_their_difference(case: Case, run: Run) -> None:
    sheet = case.write("sheet.csv", "sample,condition\na_1,a\na_2,a\nb_1,b\nb_2,b\n")
    words = ["--transform", "cpm_log2p1", "--replicates", sheet]
    code, out, _ = run(case.featurecounts(), *words, "--contrast", "b,a", "--targets", "a")
    assert code == 0
    logs = np.log2((case.counts / case.counts.sum() * 1e6 + 1).to_numpy())
    a, b = logs[:, :2].mean(axis=1), logs[:, 2:].mean(axis=1)
    np.testing.assert_allclose(data(case)["a"], a, rtol=1e-5)
    np.testing.assert_allclose(data(case)["b_vs_a"], b - a, rtol=1e-4, atol=1e-5)
    told = summary(case)["replicates"]["a"]
    assert told["samples"] == ["a_1", "a_2"]
    assert told["sd"] == pytest.approx(logs[:, :2].std(axis=1, ddof=1).mean(), rel=1e-5)
    assert "a: mean of 2 samples" in out


def test_missing_values_stay_missing_and_are_counted(case: Case, run: Run) -> None:
    values = case.tpm[["a_1", "b_1"]].astype(object)
    values.iloc[0, 0], values.iloc[1] = "NA", "NA"
    table = case.write("t.tsv", values.to_csv(sep="\t"))
    code, out, _ = run(table, "--transform", "log2p1")
    assert code == 0
    kept = data(case)
    assert kept["gene_id"].tolist() == [gene for gene in case.genes["gene_id"] if gene != values.index[1]]
    assert np.isnan(kept["a_1"].iloc[0])
    assert not np.isnan(kept["b_1"].iloc[0])
    told = summary(case)
    assert told["dropped"] == {"expression value missing": 1}
    assert [(target["n"], target["missing"]) for target in told["targets"]] == [(GENES - 2, 1), (GENES - 1, 0)]
    assert "1  left out: expression value missing" in out
    assert run(table, "--transform", "log2p1", "--missing", "drop")[0] == 0
    assert len(data(case)) == GENES - 2
    code, _, err = run(table, "--missing", "error")
    assert code == 2
    assert "t.tsv" in err


def test_half_of_the_genes_on_unknown_chromosomes_end_the_job(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    genome = case.fasta(lambda name: {"I": "scaffoldA", "II": "scaffoldB"}[name])
    words = [
        "--genome",
        genome,
        "--genes",
        case.gff(),
        "--expression",
        case.featurecounts(),
        "--upstream",
        UPSTREAM,
    ]
    words += ["--transform", "cpm_log2p1", "--out", case.folder / "out"]
    code, _, err = outcome(capsys, prepare, *words)
    assert code == 2
    assert "NC_000001.2 (12)" in err
    assert "it has scaffoldA, scaffoldB" in err
    assert "--chrom_names" in err
    assert len(err.splitlines()) == 1
    assert not (case.folder / "out").exists()
    names = case.write("names.tsv", "scaffoldA\tNC_000001.2\nscaffoldB\tNC_000002.1\n")
    code, out, _ = outcome(capsys, prepare, *words, "--chrom_names", names)
    assert code == 0
    assert data(case)["sequence"].tolist() == case.expected()
    assert "NC_000001.2 → scaffoldA" in out
    config = (case.folder / "out" / "config.yaml").read_text()
    assert str(names) in config
    assert "allow_loss: false" in config


def test_a_run_of_its_own_config_gives_the_same_data(case: Case, run: Run) -> None:
    assert run(case.featurecounts(), "--transform", "cpm_log2p1", "--biotype", "protein_coding")[0] == 0
    first = data(case)
    again = case.folder / "again"
    config = case.folder / "out" / "config.yaml"
    assert run(case.folder / "counts.txt", "--config", config, "--out", again)[0] == 0
    pd.testing.assert_frame_equal(first, pd.read_parquet(again / "promoters.parquet"))
