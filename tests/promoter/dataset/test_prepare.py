from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from support.files import Write, oracle
from support.notes import with_notes

from promoter.dataset.annotation import read_genes
from promoter.dataset.expression import read_expression
from promoter.dataset.genome import Genome
from promoter.dataset.prepare import Summary, centred_window, prepare, require_window
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::promoter.errors.InputNote")  # the tables are odd on purpose
CHROMOSOMES = {"1": "ACGTTGCAAC" * 3, "2": "GATTACAGGC" * 2}
BED = (
    "chr1\t10\t20\tplus\t0\t+\nchr2\t5\t12\tminus\t0\t-\nchr9\t5\t12\telsewhere\t0\t-\nchr1\t2\t9\tmute\t0\t+\n"
    "chr1\t11\t20\tplus\t0\t-\nchr2\t20\t30\toutside\t0\t+\n"
)
TABLE = "gene\tb\ta\nunknown\t1\t2\nminus\t3\t4\nplus\t5\t6\nplus\t7\t8\nelsewhere\t1\t1\noutside\t1\t1\n"
Prepare = Callable[..., tuple[Promoters, Summary]]


@pytest.fixture
def prepared(write: Write) -> Prepare:
    """Prepare small files; a test replaces those that it is about."""

    def run(
        bed: str = BED, table: str = TABLE, missing: Any = "error", upstream: int = 4, **options: Any
    ) -> tuple[Promoters, Summary]:
        genome = write("g.fa", "".join(f">{name}\n{sequence}\n" for name, sequence in CHROMOSOMES.items()))
        expression = read_expression(write("e.tsv", table), missing=missing)
        genes = read_genes(write("g.bed", bed))
        return prepare(Genome(genome), genes, expression, upstream=upstream, **options)

    return run


def test_each_gene_has_its_promoter_and_its_values_in_the_order_of_the_annotation(prepared: Prepare) -> None:
    promoters, _ = prepared(upstream=4, downstream=3)
    expected = {
        "gene_id": ["plus", "minus"],
        "chrom": ["1", "2"],
        "tss": [10, 11],
        "strand": ["+", "-"],
        "start": [6, 9],
        "end": [13, 16],
        "sequence": [oracle(CHROMOSOMES["1"], 10, "+", 4, 3), oracle(CHROMOSOMES["2"], 11, "-", 4, 3)],
    }
    assert promoters.genes.drop(columns="gene_name").to_dict("list") == expected
    assert promoters.target_names == ["b", "a"]
    assert promoters.targets.tolist() == [[5, 6], [3, 4]]
    assert promoters.targets.dtype == np.float32
    assert promoters.metadata["window"] == {"upstream": 4, "downstream": 3}


def test_every_gene_left_out_is_counted_under_its_reason(prepared: Prepare) -> None:
    promoters, summary = prepared()
    assert (len(promoters), summary.genes_kept) == (2, 2)
    assert summary.dropped == {
        "chromosome not in the FASTA": 1,
        "no expression": 1,
        "gene id occurred before in the annotation": 1,
        "TSS past the end of its chromosome": 1,
        "expression without an annotated gene": 1,
        "gene id occurred before in the expression table": 1,
    }
    assert summary.examples == {
        "chromosome not in the FASTA": ["chr9 (1)"],
        "no expression": ["mute"],
        "gene id occurred before in the annotation": ["plus"],
        "TSS past the end of its chromosome": ["outside"],
        "expression without an annotated gene": ["unknown"],
    }
    assert summary.renamed_chromosomes == {"chr1": "1", "chr2": "2"}


def test_genes_without_all_values_are_counted_when_dropped(prepared: Prepare) -> None:
    promoters, summary = prepared(table="gene\ta\tb\nplus\t1\t\nminus\t2\t3\nmute\tNA\tNA\n", missing="drop")
    assert promoters.genes["gene_id"].tolist() == ["minus"]
    assert summary.dropped["expression value missing"] == 2
    assert "no expression" not in summary.dropped  # these genes are in the table


