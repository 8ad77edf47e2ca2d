from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest
from support.files import Write, bgzip

from promoter.dataset.annotation import GENE_COLUMNS, read_genes
from promoter.errors import InputError

BED6 = "chr1\t100\t200\tplus\t0\t+\nchr2\t300\t450\tminus\t0\t-\n"
ROWS = [["plus", "chr1", 100, 200, "+", 100], ["minus", "chr2", 300, 450, "-", 449]]
GTF = (
    '#!genome-build x\nchr1\tsgd\tgene\t101\t200\t.\t+\t.\tgene_id "plus"; gene_name "P1";\n'
    'chr1\tsgd\texon\t101\t150\t.\t+\t.\tgene_id "plus";\n'
    'chr2\tsgd\tgene\t301\t450\t.\t-\t.\tgene_id "minus"; note "a; b"; gene_name "M1";\n'
)
GFF3 = (
    "##gff-version 3\nchr1\tsgd\tgene\t101\t200\t.\t+\t.\tID=gene:plus;Name=P1\n"
    "chr1\tsgd\tmRNA\t101\t200\t.\t+\t.\tID=x;Parent=gene:plus\n"
    "chr2\tsgd\tgene\t301\t450\t.\t-\t.\tID=gene:minus;Name=M%3B1\n"
    "##FASTA\n>chr1\nACGT\n"
)


def rows(path: Path, **options: str) -> list[list[object]]:
    genes = read_genes(path, **options)
    assert list(genes.columns) == GENE_COLUMNS
    return genes.to_numpy().tolist()


def bed(columns: int) -> str:
    more = ["100", "200", "0,0,0", "1", "100,", "0,"]
    return "".join("\t".join([*line.split("\t"), *more[: columns - 6]]) + "\n" for line in BED6.splitlines())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.bed", BED6),
        ("a.bed", bed(7)),
        ("a.bed", bed(9)),
        ("a.bed", bed(12)),
        ("a.BED", BED6.replace("\n", "\r\n")),
        ("a.bed", BED6.rstrip("\n")),
        ("a.bed", f"browser position chr1\ntrack name=x\n#comment\n\n{BED6}"),
        ("a.gtf", GTF),
        ("a.gtf", GTF.replace("\n", "\r\n")),
        ("a.gff3", GFF3),
        ("a.gff", GFF3),
        ("a.gff3", GFF3.replace("ID=gene:", "ID=")),
        ("bed.txt", BED6),
        ("gtf.txt", GTF),
        ("gff3", GFF3),
    ],
)
def test_every_annotation_format_gives_the_same_genes(write: Write, name: str, content: str) -> None:
    assert rows(write(name, content)) == ROWS


@pytest.mark.parametrize(("name", "content"), [("a.bed", BED6), ("a.gtf", GTF), ("a.gff3", GFF3), ("any", BED6)])
def test_gzip_and_bgzip_annotations_are_unpacked(write: Write, tmp_path: Path, name: str, content: str) -> None:
    assert rows(write(f"{name}.gz", gzip.compress(content.encode()))) == ROWS
    assert rows(bgzip(tmp_path / f"{name}.bgz", content.encode(), block=50)) == ROWS


def test_a_number_is_a_fine_gene_id_in_BED(write: Write) -> None:
    assert rows(write("a.bed", "1\t100\t200\t7157\t0\t-\t100\t200\t0\n")) == [["7157", "1", 100, 200, "-", 199]]


@pytest.mark.parametrize(
    ("name", "content", "attribute", "expected"),
    [
        ("a.gtf", GTF, "gene_name", ["P1", "M1"]),
        ("a.gff3", GFF3, "Name", ["P1", "M;1"]),
        ("a.gff3", GFF3.replace("ID=gene:", "x=y;gene_id="), None, ["plus", "minus"]),
        ("a.gff3", GFF3.replace("ID=gene:", "x="), None, ["P1", "M;1"]),
        ("a.gff3", GFF3.replace("Name=", "Name=gene:"), "Name", ["gene:P1", "gene:M;1"]),
        ("a.gtf", GTF.replace('"plus"', "plus").replace('"minus"', "minus "), None, ["plus", "minus"]),
    ],
)
def test_the_gene_id_is_the_attribute_asked_for(
    write: Write, name: str, content: str, attribute: str | None, expected: list[str]
) -> None:
    assert read_genes(write(name, content), attribute)["gene_id"].tolist() == expected


def test_genes_are_read_from_the_feature_type_asked_for(write: Write) -> None:
    assert rows(write("a.gtf", GTF), feature="exon") == [["plus", "chr1", 100, 150, "+", 100]]


