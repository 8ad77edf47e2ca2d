from __future__ import annotations

import gzip
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Write, bgzip, oracle
from upath import UPath

from promoter.dataset.annotation import read_genes
from promoter.dataset.genome import Genome, window
from promoter.errors import InputError

CHROMOSOMES = {"chr1": "ACGTTGCAAN" * 20 + "acgRYt", "2": "GATTACA", "chrM": "C"}
STRAND = st.sampled_from("+-")


def fasta(chromosomes: dict[str, str], width: int = 50, end: str = "\n") -> bytes:
    lines = []
    for name, sequence in chromosomes.items():
        lines += [f">{name} described", *(sequence[i : i + width] for i in range(0, len(sequence), width))]
    return (end.join(lines) + end).encode()


@pytest.fixture(scope="module")
def genomes(tmp_path_factory: pytest.TempPathFactory) -> list[Genome]:
    """The same chromosomes in the shapes that FASTA comes in."""
    folder = tmp_path_factory.mktemp("genomes")
    for name, content in (
        ("lines.fa", fasta(CHROMOSOMES)),
        ("long.fa", fasta(CHROMOSOMES, 1000)),
        ("windows.fa", fasta(CHROMOSOMES, 7, "\r\n")),
        ("unended.fa", fasta(CHROMOSOMES).rstrip(b"\n")),
    ):
        (folder / name).write_bytes(content)
    bgzip(folder / "small.fa.gz", fasta(CHROMOSOMES), block=37)
    return [Genome(path) for path in sorted(folder.glob("*.fa*")) if not path.name.endswith(("i", ".tmp"))]


@given(st.sampled_from(sorted(CHROMOSOMES)), st.data(), STRAND, st.integers(0, 300), st.integers(0, 300))
def test_windows_equal_slices_of_the_padded_chromosome(
    genomes: list[Genome], chrom: str, data: st.DataObject, strand: str, upstream: int, downstream: int
) -> None:
    length = len(CHROMOSOMES[chrom])
    tss = data.draw(st.integers(0, length - 1))
    sequence = "".join(base if base in "ACGTacgt" else "N" for base in CHROMOSOMES[chrom])
    expected = oracle(sequence, tss, strand, upstream, downstream)
    assert len(genomes) == 5
    for genome in genomes:
        promoter = genome.promoter(chrom, tss, strand, upstream=upstream, downstream=downstream)
        assert "".join(base if base in "ACGT" else "N" for base in promoter) == expected
    start, end = window(tss, strand, upstream, downstream)
    assert end - start == upstream + downstream


@given(st.integers(-500, 500), st.integers(0, 500))
def test_any_region_is_padded_to_its_full_length(genomes: list[Genome], start: int, length: int) -> None:
    padded = "N" * 500 + CHROMOSOMES["2"] + "N" * 1000
    for genome in genomes:
        assert genome.fetch("2", start, start + length) == padded[start + 500 : start + 500 + length]


def test_the_first_transcribed_base_opens_the_downstream_part(write: Write) -> None:
    genome = Genome(write("g.fa", ">c\nAAAAACGGGGG\n"))
    assert genome.promoter("c", 5, "+", upstream=3, downstream=1) == "AAAC"
    assert genome.promoter("c", 5, "-", upstream=3, downstream=1) == "CCCG"  # read leftward from the C at 5
    assert genome.promoter("c", 5, "-", upstream=1, downstream=3) == "CGTT"
    assert window(5, "+", 3, 1) == (2, 6)
    assert window(5, "-", 3, 1) == (5, 9)


def test_genome_windows_are_in_upper_case_and_chromosome_lengths_are_known(genomes: list[Genome]) -> None:
    for genome in genomes:
        assert genome.lengths == {name: len(sequence) for name, sequence in CHROMOSOMES.items()}
        assert genome.promoter("chr1", 203, "+", upstream=3, downstream=0) == "ACG"
        assert genome.promoter("chr1", 199, "-", upstream=3, downstream=0) == "CGT"