@pytest.mark.parametrize(
    ("options", "kept", "reason", "count"),
    [
        ({"chroms": ["1"]}, ["plus"], "chromosome not in --chroms", 2),
        ({"chroms": ["chr1"]}, ["plus"], "chromosome not in --chroms", 2),
        ({"chroms": ["2", "chr9"]}, ["minus"], "chromosome not in --chroms", 3),
        ({"exclude_chroms": ["chr1"]}, ["minus"], "chromosome excluded", 3),
        ({"exclude_chroms": ["2"]}, ["plus"], "chromosome excluded", 2),
        ({"chroms": ["1", "2"], "exclude_chroms": ["1"]}, ["minus"], "chromosome excluded", 3),
    ],
)
def test_chromosomes_are_chosen_in_either_spelling(
    prepared: Prepare, options: dict[str, Any], kept: list[str], reason: str, count: int
) -> None:
    promoters, summary = prepared(**options)
    assert promoters.genes["gene_id"].tolist() == kept
    assert summary.dropped[reason] == count


@pytest.mark.parametrize("flag", ["chroms", "exclude_chroms"])
def test_an_unknown_chromosome_is_refused_with_those_of_the_genome(prepared: Prepare, flag: str) -> None:
    with pytest.raises(InputError, match=rf"`{flag}=\['chrZ', '3'\]`: not in .*g\.fa, which has 1, 2$"):
        prepared(**{flag: ["chrZ", "1", "3"]})


@pytest.mark.parametrize("options", [{}, {"exclude_chroms": ["9"]}, {"chroms": ["1"]}])
def test_of_equal_ids_the_first_that_can_be_used_is_kept(prepared: Prepare, options: dict[str, Any]) -> None:
    bed = "9\t1\t2\tg\t0\t+\n1\t5\t6\tg\t0\t+\n1\t9\t10\tg\t0\t-\n"
    promoters, summary = prepared(bed=bed, table="gene\ta\ng\t1\n", **options)
    assert promoters.genes["tss"].tolist() == [5]
    assert sum(summary.dropped.values()) == 2


@pytest.mark.parametrize("spelling", ["chr{}", "{}", "Chr{}"])
def test_names_mapped_to_the_FASTAs_are_reported(prepared: Prepare, spelling: str) -> None:
    one, two = spelling.format(1), spelling.format(2)
    promoters, summary = prepared(bed=BED.replace("chr1", one).replace("chr2", two))
    assert promoters.genes["chrom"].tolist() == ["1", "2"]
    assert summary.renamed_chromosomes == {
        name: other for name, other in ((one, "1"), (two, "2")) if name != other
    }


def test_gene_ids_match_without_their_version_when_asked_to(prepared: Prepare) -> None:
    bed = BED.replace("minus", "minus.12").replace("mute", "mute.x")
    table = TABLE.replace("plus", "plus.3").replace("minus\t", "minus.2\t")
    with pytest.raises(InputError, match="`ignore_version=True`"):
        prepared(bed=bed.replace("elsewhere", "x").replace("outside", "y"), table=table)
    (promoters, summary), notes = with_notes(lambda: prepared(bed=bed, table=table, ignore_version=True))
    assert [note for note in notes if "without their version" in note]
    assert promoters.genes["gene_id"].tolist() == ["plus.3", "minus.2"]
    assert promoters.targets.tolist() == [[5, 6], [3, 4]]
    assert summary.examples["no expression"] == ["mute.x"]


