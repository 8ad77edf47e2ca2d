from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.files import Write, bgzip
from support.notes import told

from promoter.dataset.annotation import GENE_COLUMNS, read_genes
from promoter.errors import InputError, InputNote, InputWarning

BED6 = "chr1\t100\t200\tplus\t0\t+\nchr2\t300\t450\tminus\t0\t-\n"
ROWS = [["plus", "chr1", 100, 200, "+", 100], ["minus", "chr2", 300, 450, "-", 449]]
GTF = (
    '#!genome-build x\nchr1\tsgd\tgene\t101\t200\t.\t+\t.\tgene_id "plus"; gene_name "P1";\n'
    'chr1\tsgd\texon\t101\t150\t.\t+\t.\tgene_id "plus";\n'
    'chr2\tsgd\tgene\t301\t450\t.\t-\t.\tgene_id "minus"; note "a; b"; gene_name "M1";\n'
)
GFF3 = (
    "##gff-version 3\nchr1\tsgd\tgene\t101\t200\t.\t+\t.\tID=plus;Name=P1\n"
    "chr1\tsgd\tmRNA\t101\t200\t.\t+\t.\tID=x;Parent=plus\n"
    "chr2\tsgd\tgene\t301\t450\t.\t-\t.\tID=minus;Name=M%3B1\n"
    "##FASTA\n>chr1\nACGT\n"
)
LINE = "chr1\tx\t{}\t{}\t{}\t.\t{}\t.\t{}\n"  # feature type, start, end, strand, attributes


def read(path: Path, **options: Any) -> tuple[pd.DataFrame, list[InputNote]]:
    with told() as notes:
        genes = read_genes(path, **options)
    assert list(genes.columns) == GENE_COLUMNS
    return genes, notes


def rows(path: Path, **options: Any) -> list[list[object]]:
    return read(path, **options)[0].drop(columns="gene_name").to_numpy().tolist()


def tss(path: Path, **options: Any) -> dict[str, int]:
    genes, _ = read(path, **options)
    assert genes["gene_id"].is_unique
    return dict(zip(genes["gene_id"], genes["tss"], strict=True))


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
        ("a.gtf", GTF.replace(";\n", ";\t\n")),
        ("a.gtf", GTF.replace('"plus"', "plus").replace('"minus"', "minus ")),
        ("a.gff3", GFF3),
        ("a.gff", GFF3),
        ("a.gff3", GFF3.replace("##FASTA\n", "")),
        ("a.gff3", GFF3.replace("chr2\tsgd", "###\n\nchr2\tsgd")),
        ("a.gff3", GFF3.replace("ID=", "ID=x;gene_id=").replace("ID=x", "ID=y", 1)),
        ("bed.txt", BED6),
        ("gtf.txt", GTF),
        ("gff3", GFF3),
    ],
)
def test_every_annotation_format_gives_the_same_genes_without_a_word(
    write: Write, name: str, content: str
) -> None:
    genes = read_genes(write(name, content))
    assert genes.drop(columns="gene_name").to_numpy().tolist() == ROWS


@pytest.mark.parametrize(("name", "content"), [("a.bed", BED6), ("a.gtf", GTF), ("a.gff3", GFF3), ("any", BED6)])
def test_gzip_and_bgzip_annotations_are_unpacked(write: Write, tmp_path: Path, name: str, content: str) -> None:
    assert rows(write(f"{name}.gz", gzip.compress(content.encode()))) == ROWS
    assert rows(bgzip(tmp_path / f"{name}.bgz", content.encode(), block=50)) == ROWS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.gff", GTF),
        ("a.gff3", GTF),
        ("a.gtf", GFF3),
        ("a.bed", GTF),
        ("a.bed", GFF3),
        ("a.gtf", BED6),
        ("a.gff3.gz", BED6),
    ],
)
def test_content_decides_over_the_name_of_an_annotation(write: Write, name: str, content: str) -> None:
    genes, notes = read(write(name, gzip.compress(content.encode()) if name.endswith(".gz") else content))
    assert genes.drop(columns="gene_name").to_numpy().tolist() == ROWS
    (note,) = notes
    assert "since its content is that" in str(note)