def test_annotation_keeps_gene_ids_that_occur_twice(write: Write) -> None:
    assert read_genes(write("a.bed", BED6 * 2))["gene_id"].tolist() == ["plus", "minus"] * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bed", "chr1\t100\t200\n", r"line 1 .*no strand '\+' or '-' in column 6"),
        ("a.bed", "chr1\t100\t200\tg\n", r"line 1 \(g\) has no strand"),
        ("a.bed", "chr1\t100\t200\tg\t0\n", r"line 1 \(g\) has no strand"),
        ("a.bed", f"#x\n{BED6}chr1\t100\t200\tg\t0\t.\n", r"line 4 \(g\) has no strand"),
        ("a.bed", f"{BED6}chr1\t200\t100\tg\t0\t+\n", "line 3 is malformed .*Start is greater than stop"),
        ("a.bed", "\n\nchr1\t200\t200\tg\t0\t+\n", "line 3 ends at 200, not after its start 200"),
        ("a.bed", "chr1\t-1\t200\tg\t0\t+\n", "line 1 is malformed"),
        ("a.bed", "chr1\t1.5\t200\tg\t0\t+\n", "line 1 is malformed"),
        ("a.bed", "chr1\t1\t200\t.\t0\t+\n", "line 1 has no gene id in column 4"),
        ("a.bed", BED6.replace("\t", " "), "line 1 has 1 tab-separated columns.*spaces"),
        ("a.bed", "\n<!DOCTYPE html>\n<html>\n", "line 2 is HTML"),
        ("a.bed", "", "is empty"),
        ("a.bed", "# only a comment\n", "has no lines"),
        ("a.bed", b"chr1\t1\t2\tg\0\t0\t+\n", "not a text file"),
        ("a.bed.gz", gzip.compress(BED6.encode() * 2000, mtime=0)[:90], "gzip data ends early or is damaged"),
        (
            "a.bed.gz",
            gzip.compress(BED6.encode(), mtime=0)[:10] + b"\xff" * 60,
            "gzip data ends early or is damaged",
        ),
        ("a.gtf", BED6, "line 1 has 6 tab-separated columns, GTF has 9"),
        ("a.gtf", GTF.replace("gene\t", "mRNA\t"), "has no lines of feature type 'gene'"),
        (
            "a.gtf",
            GTF.replace("gene_id", "locus"),
            r"line 2 has no attribute 'gene_id'; it has \['gene_name', 'locus'\]",
        ),
        ("a.gtf", GTF.replace("\t101\t", "\t0\t"), "line 2 is malformed"),
        ("a.gtf", GTF.replace("-", "."), r"line 4 \(minus\) has no strand"),
        ("a.gtf", GTF.replace('"plus"', '""'), "line 2 has no gene id in its attributes"),
        (
            "a.gff3",
            GFF3.replace("ID=gene:plus;Name=P1", "."),
            "line 2 has no attribute 'gene_id' or 'ID' or 'Name'",
        ),
        ("a.txt", "gene\tlevel\nx\t1\n", "is not BED, GTF or GFF3"),
    ],
)
def test_a_bad_annotation_is_refused_with_the_line(
    write: Write, name: str, content: str | bytes, message: str
) -> None:
    path = write(name, content)
    with pytest.raises(InputError, match=message) as error:
        read_genes(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_GTF_attribute_is_refused_with_those_there_are(write: Write) -> None:
    with pytest.raises(InputError, match=r"no attribute 'symbol'; it has \['ID', 'Name'\].*`attribute`"):
        read_genes(write("a.gff3", GFF3), "symbol")


def test_a_missing_annotation_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such gene annotation"):
        read_genes(tmp_path / "none.bed")
    with pytest.raises(InputError, match="is a folder"):
        read_genes(tmp_path)


def test_the_yeast_GTF_holds_the_genes_of_the_yeast_BED(yeast: Path) -> None:
    gtf = yeast / "original" / "Saccharomyces_cerevisiae.R64-1-1.109.gtf.gz"
    genes = read_genes(gtf)
    genes = genes[read_genes(gtf, attribute="gene_biotype")["gene_id"] == "protein_coding"]
    genes = genes.assign(chrom="chr" + genes["chrom"].replace("Mito", "M"))
    expected = read_genes(yeast / "genes.bed")
    assert len(expected) == 6600
    pd.testing.assert_frame_equal(
        genes.set_index("gene_id").sort_index(), expected.set_index("gene_id").sort_index()
    )
