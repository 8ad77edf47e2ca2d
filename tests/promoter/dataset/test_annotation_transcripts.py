"""Transcripts: which one gives the TSS, and which gene each belongs to; genes drawn at random against a loop."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.files import Write
from support.notes import told

from promoter.dataset.annotation import read_genes, transcript_genes
from promoter.errors import InputError

Exon = tuple[int, int]


class Model(NamedTuple):
    """A gene: its name, strand, and the exons of each of its transcripts."""

    name: str
    strand: str
    transcripts: list[list[Exon]]

    def tss(self, exons: list[Exon]) -> int:
        return min(start for start, _ in exons) if self.strand == "+" else max(end for _, end in exons) - 1

    def expected(self, choice: str) -> int:
        """Find the TSS by looking at every transcript."""
        firsts = [self.tss(exons) for exons in self.transcripts]
        best = min if self.strand == "+" else max
        if choice == "5prime_most":
            return best(firsts)
        sizes = [sum(end - start for start, end in exons) for exons in self.transcripts]
        return best(first for first, size in zip(firsts, sizes, strict=True) if size == max(sizes))


@st.composite
def _transcript(draw: st.DrawFn) -> list[Exon]:
    edges = draw(st.lists(st.integers(0, 500), min_size=2, max_size=8, unique=True))
    edges = sorted(edges)[: len(edges) // 2 * 2]
    return list(zip(edges[::2], edges[1::2], strict=True))


MODELS = st.lists(
    st.tuples(st.sampled_from("+-"), st.lists(_transcript(), min_size=1, max_size=4)), min_size=1, max_size=5
).map(lambda genes: [Model(f"g{i}.1", strand, transcripts) for i, (strand, transcripts) in enumerate(genes)])


def lines(models: list[Model], layout: str) -> list[str]:
    """Write models as one of the layouts that tools have."""
    written = []

    def add(model: Model, kind: str, start: int, end: int, attributes: str) -> None:
        written.append(f"c\tx\t{kind}\t{start + 1}\t{end}\t.\t{model.strand}\t.\t{attributes}")

    for model in models:
        spans = [(min(s for s, _ in exons), max(e for _, e in exons)) for exons in model.transcripts]
        if "gene" in layout:
            text = f"ID=gene:{model.name}" if "gff3" in layout else f'gene_id "{model.name}";'
            add(model, "gene", min(s for s, _ in spans), max(e for _, e in spans), text)
        for number, (exons, span) in enumerate(zip(model.transcripts, spans, strict=True)):
            name = f"{model.name}-t{number}"
            if "transcript" in layout:
                gff3 = f"ID=transcript:{name};Parent=gene:{model.name}"
                gtf = f'gene_id "{model.name}"; transcript_id "{name}";'
                add(model, "mRNA" if "gff3" in layout else "transcript", *span, gff3 if "gff3" in layout else gtf)
            for exon in exons:
                gff3 = f"Parent=transcript:{name}"
                gtf = f'transcript_id "{name}"; gene_id "{model.name}";'
                add(model, "CDS" if "cds" in layout else "exon", *exon, gff3 if "gff3" in layout else gtf)
            if layout == "bed12":
                sizes, starts = zip(*[(end - start, start - span[0]) for start, end in exons], strict=True)
                blocks = [str(len(exons)), ",".join(map(str, sizes)), ",".join(map(str, starts))]
                columns = ["c", *map(str, span), model.name, "0", model.strand, *map(str, span), "0", *blocks]
                written.append("\t".join(columns))
    return [line for line in written if layout != "bed12" or "\tx\t" not in line]


LAYOUTS = [
    "gtf: gene, transcript, exon",
    "gtf: transcript, exon",
    "gtf: exon",
    "gtf: cds",
    "gff3: gene, transcript, exon",
    "gff3: gene, transcript, cds",
    "gff3: transcript, exon",
    "bed12",
]


@pytest.mark.parametrize("choice", ["5prime_most", "longest"])
@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(models=MODELS, order=st.randoms(use_true_random=False))
def test_the_TSS_is_that_of_a_naive_loop_in_every_layout_and_order(
    tmp_path_factory: pytest.TempPathFactory, layout: str, choice: Any, models: list[Model], order: random.Random
) -> None:
    written = lines(models, layout)
    order.shuffle(written)
    path = tmp_path_factory.mktemp("a") / "annotation"
    path.write_text("\n".join(written) + "\n")
    with told():
        genes = read_genes(path, transcript=choice)
    expected = {model.name: model.expected(choice) for model in models}
    assert dict(zip(genes["gene_id"], genes["tss"], strict=True)) == expected
    spans = {
        model.name: (
            min(s for t in model.transcripts for s, _ in t),
            max(e for t in model.transcripts for _, e in t),
        )
        for model in models
    }
    assert {row.gene_id: (row.start, row.end) for row in genes.itertuples()} == spans


@settings(max_examples=25, deadline=None)
@given(
    models=MODELS,
    order=st.randoms(use_true_random=False),
    layout=st.sampled_from([name for name in LAYOUTS if name[0] == "g"]),
)
def test_each_transcript_maps_to_its_gene_in_every_layout_and_order(
    tmp_path_factory: pytest.TempPathFactory, models: list[Model], order: random.Random, layout: str
) -> None:
    written = lines(models, layout)
    order.shuffle(written)
    path = tmp_path_factory.mktemp("a") / "annotation"
    path.write_text("\n".join(written) + "\n")
    with told() as notes:
        genes = transcript_genes(path)
    prefixes = ["", "transcript:"] if layout.startswith("gff3") else [""]
    assert genes == {
        f"{prefix}{model.name}-t{number}": model.name
        for prefix in prefixes
        for model in models
        for number in range(len(model.transcripts))
    }
    assert notes == []


def test_transcripts_have_their_version_too_and_BED_has_none(write: Write) -> None:
    gtf = 'c\tx\texon\t1\t9\t.\t+\t.\tgene_id "g"; transcript_id "t"; transcript_version "3";\n'
    assert transcript_genes(write("a.gtf", gtf)) == {"t": "g", "t.3": "g"}
    gff3 = "c\tx\tmRNA\t1\t9\t.\t+\t.\tID=transcript:t;Parent=gene:g;transcript_id=t;version=3\n"
    assert transcript_genes(write("a.gff3", gff3)) == dict.fromkeys(
        ("t", "t.3", "transcript:t", "transcript:t.3"), "g"
    )
    ncbi = "c\tx\tmRNA\t1\t9\t.\t+\t.\tID=rna-NM_1.2;Parent=gene-g;transcript_id=NM_1.2;locus_tag=lt\n"
    assert transcript_genes(write("b.gff3", ncbi)) == {"NM_1.2": "lt", "rna-NM_1.2": "lt"}
    assert transcript_genes(write("a.bed", "c\t1\t9\tt\t0\t+\n")) == {}


def test_a_transcript_id_of_several_genes_parts_none_and_maps_to_none(write: Write) -> None:
    """NCBI's GTFs name the transcripts of many genes unknown_transcript_1."""
    line = 'c\tx\texon\t{}\t{}\t.\t{}\t.\tgene_id "{}"; transcript_id "unknown_transcript_1";\n'
    path = write(
        "a.gtf", line.format(11, 20, "+", "a") + line.format(51, 60, "-", "b") + line.format(1, 5, "+", "a")
    )
    with told():
        assert read_genes(path, transcript="longest")["tss"].tolist() == [0, 59]
    assert transcript_genes(path) == {}