@pytest.mark.parametrize("block", [65_280, 65_536])
def test_bgzip_equals_plain_around_every_block_boundary(tmp_path: Path, block: int) -> None:
    letters = random.Random(0)  # noqa: S311 # not for secrets
    chromosomes = {"a": "".join(letters.choices("ACGT", k=300_000)), "b": "".join(letters.choices("ACGT", k=9))}
    content = b">a\n" + chromosomes["a"].encode() + b"\n>b\n" + chromosomes["b"].encode()
    genome = Genome(bgzip(tmp_path / "g.fa.gz", content, block))
    for boundary in range(block, 300_000, block):
        for start in range(boundary - 6, boundary + 4):
            assert genome.fetch("a", start, start + 5) == chromosomes["a"][start : start + 5]
    again = Genome(tmp_path / "g.fa.gz")  # by the index that the first one wrote
    assert again.fetch("a", block - 3, block + 9) == chromosomes["a"][block - 3 : block + 9]
    assert again.fetch("b", 0, 9) == chromosomes["b"]


@pytest.fixture(scope="module")
def yeast_genome(yeast: Path) -> tuple[Genome, dict[str, str]]:
    """The genome as the library opens it, and as plain gzip reads it."""
    with gzip.open(yeast / "genome.fa.gz", "rt") as file:
        records = [record.split("\n", 1) for record in file.read().split(">")[1:]]
    return Genome(yeast / "genome.fa.gz"), {name: text.replace("\n", "") for name, text in records}


@pytest.mark.parametrize(("upstream", "downstream"), [(2000, 0), (1500, 500), (0, 50)])
def test_yeast_promoters_at_chromosome_ends_and_elsewhere_equal_the_oracle(
    yeast: Path, yeast_genome: tuple[Genome, dict[str, str]], upstream: int, downstream: int
) -> None:
    genome, chromosomes = yeast_genome
    assert genome.lengths == {name: len(sequence) for name, sequence in chromosomes.items()}
    genes = read_genes(yeast / "genes.bed")
    near_end = (genes["tss"] < 2000) | (genes["tss"] >= genes["chrom"].map(genome.lengths) - 2000)
    assert near_end.sum() > 10
    chosen = [*genes[near_end].itertuples(), *genes.sample(300, random_state=0).itertuples()]
    for gene in chosen:
        chrom, place, widths = str(gene.chrom), (gene.tss, gene.strand), (upstream, downstream)
        promoter = genome.promoter(chrom, *place, upstream=upstream, downstream=downstream)  # type: ignore[arg-type]
        assert promoter == oracle(chromosomes[chrom], *place, *widths)  # type: ignore[arg-type]