@pytest.mark.parametrize("name", ["a.bed", "a.txt"])
def test_a_BED_may_be_separated_by_spaces(write: Write, name: str) -> None:
    assert rows(write(name, BED6.replace("\t", " ").replace(" 0", "   0"))) == ROWS


def test_a_number_is_a_fine_gene_id_in_BED(write: Write) -> None:
    assert rows(write("a.bed", "1\t100\t200\t7157\t0\t-\t100\t200\t0\n")) == [["7157", "1", 100, 200, "-", 199]]


@pytest.mark.parametrize(
    ("name", "content", "attribute", "expected"),
    [
        ("a.gtf", GTF, "gene_name", ["P1", "M1"]),
        ("a.gff3", GFF3, "Name", ["P1", "M;1"]),
        ("a.gff3", GFF3.replace("ID=", "x=y;gene_id="), None, ["plus", "minus"]),
        ("a.gff3", GFF3.replace("ID=", "ID=gene:"), None, ["plus", "minus"]),
        ("a.gff3", GFF3.replace("ID=", "ID=gene-"), None, ["plus", "minus"]),
        ("a.gff3", GFF3.replace("ID=", "ID=Gene:"), None, ["plus", "minus"]),
        ("a.gff3", GFF3.replace("ID=", "ID=gene-"), "ID", ["plus", "minus"]),
        ("a.gff3", GFF3.replace("ID=", "locus_tag="), None, ["plus", "minus"]),
        ("a.gff3", GFF3.replace("ID=plus", "ID=plus_gene;locus_tag=plus"), None, ["plus", "minus"]),
        ("a.gff3", GFF3.replace("ID=", "x="), None, ["P1", "M;1"]),
        ("a.gff3", GFF3.replace("Name=", "Name=gene:"), "Name", ["gene:P1", "gene:M;1"]),
        ("a.gff3", GFF3.replace("Name=", "Dbxref=taxon:1,HGNC:HGNC:"), "Dbxref:HGNC", ["HGNC:P1", "HGNC:M;1"]),
        ("a.gtf", GTF.replace("gene_name ", 'db_xref "taxon:1"; db_xref '), "Dbxref:taxon", ["1", "1"]),
        ("a.gtf", GTF.replace('gene_name "', 'db_xref "a:1"; db_xref "GeneID:'), "db_xref:GeneID", ["P1", "M1"]),
    ],
)
def test_the_gene_id_is_the_attribute_asked_for(
    write: Write, name: str, content: str, attribute: str | None, expected: list[str]
) -> None:
    assert read(write(name, content), attribute=attribute)[0]["gene_id"].tolist() == expected


def test_genes_without_the_attribute_get_another_id_and_are_counted(write: Write) -> None:
    content = GFF3.replace("Name=P1", "Dbxref=PomBase:SPAC1,GeneID:1")
    genes, notes = read(write("a.gff3", content), attribute="Dbxref:PomBase")
    assert genes["gene_id"].tolist() == ["SPAC1", "minus"]
    (note,) = notes
    assert "1 of 2 genes have no attribute 'Dbxref:PomBase'; their ids are taken from ID (1)" in str(note)


def test_a_prefix_that_is_removed_from_ids_is_told(write: Write) -> None:
    _, notes = read(write("a.gff3", GFF3.replace("ID=plus", "ID=gene-plus")))
    assert "ID without its prefix (1)" in str(notes[0])
    assert "ID (1)" in str(notes[0])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('gene_id "g"; gene_name "sym";', "sym"),
        ('gene_id "g"; gene_name "g";', None),
        ('gene_id "g";', None),
        ('gene_id "g"; gene "x"; gene_name "sym";', "sym"),
        ('gene_id "g"; gene_symbol "sym";', "sym"),
        ("ID=g;Name=sym", "sym"),
        ("ID=g;Name=g;gene=sym", "sym"),
        ("ID=gene:g;Name=g;symbol=sym", "sym"),
        ("ID=gene-g;Name=g;locus_tag=g", None),
        ("ID=g;Alias=sym;gene_synonym=sym", None),
    ],
)
def test_gene_names_are_symbols_other_than_the_id(write: Write, attributes: str, expected: str | None) -> None:
    genes, _ = read(write("a", LINE.format("gene", 1, 9, "+", attributes)))
    assert genes[["gene_id", "gene_name"]].to_numpy().tolist() == [["g", expected]]
    assert genes["gene_name"].dtype == object