def test_transcripts_map_to_the_attribute_that_the_genes_have(write: Write) -> None:
    gff3 = "c\tx\tgene\t1\t9\t.\t+\t.\tID=g;Dbxref=PomBase:SPAC1\nc\tx\tmRNA\t1\t9\t.\t+\t.\tID=t;Parent=g\n"
    assert transcript_genes(write("a.gff3", gff3), "Dbxref:PomBase") == {"t": "SPAC1"}
    gtf = 'c\tx\texon\t1\t9\t.\t+\t.\tgene_id "g"; transcript_id "t"; gene_name "sym";\n'
    assert transcript_genes(write("a.gtf", gtf), "gene_name") == {"t": "sym"}


GENE = "c\tx\tgene\t101\t900\t.\t-\t.\tID=g\nc\tx\tgene\t1\t50\t.\t+\t.\tID=h\n"
MRNA = "c\tx\tmRNA\t101\t{}\t.\t-\t.\tID=t{};Parent=g;{}\n"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["", "tag=Ensembl_canonical", ""], 800),
        (["tag=basic", "tag=basic,Ensembl_canonical,CCDS", ""], 800),
        (["tag=Ensembl_canonical", "tag=MANE_Select,Ensembl_canonical", ""], 800),
        (["tag=RefSeq Select", "tag=MANE Select", ""], 800),
        (["", "tag=RefSeq Select", "tag=MANE Plus Clinical"], 800),
        (["", "", ""], 900),
    ],
)
def test_the_canonical_transcript_is_the_tagged_one(write: Write, tags: list[str], expected: int) -> None:
    mrnas = [MRNA.format(end, end, tag) for end, tag in zip((900, 800, 700), tags, strict=True)]
    other = "c\tx\tmRNA\t11\t50\t.\t+\t.\tID=u;Parent=h;tag=Ensembl_canonical\n"
    with told() as notes:
        genes = read_genes(write("a.gff3", GENE + "".join(mrnas) + other), transcript="canonical")
    assert genes["tss"].tolist() == [expected - 1, 10]
    assert genes[["start", "end"]].to_numpy().tolist() == [[100, 900], [0, 50]]
    assert [str(note).split(": ")[1] for note in notes] == (
        [] if any(tags) else ["1 gene without a canonical transcript keep their 5'-most start"]
    )


