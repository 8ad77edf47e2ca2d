"""Join a genome, genes and expression into a data set, and count every gene that is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from promoter.dataset.chromosomes import (
    Aliases,
    describe_unmatched,
    match_chromosomes,
    renamed,
    require_overlap,
)
from promoter.dataset.expression import Expression
from promoter.dataset.gene_names import with_names
from promoter.dataset.genome import Genome, window
from promoter.dataset.identifiers import match_ids
from promoter.dataset.promoters import GENE_SCHEMA, Promoters
from promoter.dataset.samples import Replicates
from promoter.dataset.targets import TargetSummary, describe_targets, require_target_names
from promoter.errors import InputError, doubt
from promoter.limits import require_limits
from promoter.sequence import BASES

_NOT_CHOSEN = "chromosome not in --chroms"  # a key of summary.json, which scripts may read
_EXCLUDED = "chromosome excluded"
_UNKNOWN_CHROM = "chromosome not in the FASTA"
_NO_EXPRESSION = "no expression"
_UNANNOTATED = "expression without an annotated gene"
_NO_VALUE = "expression value missing"


@dataclass(frozen=True)
class Summary:
    """Count the genes kept and, by reason, those left out, and describe what was kept.

    Attributes:
        genes_kept: rows of the data set.
        dropped: reason -> number of annotated genes, or of rows of the expression table, left out for it.
        padded: number of windows that pass a chromosome end and are filled with `N` there.
        renamed_chromosomes: the annotation's spelling -> the FASTA's, for the names that differ.
        examples: reason -> up to three gene ids, or chromosomes with numbers of genes.
        ignored_columns: columns of the expression table without numbers.
        left_out_columns: columns of numbers that are no targets: lengths, coordinates, p-values, identifiers.
        layout: layout of the expression table.
        targets: what each target looks like.
        replicates: condition -> its samples and their spread; empty without a sheet of replicates.
        gc: share of G and C among the known bases of all windows; None if there is none.
        n: share of N among all bases of the windows.
    """

    genes_kept: int
    dropped: dict[str, int]
    padded: int
    renamed_chromosomes: dict[str, str] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    ignored_columns: list[str] = field(default_factory=list)
    left_out_columns: list[str] = field(default_factory=list)
    layout: str = "plain"
    targets: list[TargetSummary] = field(default_factory=list)
    replicates: dict[str, Replicates] = field(default_factory=dict)
    gc: float | None = None
    n: float = 0.0


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
    chrom_names: Aliases | None = None,
    max_n: float = 0.5,
    allow_loss: bool = False,
    annotation: str = "the annotation",
) -> tuple[Promoters, Summary]:
    """Extract the promoter of every gene that has a known chromosome and expression values.

    If a gene id occurs twice, the first one on a chromosome to keep is taken. The data set is in the order of the
    annotation and uses the FASTA's chromosome names and the gene ids of the expression table.

    Args:
        genome: the opened FASTA.
        genes: table of genes, as `annotation.read_genes` returns it.
        expression: expression values, as `expression.read_expression` returns them.
        upstream: number of bases before the TSS (default 2,000).
        downstream: number of bases from the TSS on (default 0).
        chroms: chromosomes to keep, in any spelling; None (default) keeps all.
        exclude_chroms: chromosomes to leave out, in any spelling; None (default) leaves out none.
        ignore_version: whether `ENSG01.5` and `ENSG01` are the same gene (default False).
        chrom_names: names of each chromosome in several files, as `aliases.read_chrom_names` returns them; None
            (default) matches by spelling alone.
        max_n: largest share of a window that may be N, from 0 to 1 (default 0.5).
        allow_loss: whether more than half of the genes may be left out for one reason (default False).
        annotation: name of the annotation's file, for messages.

    Returns:
        The data set, and what was kept and left out.

    Raises:
        InputError: the window is impossible, a chromosome is unknown, more than half of the genes are lost for one
            reason, or no gene is left.
    """
    require_window(upstream, downstream)
    require_limits({"max_n": max_n})
    values = expression.values
    require_target_names([str(name) for name in values.columns])
    genes = with_names(genes)
    measured = values.index.append(pd.Index(expression.without_value))
    across = genes["gene_id"][genes["gene_id"].isin(values.columns)].unique()
    if len(across) and not genes["gene_id"].isin(measured).any():
        raise InputError(
            f"the expression table has genes ({', '.join(across[:3])}) for its columns, and rows like "
            f"{', '.join(measured[:3])}; transpose it, so that each gene is a row"
        )
    ids = match_ids(genes["gene_id"], measured, names=genes["gene_name"], ignore_version=ignore_version)
    names = genes["gene_name"].fillna(ids.map(expression.gene_names))
    genes = genes.assign(gene_id=ids, gene_name=names.where(names != ids))
    matched = match_chromosomes(genes["chrom"].unique(), genome.lengths, chrom_names)
    on_chrom = Counter(genes["chrom"])
    files = {"genes_file": annotation, "genome": str(genome.path)}
    if not allow_loss:
        require_overlap(on_chrom, matched, genome.lengths, **files)
    if lost := describe_unmatched(on_chrom, matched, genome.lengths, **files):
        doubt(lost)
    reasons = _reasons(genome, genes, expression, matched=matched, chroms=chroms, exclude_chroms=exclude_chroms)
    kept = genes[reasons.isna()].assign(chrom=lambda table: table["chrom"].map(matched))
    bases = count_bases([])
    if len(kept):
        kept = _cut(genome, kept, upstream, downstream)
        bases = count_bases(kept["sequence"])
        share_n = 1 - pd.Series(bases.sum(axis=1) / (upstream + downstream), kept.index)
        reasons.loc[share_n.index[share_n > max_n]] = f"more than {max_n:.0%} of the window is N"
        kept, bases = kept[share_n <= max_n], bases[share_n <= max_n]
    _require_kept(genes, values, reasons, allow_loss=allow_loss)
    targets = values.loc[kept["gene_id"]]
    metadata: dict[str, Any] = {"window": {"upstream": upstream, "downstream": downstream}}
    promoters = Promoters(
        kept[GENE_SCHEMA.names], targets.to_numpy(dtype=np.float32), list(values.columns), metadata
    )
    return promoters, _summarise(
        genome, genes, expression, promoters, reasons=reasons, matched=matched, bases=bases.sum(axis=0)
    )


def require_window(upstream: int, downstream: int) -> None:
    """Check that a window holds at least one base.

    Args:
        upstream: number of bases before the TSS.
        downstream: number of bases from the TSS on.

    Raises:
        InputError: one of them is negative or too large, or both are 0.
    """
    require_limits({"upstream": upstream, "downstream": downstream})
    if upstream + downstream == 0:
        raise InputError(
            f"`upstream={upstream}` `downstream={downstream}`: the window holds no bases; one must be above 0"
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
        is_even = window.isdecimal() and window[-1] in "02468" and window.strip("0") != ""
        if not is_even or context is not None:
            raise InputError(
                f"must be {', '.join(networks)} or an even number of bases",
                setting="window",
                value=window,
                fix="`context` goes with the names",
            )
        length = int(window[:20])  # more digits are beyond the limit too, and beyond what Python reads
        require_limits({"window": length})
        return length // 2, length // 2
    length = network.context if context is None else context
    if length % network.step or not 0 < length <= network.context:
        raise InputError(
            f"{window} takes up to {network.context:,} bases, in steps of {network.step}",
            setting="context",
            value=length,
            fix=f"give {min(network.context, max(network.step, round(length / network.step) * network.step))}",
        )
    return length // 2, length // 2


def _reasons(
    genome: Genome,
    genes: pd.DataFrame,
    expression: Expression,
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
    files = {"genome": genome, "genes": genes, "matched": matched}
    drop(on_fasta.isna(), _UNKNOWN_CHROM)
    if chroms is not None:
        drop(~on_fasta.isin(_chosen("chroms", chroms, **files)), _NOT_CHOSEN)
    if exclude_chroms is not None:
        drop(on_fasta.isin(_chosen("exclude_chroms", exclude_chroms, **files)), _EXCLUDED)
    outside = on_fasta.notna() & (genes["tss"] >= on_fasta.map(genome.lengths))
    drop(outside, "TSS past the end of its chromosome")
    candidates = genes["gene_id"].where(reasons.isna())  # a gene left out already hides no other
    drop(candidates.duplicated(), "gene id occurred before in the annotation")
    drop(genes["gene_id"].isin(expression.without_value), _NO_VALUE)
    drop(~genes["gene_id"].isin(expression.values.index), _NO_EXPRESSION)
    return reasons


def _chosen(
    setting: str, names: Sequence[str], *, genome: Genome, genes: pd.DataFrame, matched: Mapping[str, str]
) -> set[str]:
    """Translate a user's chromosome names into the FASTA's; names known only to the annotation are ignored."""
    on_fasta = match_chromosomes(names, genome.lengths)
    annotated = match_chromosomes(names, genes["chrom"].unique())
    unknown = [name for name in names if name not in on_fasta and name not in annotated]
    if unknown:
        available = ", ".join(list(genome.lengths)[:20])
        raise InputError(f"not in {genome.path}, which has {available}", setting=setting, value=unknown)
    through_annotation = {matched[other] for other in annotated.values() if other in matched}
    return set(on_fasta.values()) | through_annotation


def _require_kept(genes: pd.DataFrame, values: pd.DataFrame, reasons: pd.Series, *, allow_loss: bool) -> None:
    """Raise InputError if no gene is left, or one reason that nobody chose has cost more than half of them."""
    counts = reasons.value_counts()
    if reasons.notna().all():
        listed = ", ".join(f"{n} {reason}" for reason, n in counts.items())
        raise InputError(f"no gene is left ({listed}); loosen `chroms`, `exclude_chroms` or `max_n`")
    if allow_loss:
        return
    asked_for = genes[~reasons.isin([_NOT_CHOSEN, _EXCLUDED])]
    # of two files, one may hold more genes than the other on purpose; then the smaller one is all there
    both = asked_for["gene_id"].isin(values.index).sum()
    smaller = min(asked_for["gene_id"].nunique(), len(values))
    if 2 * both < smaller:
        raise InputError(
            f"only {both:,} genes are in both the annotation (ids like {', '.join(asked_for['gene_id'][:3])}) and "
            f"the expression table (ids like {', '.join(map(str, values.index[:3]))}), of {len(asked_for):,} and "
            f"{len(values):,}; see `attribute`, `feature` and `gene_map`, or set `allow_loss=True`"
        )
    for reason, n in counts.items():
        if reason not in (_NOT_CHOSEN, _EXCLUDED, _NO_EXPRESSION) and 2 * n > len(asked_for):
            raise InputError(
                f"{n:,} of {len(asked_for):,} genes would be left out for one reason: {reason}; fix the files, "
                "or set `allow_loss=True` if that is meant"
            )


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
    promoters: Promoters,
    *,
    reasons: pd.Series,
    matched: dict[str, str],
    bases: np.ndarray,
) -> Summary:
    kept = promoters.genes
    dropped = {str(reason): int(n) for reason, n in reasons.value_counts().items()}
    examples = {reason: genes["gene_id"][reasons == reason][:3].tolist() for reason in dropped}
    if _UNKNOWN_CHROM in dropped:
        lost = genes["chrom"][reasons == _UNKNOWN_CHROM].value_counts()
        examples[_UNKNOWN_CHROM] = [f"{chrom} ({n:,})" for chrom, n in lost[:3].items()]
    unannotated = expression.values.index.difference(pd.Index(genes["gene_id"]), sort=False)
    extra = {
        _UNANNOTATED: len(unannotated),
        "gene id occurred before in the expression table": expression.n_duplicates,
    }
    dropped |= {reason: n for reason, n in extra.items() if n}
    if len(unannotated):
        examples[_UNANNOTATED] = unannotated[:3].tolist()
        if 2 * len(unannotated) > len(expression.values):
            doubt(
                f"{len(unannotated):,} of {len(expression.values):,} genes of the expression table are not in the "
                f"annotation (such as {', '.join(examples[_UNANNOTATED])}); see `feature`, `biotype`, `attribute`"
            )
    past_end = (kept["start"] < 0) | (kept["end"] > kept["chrom"].map(genome.lengths))
    used = {name: matched[name] for name in genes["chrom"].unique() if name in matched}
    return Summary(
        len(kept),
        dropped,
        int(past_end.sum()),
        renamed(used),
        examples,
        expression.ignored_columns,
        expression.left_out,
        expression.layout,
        describe_targets(pd.DataFrame(promoters.targets, columns=promoters.target_names)),
        expression.replicates,
        *composition(bases, len(kept) * promoters.length),
    )


def count_bases(sequences: Iterable[str]) -> np.ndarray:
    """Count A, C, G and T of each sequence, (sequences, 4); all other letters are N."""
    counts = [[sequence.count(base) for base in BASES] for sequence in sequences]
    return np.array(counts, dtype=np.int64).reshape(-1, len(BASES))


def composition(bases: np.ndarray, total: int) -> tuple[float | None, float]:
    """Return the share of G and C among the known bases, None if there is none, and the share of N among all.

    Args:
        bases: number of A, C, G and T.
        total: number of all bases, at least 1.
    """
    g_and_c = float(bases[[BASES.index("G"), BASES.index("C")]].sum())
    return (g_and_c / float(bases.sum()) if bases.any() else None), float(1 - bases.sum() / total)