def test_names_of_a_BED_are_ids_and_it_has_no_gene_names(write: Write) -> None:
    assert read(write("a.bed", BED6))[0]["gene_name"].tolist() == [None, None]


@pytest.mark.parametrize(
    ("feature", "expected", "heard"),
    [
        (None, ["g", "h"], "left out: ncRNA_gene (1), pseudogene (1); to read these too, set `feature="),
        ("gene,ncRNA_gene,pseudogene", ["g", "n", "p", "h"], None),
        (["pseudogene", "gene"], ["g", "p", "h"], None),
        (
            "ncRNA_gene, nosuch",
            ["n"],
            "has no lines of nosuch; there are gene (2), ncRNA_gene (1), pseudogene (1)",
        ),
    ],
)
def test_feature_types_are_chosen_and_those_left_out_are_counted(
    write: Write, feature: Any, expected: list[str], heard: str | None
) -> None:
    kinds = [("gene", "g"), ("ncRNA_gene", "n"), ("pseudogene", "p"), ("gene", "h")]
    content = "".join(LINE.format(kind, 5, 9, "+", f"gene_id={name}") for kind, name in kinds)
    genes, notes = read(write("a.gff3", content), feature=feature)
    assert genes["gene_id"].tolist() == expected
    assert [heard in str(note) for note in notes if heard] == [True] * (heard is not None)


def test_an_absent_feature_type_is_refused_with_those_there_are(write: Write) -> None:
    with pytest.raises(
        InputError, match=r"no lines of feature type 'mrna'; there are gene \(2\), mRNA \(1\): .*`fea"
    ):
        read_genes(write("a.gff3", GFF3), feature="mrna")
    with pytest.raises(InputError, match=r"no lines of feature type 'gene' or .*'CDS'; there are intron \(1\)"):
        read_genes(write("a.gff3", LINE.format("intron", 1, 5, "+", "ID=x")))


@pytest.mark.parametrize(
    ("content", "heard"),
    [
        (
            "".join(LINE.format("mRNA", s, s + 5, "+", f"ID=t{s};Parent=g") for s in (20, 10)),
            "1 gene from transcripts",
        ),
        ("".join(LINE.format("exon", s, s + 5, "+", 'gene_id "g";') for s in (20, 10)), "1 gene from exons"),
        ("".join(LINE.format("CDS", s, s + 5, "+", "ID=c;locus_tag=g") for s in (20, 10)), "1 gene from CDSs"),
        ("".join(LINE.format("protein_coding_gene", 10, 25, "+", "ID=g")), "read from protein_coding_gene (1)"),
    ],
)
def test_without_gene_lines_the_lines_there_are_give_the_5_prime_most_start(
    write: Write, content: str, heard: str
) -> None:
    genes, notes = read(write("a", content))
    assert genes[["gene_id", "start", "end", "tss"]].to_numpy().tolist() == [["g", 9, 25, 9]]
    assert heard in str(notes[0])


def test_each_gene_is_read_from_its_own_best_lines(write: Write) -> None:
    """Prokka's files have CDSs of some genes and tRNAs of others; a transgene may be a mere exon."""
    content = (
        LINE.format("CDS", 11, 40, "-", "ID=cds-a;locus_tag=a")
        + LINE.format("tRNA", 51, 60, "+", "ID=b")
        + LINE.format("exon", 55, 58, "+", "Parent=b")
        + LINE.format("exon", 71, 80, "+", "ID=gfp")
        + LINE.format("repeat_region", 1, 80, "+", "ID=r")
    )
    assert tss(write("a.gff3", content)) == {"a": 39, "b": 50, "gfp": 70}


