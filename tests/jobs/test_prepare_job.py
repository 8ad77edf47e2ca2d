"""prepare as strangers call it: files as their tools wrote them, on the command line, against one oracle."""

from __future__ import annotations

import gzip
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from support.commands import ROOT, outcome
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
        return outcome(
            capsys,
            prepare,
            *files,
            "--upstream",
            UPSTREAM,
            "--out",
            case.folder / "out",
            "--overwrite",
            "true",
            *words,
        )

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


# --- a table of sequences --------------------------------------------------------------------------------------

SEQUENCES = ["".join(np.random.default_rng(seed).choice(list("ACGT"), 40)) for seed in range(6)]
SHARED = {"out", "sequences", "transform", "targets", "missing", "max_n", "allow_loss", "overwrite"}
OF_SEQUENCES = {"id_column", "sequence_column", "split_column", "group_column", "weight_column", "align"}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "library.tsv"
    sets = ["train", "training", "val", "test", "test", ""]
    rows = pd.DataFrame({"id": [f"s{n}" for n in range(6)], "sequence": SEQUENCES, "activity": np.arange(6) / 8})
    rows.assign(split=sets, group=list("aabccd"), weight=range(1, 7)).to_csv(path, sep="\t", index=False)
    return path


def test_a_table_of_sequences_becomes_a_data_set(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = outcome(capsys, prepare, "--sequences", library, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    table = pd.read_parquet(tmp_path / "out" / "promoters.parquet")
    assert table["gene_id"].tolist() == [f"s{n}" for n in range(6)]
    assert table["sequence"].tolist() == SEQUENCES
    assert table["activity"].tolist() == (np.arange(6) / 8).tolist()
    assert table["split"].fillna("").tolist() == ["train", "train", "val", "test", "test", ""]
    assert table["group"].tolist() == list("aabccd")
    assert table["weight"].tolist() == list(range(1, 7))
    assert table[["chrom", "tss", "strand", "start", "end"]].isna().all(axis=None)
    for line in (
        "6  sequences of 40 bases",
        "columns: id from id, sequence from sequence, split from split, group from group, weight from weight",
        "sets: 2 train, 1 val, 2 test, 1 in no set",
        "groups: 4",
        "note: ",
    ):
        assert line in out
    assert re.search(r"activity +6 +0 +0 +0.3125 +0.625 +16.7%", out)
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert told["genes_kept"] == 6
    assert told["length"] == 40
    assert told["splits"] == {"train": 2, "val": 1, "test": 2, "none": 1}
    assert told["columns"]["weight"] == "weight"
    assert any("training is train" in note for note in told["assumptions"])
    assert told["gc"] == pytest.approx(sum(s.count("G") + s.count("C") for s in SEQUENCES) / 240)


def test_its_config_makes_the_same_data_set_again(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--sequences", library, "--transform", "log1p"]
    assert outcome(capsys, prepare, *words, "--out", tmp_path / "out")[0] == 0
    config = tmp_path / "out" / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    assert set(settings) - {"provenance"} == SHARED - {"overwrite"} | OF_SEQUENCES
    assert list(settings["provenance"]["inputs"]) == [str(library)]
    assert outcome(capsys, prepare, "--config", config, "--out", tmp_path / "again")[0] == 0
    first, again = (pd.read_parquet(tmp_path / name / "promoters.parquet") for name in ("out", "again"))
    pd.testing.assert_frame_equal(first, again)


def test_every_setting_of_genes_is_refused_beside_a_table_of_sequences(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A default that is given as a flag, too, for whoever gives it expects something of it."""
    values = {"dataset": "yeast", "layout": "salmon", "skip_invalid": "true", "ignore_version": "false"}
    values |= {"upstream": "2000", "downstream": "50", "context": "9", "transcript": "5prime_most"}
    for name in inspect.signature(prepare).parameters.keys() - SHARED - OF_SEQUENCES:
        words = ["--sequences", library, "--out", tmp_path / "out", f"--{name}", values.get(name, "any")]
        code, _, err = outcome(capsys, prepare, *words)
        assert code == 2
        assert err.startswith(f"error: --{name} {values.get(name, 'any')}: ")
        assert "leave out one of them" in err
        assert not (tmp_path / "out").exists()


def test_every_setting_of_sequences_is_refused_without_their_table(
    run: Run, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in OF_SEQUENCES:
        value = "left" if name == "align" else "any"
        code, _, err = run(case.featurecounts(), f"--{name}", value)
        assert code == 2
        assert err.startswith(f"error: --{name} {value}: goes with --sequences")
    code, _, err = outcome(capsys, prepare, "--out", case.folder / "out")
    assert code == 2
    assert "--sequences" in err


def test_the_config_of_genes_is_refused_beside_a_table_of_sequences(
    run: Run, case: Case, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(case.featurecounts(), "--transform", "cpm_log2p1")[0] == 0
    words = ["--config", case.folder / "out" / "config.yaml", "--sequences", library]
    code, _, err = outcome(capsys, prepare, *words, "--out", case.folder / "other")
    assert code == 2
    assert "--genome" in err
    assert "leave out one of them" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (">a\nACGTACGTAC\n>b\nACGTACGTAC\n", "--data"),
        ("sequence\tx\nACGTACGTAC\t1\nACGTACGT\t2\n", "--align right"),
        ("sequence\tx\tsplit\nACGTACGTAC\t1\t0\nACGTACGTAA\t2\t1\n", "--group_column split"),
        ("ACGTACGTAC\t1\t7\nACGTACGTAA\t2\t9\n", "--targets"),
        ("id\tsequence\tx\na\tACGTACGTAC\t1\na\tACGTACGTAA\t2\n", "--id_column"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_flag_that_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(content)
    code, _, err = outcome(capsys, prepare, "--sequences", path, "--out", tmp_path / "out")
    assert code == 2
    assert err.startswith("error: ")
    assert "t.tsv: " in err
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_table_of_sequences_may_come_from_a_pipe(library: Path, tmp_path: Path) -> None:
    job = f"{sys.executable} -m jobs.prepare --sequences <(cat {library}) --out {tmp_path / 'out'}"
    done = subprocess.run(["bash", "-c", job], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607 # the shell makes the pipe
    assert done.returncode == 0, done.stderr
    assert pd.read_parquet(tmp_path / "out" / "promoters.parquet")["sequence"].tolist() == SEQUENCES


def test_a_real_library_with_a_published_split_keeps_every_row(
    yeast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """E. coli's promoters: two files without a header, 28 sequences in both, 96 controls that are shorter."""
    folder = yeast.parent / "ecoli_mpra"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    files = {name: f"tss_expression_model_format_{name}_genome_split.txt.gz" for name in ("train", "test")}
    lines = {
        name: gzip.decompress((folder / file).read_bytes()).decode().splitlines() for name, file in files.items()
    }
    both = tmp_path / "ecoli.tsv"
    rows = [f"{line}\t{name}" for name in lines for line in lines[name]]
    both.write_text("sequence\texpression\tsplit\n" + "\n".join(rows) + "\n")
    code, out, _ = outcome(capsys, prepare, "--sequences", both, "--out", tmp_path / "out")
    assert code == 0
    assert "in several sets, as they are or reverse-complemented: 28 (28 in train and test)" in out
    assert "sets: 13,118 train, 0 val, 4,549 test" in out
    table = pd.read_parquet(tmp_path / "out" / "promoters.parquet")
    assert table["sequence"].tolist() == [line.split("\t")[0] for name in lines for line in lines[name]]
    words = [
        "--sequences",
        folder / "tss_expression_model_format.txt.gz",
        "--targets",
        "2",
        "--out",
        tmp_path / "all",
    ]
    code, _, err = outcome(capsys, prepare, *words)
    assert code == 2
    assert "17,671 sequences of 150 bases and 96 of 49 to 75" in err
    assert outcome(capsys, prepare, *words, "--align", "right")[0] == 0
    assert len(pd.read_parquet(tmp_path / "all" / "promoters.parquet")) == 17767
