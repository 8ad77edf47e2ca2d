"""Tables as tools write them: small ones made here after the tools' manuals, and a plain loop as the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from support.files import Write
from support.notes import with_notes

from promoter.dataset.config import Layout
from promoter.dataset.expression import Expression, read_expression
from promoter.dataset.layouts import LAYOUTS, column_names, find_tables, sample_names
from promoter.dataset.targets import unlikely_target, unlikely_targets
from promoter.errors import InputError

FEATURECOUNTS = (
    "Geneid\tChr\tStart\tEnd\tStrand\tLength\t/data/s1.bam\t/data/s2.bam\n"
    "g1\tI;I\t1;9\t5;12\t+;+\t9\t10\t20\ng2\tI\t30\t40\t-\t11\t30\t0\n"
)
SALMON = "Name\tLength\tEffectiveLength\tTPM\tNumReads\ng1\t900\t700\t10\t4\ng2\t800\t600\t30\t8\n"
DESEQ2 = (
    '"","baseMean","log2FoldChange","lfcSE","stat","pvalue","padj"\n"g1",90,10,1,2,0.1,NA\n"g2",80,30,1,2,0.1,1\n'
)
STAR = "N_unmapped\t900\t900\t900\nN_multimapping\t5\t5\t5\nN_noFeature\t7\t9\t9\nN_ambiguous\t1\t0\t0\n"
GCT = "#1.2\n2\t2\nName\tDescription\ts1\ts2\ng1\tAB1\t10\t20\ng2\tCD2\t30\t0\n"
HTSEQ_SUMMARY = (
    "__no_feature\t900\n__ambiguous\t1\n__too_low_aQual\t0\n__not_aligned\t5\n__alignment_not_unique\t7\n"
)
S1 = {"": ["g1", "g2"], "s1": [10, 30]}
S1_S2 = S1 | {"s2": [20, 0]}


def read(path: Any, *arguments: Any, **options: Any) -> Expression:
    return with_notes(lambda: read_expression(path, *arguments, **options))[0]


def as_lists(expression: Expression) -> dict[str, list[Any]]:
    values = expression.values
    return {"": values.index.tolist(), **{str(name): column.tolist() for name, column in values.items()}}


@pytest.mark.parametrize(
    ("layout", "unit", "name", "content", "expected"),
    [
        ("featurecounts", "counts", "fc.txt", "# Program:featureCounts v2; Command:x\n" + FEATURECOUNTS, S1_S2),
        ("featurecounts", "counts", "fc.txt", FEATURECOUNTS, S1_S2),
        ("featurecounts", "counts", "fc.csv", FEATURECOUNTS.replace("\t", ","), S1_S2),
        ("featurecounts", "counts", "fc.txt", FEATURECOUNTS.replace("I;I\t1;9\t5;12\t+;+", "I\t1\t9\t+"), S1_S2),
        (
            "featurecounts",
            "counts",
            "extra_attributes.txt",
            FEATURECOUNTS.replace("Length\t", "Length\tgene_name\tentrezgene\t")
            .replace("\t9\t10", "\t9\tAB1\t77\t10")
            .replace("\t11\t30", "\t11\tCD2\t78\t30"),
            S1_S2,
        ),
        ("salmon", "TPM", "s1.sf", SALMON, S1),
        ("salmon", "TPM", "s1.quant.genes.sf", SALMON, S1),
        ("salmon", "TPM", "s1.sf", "# version 0.6\n#" + SALMON, S1),
        (
            "kallisto",
            "TPM",
            "s1_abundance.tsv",
            "target_id\tlength\teff_length\test_counts\ttpm\ng1\t900\t700.5\t4\t1e1\ng2\t800\t600\t8\t3.0e+01\n",
            S1,
        ),
        (
            "rsem",
            "TPM",
            "s1.genes.results",
            "gene_id\ttranscript_id(s)\tlength\teffective_length\texpected_count\tTPM\tFPKM\n"
            "g1\tt1,t2\t900\t700\t4\t10\t3\ng2\tt3\t800\t600\t8\t30\t9\n",
            S1,
        ),
        (
            "rsem",
            "TPM",
            "s1.isoforms.results",
            "transcript_id\tgene_id\tlength\teffective_length\texpected_count\tTPM\tFPKM\tIsoPct\n"
            "t1\tg1\t900\t700\t4\t4\t3\t40\nt3\tg2\t8\t6\t8\t30\t9\t100\nt2\tg1\t900\t700\t4\t6\t3\t60\n",
            S1,
        ),
        (
            "stringtie",
            "TPM",
            "s1_gene_abund.tab",
            "Gene ID\tGene Name\tReference\tStrand\tStart\tEnd\tCoverage\tFPKM\tTPM\n"
            "g1\tAB1\tI\t+\t1\t9\t7.5\t2\t4\ng2\t-\tI\t-\t30\t40\t8\t3\t30\ng1\tAB1\tI\t+\t50\t60\t1\t1\t6\n",
            S1,
        ),
        ("htseq", "counts", "s1.txt", "g1\t10\ng2\t30\n" + HTSEQ_SUMMARY, S1),
        ("htseq", "counts", "any.txt", "gene\ts1\ng1\t10\ng2\t30\n" + HTSEQ_SUMMARY, S1),
        ("htseq", "counts", "s1.counts", "g1\t10\ng2\t30\n" + HTSEQ_SUMMARY.replace("__", ""), S1),
        ("htseq", "counts", "m.tsv", "\ts1.bam\ts2.bam\ng1\t10\t20\ng2\t30\t0\n__no_feature\t9\t9\n", S1_S2),
        ("star", "counts", "s1ReadsPerGene.out.tab", STAR + "g1\t10\t5\t6\ng2\t30\t15\t14\n", S1),
        ("star", "counts", "s1ReadsPerGene.out.tab", "g1\t10\t5\t6\ng2\t30\t15\t14\n", S1),
        ("star", "counts", "s1.tab", STAR + "g1\t12\t10\t1\ng2\t33\t30\t2\n", S1),
        ("star", "counts", "s1.tab", STAR + "g1\t12\t0\t10\ng2\t33\t3\t30\n", S1),
        ("deseq2", "log2 fold change", "d.csv", DESEQ2, {"": S1[""], "log2FoldChange": S1["s1"]}),
        (
            "deseq2",
            "log2 fold change",
            "shrunken_and_tidy.tsv",
            "row\tbaseMean\tlog2FoldChange\tlfcSE\tpvalue\tpadj\ng1\t9\t10\t1\t0.1\t1\ng2\t8\t30\t1\t0\t1\n",
            {"": S1[""], "log2FoldChange": S1["s1"]},
        ),
        (
            "edger",
            "log2 fold change",
            "e.csv",
            '"","logFC","logCPM","LR","PValue","FDR"\n"g1",10,5,9,0.1,1\n"g2",30,5,9,0.1,1\n',
            {"": S1[""], "logFC": S1["s1"]},
        ),
        (
            "edger",
            "log2 fold change",
            "several.csv",
            "gene,logFC.a,logFC.b,logCPM,F,PValue,FDR\ng1,10,20,5,9,0.1,1\ng2,30,0,5,9,0.1,1\n",
            {"": S1[""], "logFC.a": S1["s1"], "logFC.b": S1_S2["s2"]},
        ),
        (
            "limma",
            "log2 fold change",
            "topTable.txt",  # as write.table writes it
            "logFC\tAveExpr\tt\tP.Value\tadj.P.Val\tB\ng1\t10\t5\t9\t0.1\t1\t-4\ng2\t30\t5\t9\t0.1\t1\t-4\n",
            {"": S1[""], "logFC": S1["s1"]},
        ),
        ("gct", None, "m.gct", GCT, S1_S2),
        (
            "gct",
            None,
            "gtex.gct",
            "#1.2\n2\t2\nid\tName\tDescription\ts1\ts2\n0\tg1\tAB1\t10\t20\n1\tg2\tCD2\t30\t0\n",
            S1_S2,
        ),
        (
            "gct",
            None,
            "lincs.gct",
            "#1.3\n2\t2\t2\t1\nid\tgene_symbol\tentrez\ts1\ts2\ndose\tna\tna\t5\t6\n"
            "g1\tAB1\t77\t10\t20\ng2\tCD2\t78\t30\t0\n",
            S1_S2,
        ),
        ("plain", None, "s1.tsv", "g1\t10\ng2\t30\n", S1),
        ("plain", None, "merged.tsv", "tx\tgene_id\ts1\ts2\nt1\tg1\t4\t20\nt2\tg2\t30\t0\nt3\tg1\t6\t0\n", S1_S2),
        ("plain", None, "merged.tsv", "gene_id\tgene_name\ts1\ts2\ng1\tAB1\t10\t20\ng2\tCD2\t30\t0\n", S1_S2),
    ],
)
def test_a_tools_table_gives_its_samples_and_nothing_else(
    write: Write, layout: Layout, unit: str | None, name: str, content: str, expected: dict[str, list[Any]]
) -> None:
    expression, notes = with_notes(lambda: read_expression(write(name, content)))
    assert as_lists(expression) == expected
    assert (expression.layout, expression.unit) == (layout, unit)
    assert layout == "plain" or any(f"has the layout of {LAYOUTS[layout].tool}" in note for note in notes)
    if "AB1" in content:
        assert expression.gene_names == {
            gene: label for gene, label in (("g1", "AB1"), ("g2", "CD2")) if label in content
        }
    if layout != "plain":
        assert read(write(name, content), layout=layout).values.equals(expression.values)


def test_every_layout_has_an_entry() -> None:
    assert set(LAYOUTS) == set(get_args(Layout))


@pytest.mark.parametrize(
    ("content", "targets", "expected"),
    [
        (FEATURECOUNTS, ["Length"], {"Length": [9, 11]}),
        (FEATURECOUNTS, ["s2", "Length"], {"s2": [20, 0], "Length": [9, 11]}),
        (FEATURECOUNTS, ["/data/s2.bam"], {"/data/s2.bam": [20, 0]}),
        (SALMON, ["NumReads"], {"NumReads": [4, 8]}),
        (SALMON, ["TPM", "EffectiveLength"], {"TPM": [10, 30], "EffectiveLength": [700, 600]}),
        (DESEQ2, ["baseMean"], {"baseMean": [90, 80]}),
        (DESEQ2, ["padj"], {"padj": [None, 1]}),
        (STAR + "g1\t10\t5\t9\ng2\t30\t15\t14\n", ["reverse"], {"reverse": [9, 14]}),
        ("gene\tlength\tx\ng1\t5\t1\ng2\t6\t2\n", ["length"], {"length": [5, 6]}),
    ],
)
def test_named_targets_win_over_the_layout(
    write: Write, content: str, targets: list[str], expected: dict[str, list[float]]
) -> None:
    values = read(write("t.txt", content), targets).values
    assert list(values.columns) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(values[name].reindex(["g1", "g2"]), np.array(column, dtype="float32"))


def test_a_layout_named_by_hand_wins_over_the_one_recognised(write: Write) -> None:
    path = write("t.txt", FEATURECOUNTS.replace("I;I\t1;9\t5;12", "I\t1\t5"))
    plain = read(path, layout="plain")
    assert as_lists(plain) == S1_S2
    assert set(plain.left_out) == {"Start", "End", "Length"}
    assert read(write("p.txt", "gene\ts1\ng1\t10\ng2\t30\n"), layout="htseq").unit == "counts"
    unfold = read(write("d.csv", DESEQ2), layout="plain")
    assert list(unfold.values.columns) == ["log2FoldChange"]


def test_a_library_whose_strand_is_not_evident_is_asked_for(write: Write) -> None:
    path = write("s.tab", STAR + "g1\t10\t3\t7\ng2\t30\t9\t21\n")
    with pytest.raises(
        InputError, match=r"30% of the reads lie on the forward.*`targets`: unstranded, forward or rev"
    ):
        read(path)


def test_a_logarithm_of_logarithms_is_refused(write: Write) -> None:
    path = write("d.csv", DESEQ2)
    with pytest.raises(InputError, match=r"holds logarithms \(log2FoldChange\).*`transform='none'`"):
        read(path, transform="log2p1")
    assert read(path, ["baseMean"], transform="log2p1").values.shape == (2, 1)


@pytest.mark.parametrize("header", ["", "gene\ts1\n"])
def test_summary_rows_do_not_count_as_library_size(write: Write, header: str) -> None:
    rows = [("g1", 100), ("g2", 300), ("g3", 0)]
    body = "".join(f"{gene}\t{count}\n" for gene, count in rows)
    path = write("s1.txt", header + body + HTSEQ_SUMMARY)
    values = read(path, transform="cpm_log2p1").values["s1"]
    expected = [np.log2(count / 400 * 1e6 + 1) for _, count in rows]  # by a plain loop
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    clean = read(write("clean.txt", "gene\ts1\n" + body), transform="cpm_log2p1").values["s1"]
    pd.testing.assert_series_equal(values, clean)


@pytest.mark.parametrize("name", ["Sum", "Library size", "grand total"])
def test_a_row_that_is_the_sum_of_all_others_does_not_count(write: Write, name: str) -> None:
    counts = {f"g{row}": [row + 1, 3 * row + 2] for row in range(12)}
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    body = "".join(f"{gene}\t{a}\t{b}\n" for gene, (a, b) in counts.items())
    values = read(
        write("t.tsv", f"gene\ta\tb\n{body}{name}\t{sums[0]}\t{sums[1]}\n"), transform="cpm_log2p1"
    ).values
    pd.testing.assert_frame_equal(
        values, read(write("clean.tsv", "gene\ta\tb\n" + body), transform="cpm_log2p1").values
    )
    in_one = read(write("u.tsv", f"gene\ta\tb\n{body}{name[:4]}x\t{sums[0]}\t1\n"))
    assert len(in_one.values) == 13


@pytest.mark.parametrize("given", ["folder", "pattern", "list"])
def test_files_of_one_sample_each_become_one_table(tmp_path: Path, given: str) -> None:
    for sample, tpm in (("s1", 10), ("s2", 20)):
        folder = tmp_path / "quants" / f"{sample}_quant"
        (folder / "aux_info").mkdir(parents=True)
        (folder / "quant.sf").write_text(SALMON.replace("\t10\t", f"\t{tpm}\t"))
        (folder / "lib_format_counts.json").write_text("{}")
        (folder / "aux_info" / "ambig_info.tsv").write_text("UniqueCount\tAmbigCount\n1\t2\n")
    paths = [tmp_path / "quants" / f"{sample}_quant" / "quant.sf" for sample in ("s1", "s2")]
    path: Any = {"folder": tmp_path / "quants", "pattern": tmp_path / "quants/*/quant.sf", "list": paths}[given]
    expression, notes = with_notes(lambda: read_expression(path))
    assert as_lists(expression) == {"": ["g1", "g2"], "s1": [10, 30], "s2": [20, 30]}
    assert [str(file) for file in expression.files] == list(map(str, paths))
    assert len([note for note in notes if "has the layout" in note]) == 1
    assert as_lists(read(path, ["NumReads"])) == {"": ["g1", "g2"], "s1": [4, 8], "s2": [4, 8]}
    assert list(read(path, ["TPM", "NumReads"]).values.columns) == [
        *("s1_TPM", "s1_NumReads", "s2_TPM", "s2_NumReads")
    ]
    assert as_lists(read(path, ["s2"])) == {"": ["g1", "g2"], "s2": [20, 30]}
    with pytest.raises(InputError, match=r"no such column.*and the samples \['s1', 's2'\]"):
        read(path, ["s3"])


def test_files_with_other_genes_are_joined_with_missing_values(tmp_path: Path) -> None:
    for name, rows in (("a", "g1\t1\ng2\t2\n"), ("b", "g3\t3\ng1\t4\n")):
        (tmp_path / f"{name}.counts").write_text(rows + HTSEQ_SUMMARY)
    expression, notes = with_notes(lambda: read_expression(tmp_path))
    expected = pd.DataFrame({"a": [1, 2, np.nan], "b": [4, np.nan, 3]}, index=["g1", "g2", "g3"], dtype="float32")
    pd.testing.assert_frame_equal(expression.values, expected, check_names=False)
    assert any("up to 1 gene not in every file" in note for note in notes)
    with pytest.raises(InputError, match=r"1 gene not in every file.*`missing='keep'`"):
        read(tmp_path, missing="error")
    per_million = read(tmp_path, transform="cpm_log2p1").values
    np.testing.assert_allclose(per_million["b"].dropna(), np.log2(np.array([4, 3]) / 7 * 1e6 + 1), rtol=1e-6)


def test_samples_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.tsv").write_text("gene\tx\ty\ng1\t1\t2\n")
    with pytest.raises(InputError, match="sample 'x' is in several files"):
        read(tmp_path)
    with pytest.raises(InputError, match="is named twice"):
        read([tmp_path / "a.tsv", tmp_path / "a.tsv"])


def test_a_folder_is_searched_for_tables_and_nothing_is_guessed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(InputError, match="holds no table"):
        find_tables(folder)
    with pytest.raises(InputError, match="no file has such a name"):
        find_tables(folder / "*.tsv")
    with pytest.raises(InputError, match="no such expression table"):
        find_tables(folder / "a.tsv")
    (folder / "fc.txt").write_text(FEATURECOUNTS)
    (folder / "fc.txt.summary").write_text("Status\ts1.bam\nAssigned\t5\n")
    assert with_notes(lambda: find_tables(folder))[0] == find_tables(folder / "fc.txt")
    (folder / "a[1].txt").write_text(FEATURECOUNTS)
    assert len(find_tables(folder / "a[1].txt")) == 1  # a name, though it reads like a pattern
    (folder / "s1.quant.sf").write_text(SALMON)
    (folder / "s1.quant.genes.sf").write_text(SALMON)
    assert [path.name for path in with_notes(lambda: find_tables(folder))[0]] == ["s1.quant.genes.sf"]
    (folder / "s1ReadsPerGene.out.tab").write_text(STAR)
    with pytest.raises(InputError, match="holds files of STAR and Salmon"):
        find_tables(folder)


def test_tables_of_different_layouts_are_not_joined(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(FEATURECOUNTS)
    (tmp_path / "b.txt").write_text("gene\tx\ng1\t1\n")
    with pytest.raises(InputError, match=r"b.txt: has the layout of plain, .*a.txt that of featureCounts"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["a/s1.bam", "a/s2.sam"], ["s1", "s2"]),
        (["x/s1/Aligned.sortedByCoord.out.bam", "x/s2/Aligned.sortedByCoord.out.bam"], ["s1", "s2"]),
        (["s1Aligned.sortedByCoord.out.bam", "s2_Aligned.sortedByCoord.out.bam"], ["s1", "s2"]),
        (["s1.dedup.sorted.bam", "s2.dedup.sorted.bam"], ["s1", "s2"]),
        (["s1.bam", "s1.sorted.bam"], ["s1.bam", "s1.sorted.bam"]),
        (["unsorted.bam", "resort.bam"], ["unsorted", "resort"]),
        (["s1.genes.results", "s2.genes.results"], ["s1", "s2"]),
        (["mg/l", "s1.sorted"], ["mg/l", "s1.sorted"]),
        (["s1", "s1.bam"], ["s1", "s1.bam"]),
    ],
)
def test_columns_lose_path_and_ending_as_long_as_they_differ(columns: list[str], expected: list[str]) -> None:
    assert column_names(columns) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["q/s1_quant/quant.sf", "q/s2_quant/quant.sf"], ["s1", "s2"]),
        (["s1/salmon/quant.sf", "s2/salmon/quant.sf"], ["s1", "s2"]),
        (["run1/s/abundance.tsv", "run2/s/abundance.tsv"], ["run1", "run2"]),
        (["a.ReadsPerGene.out.tab", "bReadsPerGene.out.tab"], ["a", "b"]),
        (["GSM1_WT_htseq_counts.txt.gz", "GSM2_KO_htseq_counts.txt.gz"], ["GSM1_WT", "GSM2_KO"]),
        (["s1/counts.txt", "s2/counts.txt"], ["s1", "s2"]),
        (["x/counts.txt"], ["counts"]),
    ],
)
def test_samples_are_called_after_their_file_or_its_folder(files: list[str], expected: list[str]) -> None:
    assert sample_names(files) == expected


@pytest.mark.parametrize(
    ("kind", "names"),
    {
        "a length": [
            "length",
            "Length",
            "EffectiveLength",
            "eff_length",
            "Gene length (bp)",
            "width",
            "length.s1",
        ],
        "a coordinate": [
            "Start",
            "end",
            "gene_start",
            "Gene start (bp)",
            "txEnd",
            "chrom",
            "strand",
            "tss",
            "exon_number",
        ],
        "a p-value": ["padj", "P.Value", "adj.P.Val", "PValue", "FDR", "p_val_adj", "qvalue", "padj_A_vs_B"],
        "an identifier": ["entrez", "ENTREZID", "Entrez Gene ID", "gene_id", "index"],
        "a column without a name": ["Unnamed: 0"],
        "a statistic of a test": ["baseMean", "lfcSE", "FPKM_conf_lo"],
        None: [
            "WT_1",
            "salt",
            "end_log",
            "full_length_1",
            "IDH1",
            "p53",
            "statin",
            "position5",
            "20",
            "width_mut",
        ],
    }.items(),
)
def test_what_is_no_measurement_is_known_by_its_name(kind: str | None, names: list[str]) -> None:
    assert {name: unlikely_target(name) for name in names} == dict.fromkeys(names, kind)


@pytest.mark.parametrize(
    ("columns", "no_samples"),
    [
        ("trtA trtB AveExpr F P.Value adj.P.Val", "F AveExpr P.Value adj.P.Val"),  # limma, several coefficients
        ("pval qval b se_b mean_obs var_obs smooth_sigma_sq", "pval qval se_b mean_obs var_obs smooth_sigma_sq"),
        ("p_val avg_log2FC pct.1 pct.2 p_val_adj", "p_val pct.1 pct.2 p_val_adj"),  # Seurat
        ("A F t B", ""),
        ("mean sd n", "sd n"),
        ("WT_mean WT_sd KO_mean KO.SEM", "WT_sd KO.SEM"),
        ("WT WT_SD SD YES_N", ""),  # media and nitrogen starvation
    ],
)
def test_what_is_no_measurement_shows_beside_other_columns(columns: str, no_samples: str) -> None:
    assert set(unlikely_targets(columns.split())) == set(no_samples.split())


def test_a_chromosome_column_with_letters_among_numbers_is_no_error(write: Write) -> None:
    expression = read(write("t.tsv", "gene\tchr\tx\ng1\t1\t1\ng2\t2\t2\ng3\tX\t3\n"))
    assert as_lists(expression) == {"": ["g1", "g2", "g3"], "x": [1, 2, 3]}
    assert expression.left_out == ["chr"]