def test_a_GTF_of_exons_gives_genes_of_all_their_transcripts(write: Write) -> None:
    """UCSC's GTFs list the exons of a minus-strand gene from its 3' end."""
    lines = [("t1", 100, 150), ("t1", 300, 350), ("t2", 200, 400), ("t3", 120, 130)]
    content = "".join(
        LINE.format("exon", start + 1, end, "-", f'gene_id "g"; transcript_id "{name}";')
        for name, start, end in lines
    )
    for ordered in (content, "".join(reversed(content.splitlines(keepends=True)))):
        assert rows(write("a.gtf", ordered)) == [["g", "chr1", 100, 400, "-", 399]]
        assert rows(write("a.gtf", ordered), feature="exon") == [["g", "chr1", 100, 400, "-", 399]]


@pytest.mark.parametrize("feature", ["mRNA", "exon", "CDS", "mRNA,exon"])
@pytest.mark.parametrize("order", [1, -1])
def test_parts_of_a_GFF3_belong_to_the_gene_at_the_top_of_their_parents(
    write: Write, feature: str, order: int
) -> None:
    content = (
        LINE.format("gene", 101, 200, "+", "ID=gene:g1;Name=sym;biotype=protein_coding")
        + LINE.format("mRNA", 101, 200, "+", "ID=transcript:t1;Parent=gene:g1;Name=sym-201;biotype=x")
        + LINE.format("exon", 101, 110, "+", "Parent=transcript:t1,transcript:t2;Name=e1")
        + LINE.format("CDS", 101, 110, "+", "ID=CDS:p1;Parent=transcript:t1")
        + LINE.format("mRNA", 101, 110, "+", "ID=transcript:t2;Parent=gene:g1")
    )
    content = "".join(content.splitlines(keepends=True)[::order])
    genes, _ = read(write("a.gff3", content), feature=feature, biotype="protein_coding")
    assert genes[["gene_id", "gene_name", "tss"]].to_numpy().tolist() == [["g1", "sym", 100]]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("ID=rna-NM_1;Parent=gene-g1", "g1"),
        ("ID=rna-NM_1;Parent=gene-g1;locus_tag=lt;gene=sym", "lt"),
        ("Parent=transcript:t1;gene_id=g1", "g1"),
        ("ID=t1;geneID=g1", "g1"),
        ("ID=loop;Parent=loop", "loop"),
        ("ID=t1%2C2;Parent=gene%2C1", "gene,1"),
    ],
)
def test_a_part_whose_gene_has_no_line_names_it_all_the_same(write: Write, attributes: str, expected: str) -> None:
    assert list(tss(write("a.gff3", LINE.format("mRNA", 11, 20, "+", attributes)))) == [expected]


def test_parents_in_a_circle_are_one_gene(write: Write) -> None:
    content = LINE.format("mRNA", 1, 9, "+", "ID=a;Parent=b") + LINE.format("mRNA", 2, 9, "+", "ID=b;Parent=a")
    assert len(tss(write("a.gff3", content))) > 0


def test_BRAKERs_bare_ids_name_genes_and_transcripts(write: Write) -> None:
    content = (
        LINE.format("gene", 11, 50, "-", "g1")
        + LINE.format("transcript", 11, 50, "-", "g1.t1")
        + LINE.format("CDS", 11, 50, "-", 'transcript_id "g1.t1"; gene_id "g1";')
    )
    for name in ("a.gtf", "a.gff", "a.gff3"):
        assert rows(write(name, content)) == [["g1", "chr1", 10, 50, "-", 49]]
    transcripts = "".join(content.splitlines(keepends=True)[1:])
    assert rows(write("b.gtf", transcripts)) == [["g1", "chr1", 10, 50, "-", 49]]
    assert rows(write("c.gtf", content.splitlines(keepends=True)[0])) == [["g1", "chr1", 10, 50, "-", 49]]


@pytest.mark.parametrize("strand", ["+", "-"])
def test_several_lines_of_a_BED_are_transcripts_of_one_gene(write: Write, strand: str) -> None:
    content = "".join(f"chr1\t{start}\t{end}\tg\t0\t{strand}\n" for start, end in ((50, 90), (20, 60), (30, 95)))
    genes, notes = read(write("a.bed", content))
    assert genes[["start", "end", "tss"]].to_numpy().tolist() == [[20, 95, 20 if strand == "+" else 94]]
    assert "1 gene with several lines, such as g" in str(notes[0])