def test_yeast_coding_genes_start_with_ATG(yeast: Path, yeast_genome: tuple[Genome, dict[str, str]]) -> None:
    genes = read_genes(yeast / "genes.bed").query("chrom != 'chrM'")
    starts = [
        yeast_genome[0].promoter(chrom, tss, strand, upstream=0, downstream=3)
        for chrom, tss, strand in zip(genes["chrom"], genes["tss"], genes["strand"], strict=True)
    ]
    assert starts.count("ATG") == 6568  # of 6572, by data/README.md


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.fa", b"", "is empty"),
        ("g.fa", b"<!DOCTYPE html>\n<html></html>\n", "is HTML"),
        ("g.fa", b"chr1\t1\t2\n", "is no FASTA"),
        ("g.fa", b">chr1\nname\tvalue;1\n>x\nAC\n", r"line 2 \(record 'chr1'\) is no sequence"),
        ("g.fa", b">a\nAC\n>a\nAC\n", "two records are named 'a'"),
    ],
)
def test_a_file_that_is_no_FASTA_is_refused(write: Write, name: str, content: bytes, message: str) -> None:
    path = write(name, content)
    with pytest.raises(InputError, match=message) as error:
        Genome(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_bad_bgzip_is_refused(tmp_path: Path) -> None:
    whole = bgzip(tmp_path / "g.fa.gz", fasta(CHROMOSOMES), block=50).read_bytes()
    (tmp_path / "early.fa.gz").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[20:40] = b"\xff" * 20
    (tmp_path / "damaged.fa.gz").write_bytes(damaged)
    bgzip(tmp_path / "page.fa.gz", b"<html></html>")
    for name, message in (
        ("early.fa.gz", "ends early"),
        ("damaged.fa.gz", "damaged"),
        ("page.fa.gz", "is HTML"),
    ):
        with pytest.raises(InputError, match=message):
            Genome(tmp_path / name)


def test_an_older_index_of_another_FASTA_is_made_again(write: Write) -> None:
    path = write("g.fa", fasta({"a": "ACGT" * 5}))
    Genome(path).close()
    os.utime(f"{path}.fai", (1, 1))
    write("g.fa", fasta({"x": "T" * 99, "a": "GATTACA" * 100}))
    genome = Genome(path)
    assert genome.lengths == {"x": 99, "a": 700}
    assert genome.fetch("a", 693, 702) == "GATTACANN"


@pytest.mark.parametrize("sequence", ["GATTACA" * 100, "ACGT" * 4, "ACGT" * 5 + "A" * 30])
def test_a_newer_index_of_another_FASTA_is_refused(write: Write, sequence: str) -> None:
    path = write("g.fa", fasta({"a": "ACGT" * 5}))
    Genome(path).close()
    write("g.fa", fasta({"a": sequence}))
    os.utime(path, (1, 1))  # as cp -p or an archive leaves it
    with pytest.raises(InputError, match=r"g\.fa\.fai was made of another FASTA; delete the index"):
        Genome(path)


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[None]:
    """Act as a user whom file permissions bind, which root is not."""
    if os.geteuid() != 0:
        yield
        return
    closed = [
        (parent, parent.stat().st_mode) for parent in tmp_path.parents if parent.stat().st_mode & 0o011 != 0o011
    ]
    for parent, mode in closed:
        parent.chmod(mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for parent, mode in closed:
            parent.chmod(mode)


@pytest.fixture
def read_only(tmp_path: Path, genomes: list[Genome]) -> Path:
    """A folder that cannot be written, with one genome in two forms."""
    folder, cache = tmp_path / "shared", tmp_path / "cache"
    folder.mkdir()
    cache.mkdir()
    (folder / "g.fa").write_bytes(fasta(CHROMOSOMES))
    bgzip(folder / "g.fa.gz", fasta(CHROMOSOMES))
    folder.chmod(0o555)
    cache.chmod(0o777)
    tmp_path.chmod(0o755)
    return folder


@pytest.mark.parametrize("name", ["g.fa", "g.fa.gz"])
def test_the_index_of_a_read_only_folder_goes_to_the_cache(
    read_only: Path, unprivileged: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cache = read_only.parent / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    for _ in range(2):  # the second time from the cached index
        assert Genome(read_only / name).promoter("2", 3, "-", upstream=3, downstream=1) == "TGTA"
    assert sorted(one.name for one in read_only.iterdir()) == ["g.fa", "g.fa.gz"]
    assert len(list(cache.rglob("*.fai"))) == 1


def test_a_FASTA_index_that_cannot_be_written_is_refused_with_the_fix(
    read_only: Path, unprivileged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only))
    with pytest.raises(InputError, match=r"g\.fa: its index can be written neither .*XDG_CACHE_HOME"):
        Genome(read_only / "g.fa")


def test_a_remote_FASTA_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remote = UPath("memory://bucket/g.fa")
    remote.write_bytes(fasta(CHROMOSOMES))
    for _ in range(2):
        assert Genome(remote).fetch("2", 0, 9) == "GATTACANN"
    assert len([one for one in tmp_path.rglob("*-g.fa") if one.is_file()]) == 1
