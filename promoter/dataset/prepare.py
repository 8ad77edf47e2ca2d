"""Join a genome, genes and expression into a data set, and count every gene that is left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from promoter.dataset.chromosomes import match_chromosomes, renamed
from promoter.dataset.expression import Expression
from promoter.dataset.gene_names import with_names
from promoter.dataset.genome import Genome, window
from promoter.dataset.promoters import GENE_SCHEMA, RESERVED_NAMES, Promoters
from promoter.errors import InputError

_NOT_CHOSEN = "chromosome not in --chroms"  # a key of summary.json, which scripts may read
_VERSION = re.compile(r"\.\d+$")


@dataclass(frozen=True)
class Summary:
    """Count the genes kept and, by reason, those left out.

    Attributes:
        genes_kept: rows of the data set.
        dropped: reason -> number of annotated genes, or of rows of the expression table, left out for it.
        padded: number of windows that pass a chromosome end and are filled with `N` there.
        renamed_chromosomes: the annotation's spelling -> the FASTA's, for the names that differ.
        examples: reason -> up to three gene ids.
        ignored_columns: columns of the expression table without numbers.
    """

    genes_kept: int
    dropped: dict[str, int]
    padded: int
    renamed_chromosomes: dict[str, str] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    ignored_columns: list[str] = field(default_factory=list)


def prepare(
    genome: Genome,
    genes: pd.DataFrame,
    expression: Expression,
    *,
    upstream: int = 2000,
    downstream: int = 0,
    chroms: Sequence[str] | None = None,
    exclude_chroms: Sequence[str] | None = None,
    ignore_version: bool = False,
) -> tuple[Promoters, Summary]:
    """Extract the promoter of every gene that has a known chromosome and expression values.

    If a gene id occurs twice, the first one on a chromosome to keep is taken. The data set is in the order of the
    annotation and uses the FASTA's chromosome names.

    Args:
        genome: the opened FASTA.
        genes: table of genes, as `annotation.read_genes` returns it.
        expression: expression values, as `expression.read_expression` returns them.
        upstream: number of bases before the TSS (default 2,000).
        downstream: number of bases from the TSS on (default 0).
        chroms: chromosomes to keep, in any spelling; None (default) keeps all.
        exclude_chroms: chromosomes to leave out, in any spelling; None (default) leaves out none.
        ignore_version: whether `ENSG01.5` and `ENSG01` are the same gene (default False).

    Returns:
        The data set, and what was kept and left out.

    Raises:
        InputError: the window is impossible, a chromosome is unknown, or no gene is left.
    """
    require_window(upstream, downstream)
    _require_target_names(expression)
    values, genes = expression.values, genes.copy()
    if ignore_version:
        genes["gene_id"] = genes["gene_id"].str.replace(_VERSION, "", regex=True)
        values = values.set_axis(values.index.str.replace(_VERSION, "", regex=True))
        again = values.index.duplicated()
        values = values[~again]
        expression = replace(expression, values=values, n_duplicates=expression.n_duplicates + int(again.sum()))
    matched = match_chromosomes(genes["chrom"].unique(), genome.lengths)
    reasons = _reasons(genome, genes, values, matched=matched, chroms=chroms, exclude_chroms=exclude_chroms)
    kept = genes[reasons.isna()].copy()
    if kept.empty:
        raise InputError(_nothing_left(genome, genes, values, reasons))
    kept["chrom"] = kept["chrom"].map(matched)
    kept = _cut(genome, kept, upstream, downstream)
    targets = values.loc[kept["gene_id"]].to_numpy(dtype=np.float32)
    metadata: dict[str, Any] = {"window": {"upstream": upstream, "downstream": downstream}}
    promoters = Promoters(with_names(kept)[GENE_SCHEMA.names], targets, list(values.columns), metadata)
    return promoters, _summarise(genome, genes, expression, kept=kept, reasons=reasons, matched=matched)


def require_window(upstream: int, downstream: int) -> None:
    """Check that a window holds at least one base.

    Args:
        upstream: number of bases before the TSS.
        downstream: number of bases from the TSS on.

    Raises:
        InputError: one of them is negative, or both are 0.
    """
    if upstream < 0 or downstream < 0 or upstream + downstream == 0:
        raise InputError(
            f"`upstream={upstream}` `downstream={downstream}`: the window holds no bases; "
            "neither may be negative, and one must be above 0"
        )


class NetworkInput(Protocol):
    """Describe the windows that a pretrained network reads.

    Attributes:
        context: number of bases that the network was trained on.
        step: number of bases; a window's length must be a multiple of it.
    """

    @property
    def context(self) -> int: ...  # noqa: D102 # see the class

    @property
    def step(self) -> int: ...  # noqa: D102 # see the class


def centred_window(window: str, context: int | None, networks: Mapping[str, NetworkInput]) -> tuple[int, int]:
    """Compute the bases before and after the TSS of a window with the TSS in its middle.

    Args:
        window: name of a pretrained network, or an even number of bases.
        context: length of the window in bases, only with a network's name; None takes the length that the network
            was trained on.
        networks: the pretrained networks by name.

    Returns:
        `upstream` and `downstream`, in bases.

    Raises:
        InputError: the name is unknown, or the length is odd or impossible for the network.
    """
    network = networks.get(window)
    if network is None:
        if not window.isdecimal() or int(window) % 2 or int(window) < 2 or context is not None:
            raise InputError(
                f"must be {', '.join(networks)} or an even number of bases",
                setting="window",
                value=window,
                fix="`context` goes with the names",
            )
        return int(window) // 2, int(window) // 2
    length = network.context if context is None else context
    if length % network.step or not 0 < length <= network.context:
        raise InputError(
            f"{window} takes up to {network.context:,} bases, in steps of {network.step}",
            setting="context",
            value=length,
            fix=f"give {min(network.context, max(network.step, round(length / network.step) * network.step))}",
        )
    return length // 2, length // 2


def _require_target_names(expression: Expression) -> None:
    for name in expression.values.columns:
        if name in RESERVED_NAMES or name.endswith("_predicted"):
            raise InputError(
                f"the target column '{name}' of the expression table has a name that the outputs use themselves; "
                "rename the column"
            )


def _reasons(
    genome: Genome,
    genes: pd.DataFrame,
    values: pd.DataFrame,
    *,
    matched: dict[str, str],
    chroms: Sequence[str] | None,
    exclude_chroms: Sequence[str] | None,
) -> pd.Series:
    """Return the first reason to leave out each annotated gene, None for a gene that is kept."""
    reasons = pd.Series([None] * len(genes), index=genes.index, dtype="object")

    def drop(which: pd.Series, reason: str) -> None:
        reasons[which & reasons.isna()] = reason

    on_fasta = genes["chrom"].map(matched)
    drop(on_fasta.isna(), "chromosome not in the FASTA")
    if chroms is not None:
        drop(~on_fasta.isin(_chosen("chroms", chroms, genome, genes)), _NOT_CHOSEN)
    if exclude_chroms is not None:
        drop(on_fasta.isin(_chosen("exclude_chroms", exclude_chroms, genome, genes)), "chromosome excluded")
    outside = on_fasta.notna() & (genes["tss"] >= on_fasta.map(genome.lengths))
    drop(outside, "TSS past the end of its chromosome")
    candidates = genes["gene_id"].where(reasons.isna())  # a gene left out already hides no other
    drop(candidates.duplicated(), "gene id occurred before in the annotation")
    drop(~genes["gene_id"].isin(values.index), "no expression")
    return reasons


def _chosen(setting: str, names: Sequence[str], genome: Genome, genes: pd.DataFrame) -> set[str]:
    """Translate a user's chromosome names into the FASTA's; names known only to the annotation are ignored."""
    matched = match_chromosomes(names, genome.lengths)
    elsewhere = match_chromosomes(names, genes["chrom"].unique())
    unknown = [name for name in names if name not in matched and name not in elsewhere]
    if unknown:
        available = ", ".join(list(genome.lengths)[:20])
        raise InputError(f"not in {genome.path}, which has {available}", setting=setting, value=unknown)
    return set(matched.values())


def _nothing_left(genome: Genome, genes: pd.DataFrame, values: pd.DataFrame, reasons: pd.Series) -> str:
    if not genes["gene_id"].isin(values.index).any():
        return (
            f"no gene of the annotation (ids like {', '.join(genes['gene_id'][:3])}) is in the expression table "
            f"(ids like {', '.join(values.index[:3])}); use the same ids in both: see `attribute`, "
            "`gene_column` and `ignore_version`"
        )
    if (reasons == "chromosome not in the FASTA").all():
        return (
            f"no gene lies on a chromosome of {genome.path}: the annotation has "
            f"{', '.join(genes['chrom'].unique()[:3])}, the FASTA {', '.join(list(genome.lengths)[:3])}; "
            "use files of one assembly"
        )
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.value_counts().items())
    return f"no gene is left ({counts}); loosen `chroms` or `exclude_chroms`"


def _cut(genome: Genome, genes: pd.DataFrame, upstream: int, downstream: int) -> pd.DataFrame:
    windows = [
        window(tss, strand, upstream, downstream)
        for tss, strand in zip(genes["tss"], genes["strand"], strict=True)
    ]
    genes["start"], genes["end"] = (np.array(side, dtype=np.int64) for side in zip(*windows, strict=True))
    # in file order, so that each block of a bgzip FASTA is decompressed once
    ordered = genes.sort_values(["chrom", "start"])
    sequences = [
        genome.promoter(chrom, tss, strand, upstream=upstream, downstream=downstream)
        for chrom, tss, strand in zip(ordered["chrom"], ordered["tss"], ordered["strand"], strict=True)
    ]
    genes["sequence"] = pd.Series(sequences, index=ordered.index, dtype="object")
    return genes


def _summarise(
    genome: Genome,
    genes: pd.DataFrame,
    expression: Expression,
    *,
    kept: pd.DataFrame,
    reasons: pd.Series,
    matched: dict[str, str],
) -> Summary:
    dropped = {str(reason): int(n) for reason, n in reasons.value_counts().items()}
    examples = {reason: genes["gene_id"][reasons == reason][:3].tolist() for reason in dropped}
    unannotated = expression.values.index.difference(pd.Index(genes["gene_id"]), sort=False)
    extra = {
        "expression without an annotated gene": len(unannotated),
        "gene id occurred before in the expression table": expression.n_duplicates,
        "expression value missing": expression.n_missing,
    }
    dropped |= {reason: n for reason, n in extra.items() if n}
    if len(unannotated):
        examples["expression without an annotated gene"] = unannotated[:3].tolist()
    past_end = (kept["start"] < 0) | (kept["end"] > kept["chrom"].map(genome.lengths))
    used = {name: matched[name] for name in genes["chrom"].unique() if name in matched}
    return Summary(len(kept), dropped, int(past_end.sum()), renamed(used), examples, expression.ignored_columns)