def test_a_gene_on_X_and_Y_has_two_rows(write: Write) -> None:
    line = '{}\tx\tgene\t{}\t{}\t.\t+\t.\tgene_id "SHOX";\n'
    genes, notes = read(write("a.gtf", line.format("X", 11, 20) + line.format("Y", 31, 40)))
    assert genes[["chrom", "tss"]].to_numpy().tolist() == [["X", 10], ["Y", 30]]
    assert "1 gene on several chromosomes or strands, such as SHOX" in str(notes[0])


@pytest.mark.parametrize(
    "content",
    [
        "".join(f'{chrom}\tx\texon\t11\t20\t.\t+\t.\tgene_id "g"; transcript_id "t";\n' for chrom in "12"),
        "".join(f'1\tx\texon\t11\t20\t.\t{strand}\t.\tgene_id "g"; transcript_id "t";\n' for strand in "+-"),
        "".join(f'1\tx\texon\t11\t20\t.\t{strand}\t.\tgene_id "g";\n' for strand in "+-"),
        "".join(f"1\tx\tgene\t11\t20\t.\t{strand}\t.\tID=g;part={strand}\n" for strand in "+-"),
        "".join(f"1\tx\tCDS\t11\t20\t.\t{strand}\t.\tID=c;Parent=g\n" for strand in "+-"),
        "1\tx\tgene\t11\t20\t.\t.\t.\tID=g\n",
        "1\tx\tgene\t11\t20\t.\t?\t.\tID=g\n",
        "1\tx\tgene\t20\t11\t.\t+\t.\tID=g\n",
        "1\tx\tgene\t0\t11\t.\t+\t.\tID=g\n",
        "1\tx\tgene\tten\t11\t.\t+\t.\tID=g\n",
    ],
)
def test_genes_with_invalid_lines_are_refused_or_left_out(write: Write, content: str) -> None:
    fine = "1\tx\t{}\t11\t20\t.\t+\t.\t{}\n"
    fine = fine.format(content.split("\t")[2], 'gene_id "fine"' if "gene_id" in content else "ID=fine")
    path = write("a", content + fine)
    with told(), pytest.raises(InputError, match=r"line [12] \(g\) .*`skip_invalid=True`$") as error:
        read_genes(path)
    assert "\n" not in str(error.value)
    genes, notes = read(path, skip_invalid=True)
    assert genes["gene_id"].tolist() == ["fine"]
    assert any("left out 1 invalid line and 1 gene with them: line " in str(note) for note in notes)
    with told(), pytest.raises(InputError, match=r"no gene is left"):
        read_genes(write("b.gff3", content), skip_invalid=True)


def test_lines_of_other_types_may_be_invalid(write: Write) -> None:
    content = GTF + LINE.format("exon", 50, 20, ".", "") + LINE.format("repeat", "x", "y", ".", "")
    assert rows(write("a.gtf", content)) == ROWS


def test_copies_of_a_gene_far_apart_are_doubted(write: Write) -> None:
    line = LINE.format("transcript", "{}", "{}", "+", 'gene_id "U6"; transcript_id "t{}";')
    near, far = line.format(11, 20, 1) + line.format(1011, 1020, 2), line.format(90_011, 90_020, 3)
    assert not any(isinstance(note, InputWarning) for note in read(write("a.gtf", near))[1])
    genes, notes = read(write("b.gtf", near + far))
    assert genes["tss"].tolist() == [10]
    assert any(isinstance(note, InputWarning) and "as if several genes had one id" in str(note) for note in notes)


def test_a_GTF_whose_genes_are_its_transcripts_is_doubted(write: Write) -> None:
    line = LINE.format("exon", 11, 20, "+", 'gene_id "{0}"; transcript_id "{0}";')
    _, notes = read(write("a.gtf", line.format("NM_1") + line.format("NM_2")))
    assert any("each transcript counts as a gene" in str(note) for note in notes)