def test_canonical_transcripts_are_read_from_exons_of_a_GTF(write: Write) -> None:
    line = 'c\tx\texon\t{}\t{}\t.\t-\t.\tgene_id "g"; transcript_id "{}"; tag "basic"; tag "{}";\n'
    content = (
        line.format(1, 99, "a", "CCDS") + line.format(1, 9, "b", "MANE_Select") + line.format(21, 29, "b", "x")
    )
    with told():
        assert read_genes(write("a.gtf", content), transcript="canonical")["tss"].tolist() == [28]


def test_a_file_without_tags_has_no_canonical_transcripts(write: Write) -> None:
    for path in (write("a.gff3", GENE + MRNA.format(900, 1, "")), write("a.bed", "c\t1\t9\tg\t0\t+\n")):
        with told(), pytest.raises(InputError, match=r"`transcript='canonical'`: .* no transcript tagged"):
            read_genes(path, transcript="canonical")


def test_an_unknown_choice_of_transcript_is_refused(tmp_path: Path) -> None:
    choice: Any = "first"
    with pytest.raises(InputError, match=r"`transcript='first'`: unknown; choose one of 5prime_most, longest"):
        read_genes(tmp_path / "none", transcript=choice)


def test_UTRs_and_CDSs_count_as_exons_where_there_are_none(write: Write) -> None:
    """PomBase's files have no exon lines; the longer span is not the longer transcript."""
    part = "c\tx\t{}\t{}\t{}\t.\t-\t.\tParent={}\n"
    content = (
        GENE
        + MRNA.format(900, 1, "")
        + part.format("CDS", 101, 200, "t1")
        + part.format("five_prime_UTR", 891, 900, "t1")
        + MRNA.format(600, 2, "")
        + part.format("CDS", 101, 300, "t2")
    )
    with told():
        assert read_genes(write("a.gff3", content), transcript="longest")["tss"].tolist()[0] == 599


def test_transcripts_on_X_and_Y_are_told_apart(write: Write) -> None:
    line = '{0}\tx\t{1}\t{2}\t{3}\t.\t+\t.\tgene_id "g"; transcript_id "{4}";\n'
    content = "".join(
        line.format(chrom, kind, start, end, name)
        for chrom, by in (("X", 0), ("Y", 1000))
        for kind, start, end, name in (
            ("gene", 101 + by, 200 + by, ""),
            ("transcript", 101 + by, 120 + by, "a"),
            ("transcript", 111 + by, 200 + by, "b"),
        )
    )
    with told():
        genes = read_genes(write("a.gtf", content), transcript="longest")
    assert genes[["chrom", "tss"]].to_numpy().tolist() == [["X", 110], ["Y", 1110]]


def test_an_invalid_transcript_takes_its_gene_with_it(write: Write) -> None:
    content = (
        GENE + MRNA.format(900, 1, "").replace("\t-\t", "\t?\t") + "c\tx\tmRNA\t11\t50\t.\t+\t.\tID=u;Parent=h\n"
    )
    path = write("a.gff3", content)
    assert len(read_genes(path)) == 2  # its lines are not looked at
    with pytest.raises(InputError, match=r"line 3 \(g\) has no strand"):
        read_genes(path, transcript="longest")
    with told():
        assert read_genes(path, transcript="longest", skip_invalid=True)["gene_id"].tolist() == ["h"]