def test_versions_that_keep_two_genes_apart_are_no_versions(prepared: Prepare) -> None:
    """S. pombe's SPAC1002.01 and SPAC1002.02 are neighbours, and so may be the ids of any locus."""
    bed = BED.replace("plus", "locus.01").replace("minus", "locus.02c")
    table = TABLE.replace("plus", "locus.01").replace("minus", "locus.02c")
    plain, _ = prepared(bed=bed, table=table)
    (stripped, _), _ = with_notes(lambda: prepared(bed=bed, table=table, ignore_version=True))
    assert stripped.genes["gene_id"].tolist() == plain.genes["gene_id"].tolist() == ["locus.01", "locus.02c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"table": "gene\ta\nA\t1\nB\t1\nC\t1\nD\t1\n"},
            r"ids like plus, minus, elsewhere\) .*ids like A, B, C\).*`attribute`, `gene_map` and `gene_column`",
        ),
        (
            {"bed": BED.replace("chr", "scaffold")},
            r"6 of 6 genes lie on .*g\.fa lacks: scaffold1 \(3\), scaffold2 \(2\), .*it has 1, 2; .*`chrom_names`",
        ),
        (
            {"table": "sample\tminus\tplus\ts1\nA\t1\t2\t3\nB\t4\t5\t6\n"},
            r"has genes \(plus, minus\) for its columns, and rows like A, B; transpose it",
        ),
        ({"chroms": ["chr9"]}, r"no gene is left \(.*5 chromosome not in --chroms.*; loosen `chroms`"),
        ({"exclude_chroms": ["1", "2"]}, "no gene is left .*5 chromosome excluded"),
    ],
)
def test_an_empty_join_is_an_error_that_shows_ids_of_both_sides(
    prepared: Prepare, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        prepared(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("upstream", "downstream"), [(0, 0), (-1, 5), (5, -1), (-3, 3)])
def test_a_window_without_bases_is_refused(prepared: Prepare, upstream: int, downstream: int) -> None:
    message = rf"`(up|down)stream={min(upstream, downstream)}`.*: .*(above|at least) 0"
    with pytest.raises(InputError, match=message):
        require_window(upstream, downstream)
    with pytest.raises(InputError, match=message):
        prepared(upstream=upstream, downstream=downstream)


@pytest.mark.parametrize("name", ["sequence", "split", "level_predicted"])
def test_a_target_that_would_hide_a_column_of_the_outputs_is_refused(prepared: Prepare, name: str) -> None:
    with pytest.raises(InputError, match=f"the target '{name}' .*rename"):
        prepared(table=TABLE.replace("\ta\n", f"\t{name}\n"))


@pytest.mark.parametrize(("max_n", "kept"), [(1, 3), (0.5, 2), (0.49, 1), (0, 1)])
def test_windows_that_are_mostly_N_are_left_out_and_counted(prepared: Prepare, max_n: float, kept: int) -> None:
    bed = "1\t4\t9\tall\t0\t+\n1\t2\t9\thalf\t0\t+\n1\t0\t9\tnone\t0\t+\n"
    table = "gene\ta\nall\t1\nhalf\t2\nnone\t3\n"
    (promoters, summary), _ = with_notes(lambda: prepared(bed=bed, table=table, max_n=max_n, allow_loss=True))
    assert promoters.genes["gene_id"].tolist() == ["all", "half", "none"][:kept]
    assert summary.dropped.get(f"more than {max_n:.0%} of the window is N", 0) == 3 - kept
    sequences = "".join(promoters.genes["sequence"])
    assert summary.n == pytest.approx(sequences.count("N") / len(sequences))
    known = sequences.replace("N", "")
    assert summary.gc == pytest.approx(sum(map(known.count, "GC")) / len(known))


def test_half_of_the_genes_lost_for_one_reason_is_an_error(prepared: Prepare) -> None:
    lines = [f"chr1\t{10 + i}\t29\tg{i}\t0\t+" for i in range(4)]
    lines += [f"mito\t{10 + i}\t29\tm{i}\t0\t+" for i in range(5)]
    bed, table = "\n".join(lines), "gene\ta\n" + "".join(f"{g}{i}\t1\n" for g in "gm" for i in range(5))
    with pytest.raises(InputError, match=r"5 of 9 genes .*mito \(5\); it has 1, 2; .*`allow_loss=True`"):
        prepared(bed=bed, table=table)
    (promoters, _), notes = with_notes(lambda: prepared(bed=bed, table=table, allow_loss=True))
    assert len(promoters) == 4
    assert any("InputWarning" in note and "mito (5)" in note for note in notes)
    elsewhere = table.replace("g0", "x0").replace("g1", "x1").replace("g2", "x2").replace("m", "y")
    with pytest.raises(InputError, match=r"only 1 genes are in both .*ids like g0, g1.*ids like x0, x1"):
        prepared(bed=bed.replace("mito", "2"), table=elsewhere)


def test_a_table_of_some_genes_and_an_annotation_of_some_are_no_loss(prepared: Prepare) -> None:
    lines = [f"chr1\t{10 + i}\t29\tg{i}\t0\t+" for i in range(9)]
    table = ["gene\ta", *(f"g{i}\t{i}" for i in range(9))]
    few, _ = prepared(bed="\n".join(lines), table="\n".join(table[:4]))
    assert len(few) == 3
    (others, summary), notes = with_notes(lambda: prepared(bed="\n".join(lines[:3]), table="\n".join(table)))
    assert len(others) == 3
    assert summary.dropped == {"expression without an annotated gene": 6}
    assert any("6 of 9 genes of the expression table" in note for note in notes)


@pytest.mark.parametrize("max_n", [-0.1, 1.5, float("nan")])
def test_a_share_of_N_that_is_no_share_is_refused(prepared: Prepare, max_n: float) -> None:
    with pytest.raises(InputError, match=r"`max_n=.*`: must be "):
        prepared(max_n=max_n)


def test_a_gene_has_the_name_of_the_annotation_or_else_of_the_table(write: Write) -> None:
    genome = Genome(write("g.fa", f">1\n{CHROMOSOMES['1']}\n"))
    lines = [
        f'1\tx\tgene\t{9 + i}\t29\t.\t+\t.\tgene_id "g{i}"; {name}'
        for i, name in enumerate(['gene_name "rpl1";', "", ""])
    ]
    genes, _ = with_notes(lambda: read_genes(write("g.gtf", "\n".join(lines))))
    table = "#1.2\n3\t1\nName\tDescription\ts\ng0\tother\t1\ng1\trpl2\t2\ng2\tg2\t3\n"
    expression, _ = with_notes(lambda: read_expression(write("e.gct", table)))
    promoters, _ = prepare(genome, genes, expression, upstream=4)
    names = promoters.genes["gene_name"]
    assert names.where(names.notna(), None).tolist() == ["rpl1", "rpl2", None]


def test_prepare_leaves_the_given_tables_unchanged(write: Write) -> None:
    genome = Genome(write("g.fa", f">1\n{CHROMOSOMES['1']}\n"))
    genes, expression = read_genes(write("g.bed", BED)), read_expression(write("e.tsv", TABLE))
    before = genes.copy(), expression.values.copy()
    prepare(genome, genes, expression, upstream=4, ignore_version=True)
    pd.testing.assert_frame_equal(genes, before[0])
    pd.testing.assert_frame_equal(expression.values, before[1])


@pytest.fixture(scope="module")
def yeast_chromosomes(yeast: Path) -> dict[str, str]:
    with gzip.open(yeast / "genome.fa.gz", "rt") as file:
        records = [record.split("\n", 1) for record in file.read().split(">")[1:]]
    return {name: text.replace("\n", "") for name, text in records}


@pytest.mark.parametrize(("upstream", "downstream"), [(2000, 0), (500, 500), (0, 300)])
def test_every_yeast_promoter_and_value_is_that_of_its_gene(
    yeast: Path, yeast_chromosomes: dict[str, str], upstream: int, downstream: int
) -> None:
    genes, expression = read_genes(yeast / "genes.bed"), read_expression(yeast / "expression.tsv")
    promoters, summary = prepare(
        Genome(yeast / "genome.fa.gz"), genes, expression, upstream=upstream, downstream=downstream, max_n=1
    )
    lengths = {name: len(sequence) for name, sequence in yeast_chromosomes.items()}
    past_end = 0
    for gene in promoters.genes.itertuples():
        chromosome, at = yeast_chromosomes[str(gene.chrom)], (int(str(gene.start)), int(str(gene.end)))
        if at[0] < 0 or at[1] > lengths[str(gene.chrom)]:
            past_end += 1
            assert "N" in str(gene.sequence)
            where = (int(str(gene.tss)), str(gene.strand), upstream, downstream)
            assert gene.sequence == oracle(chromosome, *where), gene.gene_id
        elif gene.strand == "+":
            assert gene.sequence == chromosome[slice(*at)], gene.gene_id
        else:
            assert gene.sequence == chromosome[slice(*at)][::-1].translate(str.maketrans("ACGT", "TGCA"))
    assert summary.padded == past_end
    assert past_end > (10 if upstream == 2000 else 0)
    assert len(promoters) == summary.genes_kept == 6599  # genes with expression, by data/README.md
    assert summary.dropped == {"no expression": 1}
    table = pd.read_csv(yeast / "expression.tsv", sep="\t", index_col="gene")
    np.testing.assert_array_equal(
        promoters.targets, table.loc[promoters.genes["gene_id"]].to_numpy(dtype=np.float32)
    )


def test_counts_of_prepare_add_up_to_all_genes_and_rows(yeast: Path, write: Write) -> None:
    """A real annotation, spoiled by chance in every way at once."""
    rng = np.random.default_rng(0)
    bed = pd.read_csv(yeast / "genes.bed", sep="\t", header=None).sample(900, random_state=0)
    bed.loc[rng.choice(bed.index, 50), 0] = "chrUn"
    again = bed.sample(60, random_state=1)
    again[5] = again[5].map({"+": "-", "-": "+"})  # lines on one strand are one gene
    bed = pd.concat([bed, again])
    table = pd.read_csv(yeast / "salt_response.tsv", sep="\t").sample(5000, random_state=2)
    table.loc[rng.choice(table.index, 300), "salt_log2fc"] = np.nan
    table = pd.concat([table, table.dropna().sample(80, random_state=3)])
    genes = read_genes(write("g.bed", bed.to_csv(sep="\t", header=False, index=False)))
    expression = read_expression(write("e.tsv", table.to_csv(sep="\t", index=False)), missing="drop")
    promoters, summary = prepare(
        Genome(yeast / "genome.fa.gz"),
        genes,
        expression,
        upstream=100,
        chroms=["II", "IV", "XII"],
        exclude_chroms=["chrIV"],
    )
    of_rows = {
        "expression without an annotated gene",
        "gene id occurred before in the expression table",
    }
    assert len(summary.dropped) == 8  # each reason but a TSS past the end
    of_genes = sum(count for reason, count in summary.dropped.items() if reason not in of_rows)
    assert summary.genes_kept + of_genes == len(genes) == 960
    annotated = expression.values.index.isin(genes["gene_id"]).sum()
    rows = annotated + len(expression.without_value) + sum(summary.dropped[reason] for reason in of_rows)
    assert rows == len(table) == 5080
    usable = set(table.dropna()["gene"]) & set(bed[3][bed[0].isin(["chrII", "chrXII"])])
    assert set(promoters.genes["gene_id"]) == usable
    assert len(promoters) == summary.genes_kept == len(usable)


class _Network(NamedTuple):
    context: int
    step: int


@pytest.mark.parametrize(
    ("window", "context", "sides"),
    [("1000", None, (500, 500)), ("net", None, (480, 480)), ("net", 320, (160, 160))],
)
def test_a_centred_window_has_as_many_bases_before_the_tss_as_after(
    window: str, context: int | None, sides: tuple[int, int]
) -> None:
    assert centred_window(window, context, {"net": _Network(960, 320)}) == sides


@pytest.mark.parametrize(
    ("window", "context", "message"),
    [
        ("999", None, "must be net or an even number"),
        ("other", None, "must be net or an even number"),
        ("1000", 500, "goes with the names"),
        ("net", 500, r"net takes up to 960 bases, in steps of 320; give 640"),
        ("net", 1280, "give 960"),
    ],
)
def test_an_impossible_centred_window_is_refused(window: str, context: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        centred_window(window, context, {"net": _Network(960, 320)})