@pytest.mark.parametrize(
    ("kinds", "options", "doubted"),
    [
        (["gene", "CDS"], {}, True),
        (["CDS"], {}, True),
        (["gene", "mRNA", "exon", "five_prime_UTR", "CDS"], {}, False),
        (["gene", "mRNA", "exon", "CDS"], {}, False),
        (["gene", "mRNA", "five_prime_UTR", "CDS"], {}, False),
        (["gene", "mRNA", "exon", "5UTR", "CDS"], {"feature": "CDS"}, True),
        (["gene"], {}, False),
        (["gene", "exon", "CDS", *["start_codon"] * 11, "five_prime_utr"], {}, True),
        (["gene", "exon", "CDS", "start_codon", "UTR"], {}, False),
    ],
)
def test_a_start_codon_for_a_TSS_is_doubted(
    write: Write, kinds: list[str], options: dict[str, str], doubted: bool
) -> None:
    content = "".join(LINE.format(kind, 11, 20, "+", 'gene_id "g"; transcript_id "t";') for kind in kinds)
    _, notes = read(write("a.gtf", content), **options)
    assert any("start codon" in str(note) for note in notes) == doubted


BIOTYPES = [("a", "protein_coding"), ("b", "lncRNA"), ("c", "protein_coding"), ("d", None)]


@pytest.mark.parametrize("key", ["gene_biotype", "gene_type", "biotype"])
@pytest.mark.parametrize("form", ['gene_id "{0}"; {1} "{2}";', "ID={0};{1}={2}"])
def test_genes_are_chosen_by_biotype(write: Write, key: str, form: str) -> None:
    content = "".join(
        LINE.format("gene", 11, 20, "+", form.format(name, key if biotype else "note", biotype))
        for name, biotype in BIOTYPES
    )
    path = write("a", content)
    genes, notes = read(path, biotype="protein_coding")
    assert genes["gene_id"].tolist() == ["a", "c"]
    assert "2 of 4 genes are protein_coding (1 of those left out have no biotype)" in str(notes[0])
    assert read(path, biotype="lncRNA,protein_coding")[0]["gene_id"].tolist() == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"`biotype='coding'`.*; it has protein_coding \(2\), lncRNA \(1\)$"):
        read_genes(path, biotype=["protein_coding", "coding"])


def test_biotypes_are_refused_where_there_are_none(write: Write) -> None:
    with pytest.raises(InputError, match=r"`biotype='tRNA'`: .* types: mRNA \(1\); .* `feature='mRNA'`$"):
        read_genes(write("a.gff3", GFF3), biotype="tRNA")
    with pytest.raises(InputError, match=r"`biotype='tRNA'`: .*take an annotation that has biotypes$"):
        read_genes(write("a.bed", BED6), biotype="tRNA")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bed", "chr1\t100\t200\n", r"line 1 .*no strand '\+' or '-' in column 6"),
        ("a.bed", "chr1\t100\t200\tg\n", r"line 1 \(g\) has no strand"),
        ("a.bed", "chr1\t100\t200\tg\t0\n", r"line 1 \(g\) has no strand"),
        ("a.bed", f"#x\n{BED6}chr1\t100\t200\tg\t0\t.\n", r"line 4 \(g\) has no strand"),
        ("a.bed", f"{BED6}chr1\t200\t100\tg\t0\t+\n", r"line 3 \(g\) is malformed .*Start is greater than stop"),
        ("a.bed", "\n\nchr1\t200\t200\tg\t0\t+\n", r"line 3 \(g\) ends at 200, not after its start 200"),
        ("a.bed", "chr1\t-1\t200\tg\t0\t+\n", r"line 1 \(g\) is malformed"),
        ("a.bed", "chr1\t1.5\t200\tg\t0\t+\n", r"line 1 \(g\) is malformed"),
        ("a.bed", "chr1\t1\t99999999999999999999\tg\t0\t+\n", r"line 1 \(g\) is malformed"),
        ("a.bed", "chr1\t1\t200\t.\t0\t+\n", "line 1 has no gene id in column 4"),
        (
            "a.bed",
            f"chrom\tstart\tend\tname\tscore\tstrand\n{BED6}",
            "'start' and 'end' are no positions; a header must",
        ),
        ("a.bed", bed(12).replace("100,", "many,"), r"line 1 \(plus\) has block sizes that are no numbers"),
        ("a.bed", BED6.replace("\t", ","), "line 1 has 1 columns, at least 3 are needed, separated by tabs"),
        ("a.bed", "\n<!DOCTYPE html>\n<html>\n", "line 2 is HTML"),
        ("a.bed", "", "is empty"),
        ("a.bed", "# only a comment\n", "has no lines"),
        ("a.gtf", ">chr1\nACGT\n", "has no lines"),
        ("a.bed", b"chr1\t1\t2\tg\0\t0\t+\n", "not a text file"),
        ("a.bed.gz", gzip.compress(BED6.encode() * 2000, mtime=0)[:90], "gzip data ends early or is damaged"),
        (
            "a.bed.gz",
            gzip.compress(BED6.encode(), mtime=0)[:10] + b"\xff" * 60,
            "gzip data ends early or is damaged",
        ),
        ("a.gtf", GTF.replace("\t", " "), "line 2 has 1 tab-separated columns, GTF has 9; is it the right file"),
        ("a.gtf", GTF.replace("\t.\t+\t", "\t"), "line 2 has 7 tab-separated columns, GTF has 9"),
        ("a.gtf", f"{GTF}chr1\tsgd\n", "line 5 has 2 tab-separated columns, GTF has 9"),
        (
            "a.gtf",
            GTF.replace("gene_id", "l"),
            r"line 2 has no gene id in its attributes \(gene_name, l\); choose",
        ),
        ("a.gtf", GTF.replace('"plus"', '""'), r"line 2 has no gene id in its attributes \(gene_id, gene_name\)"),
        ("a.gff3", GFF3.replace("ID=plus;Name=P1", "."), r"line 2 has no gene id in its attributes \(none\)"),
        ("a.txt", "gene\tlevel\nx\t1\n", "is not BED, GTF or GFF3"),
        ("refFlat.txt", "plus\tNM_1\tchr1\t+\t100\t200\t1\t100,\t200,\n", "make it BED: chromosome, start"),
        ("a", ">chr1\nACGT\n", "is not BED, GTF or GFF3"),
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


def test_a_missing_attribute_is_refused_with_those_there_are(write: Write) -> None:
    content = GFF3.replace("Name=P1", "Name=P1;Dbxref=GeneID:1")
    with pytest.raises(
        InputError,
        match=r"no gene has the attribute 'symbol'; .*\['Dbxref', 'Dbxref:GeneID', 'ID', 'Name'\].*`attri",
    ):
        read_genes(write("a.gff3", content), "symbol")


def test_a_missing_annotation_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such gene annotation"):
        read_genes(tmp_path / "none.bed")
    with pytest.raises(InputError, match="is a folder"):
        read_genes(tmp_path)


def test_the_yeast_GTF_holds_the_genes_of_the_yeast_BED(yeast: Path) -> None:
    gtf = yeast / "original" / "Saccharomyces_cerevisiae.R64-1-1.109.gtf.gz"
    genes, _ = read(gtf, biotype="protein_coding")
    genes = genes.assign(chrom="chr" + genes["chrom"].replace("Mito", "M"), gene_name=None)
    expected = read_genes(yeast / "genes.bed")
    assert len(expected) == 6600
    pd.testing.assert_frame_equal(
        genes.set_index("gene_id").sort_index(), expected.set_index("gene_id").sort_index()
    )


def test_a_line_without_a_feature_type_counts_as_none_in_notes(write: Write) -> None:
    _, notes = read(write("a.gtf", f"{GTF}chr1\tcut\n"), feature=["gene", "tRNA"], skip_invalid=True)
    (warning,) = [str(note) for note in notes if isinstance(note, InputWarning)]
    assert "has no lines of tRNA; there are gene (2)" in warning
    assert "more" not in warning
