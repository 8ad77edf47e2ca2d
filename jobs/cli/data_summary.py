"""Print what `prepare` has kept and left out, and what the targets look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from jobs.cli.console import console, new_table, plural
from promoter.errors import listed

if TYPE_CHECKING:
    from promoter.dataset.library import LibrarySummary
    from promoter.dataset.prepare import Summary
    from promoter.dataset.targets import TargetSummary

_MAX_TARGETS_SHOWN = 20


def show_genes(summary: Summary, length: int, transform: str) -> None:
    """Print the summary of a data set of genes.

    Args:
        summary: what was kept and left out.
        length: number of bases of each window.
        transform: transform of the targets.
    """
    _show_counts(summary, "genes kept", f"of them with N where the {length:,} bases pass a chromosome end")
    _show_composition(summary)
    if summary.renamed_chromosomes:
        pairs = [f"{name} → {other}" for name, other in summary.renamed_chromosomes.items()]
        console.print(f"chromosome names mapped to the FASTA's: {listed(pairs, 3)}")
    _show_columns_left_out(summary)
    _show_targets(summary.targets, "genes")
    console.print(f"layout of the table: {summary.layout}; transform: {transform}")
    for condition, replicates in summary.replicates.items():
        spread = "" if replicates.sd is None else f", spread {replicates.sd:.3g} (mean SD)"
        console.print(f"{condition}: mean of {plural(len(replicates.samples), 'sample')}{spread}")


def show_library(summary: LibrarySummary, transform: str) -> None:
    """Print the summary of a data set made of a table of sequences.

    Args:
        summary: what was kept and left out.
        transform: transform of the targets.
    """
    _show_counts(summary, f"sequences of {summary.length:,} bases", "of them padded with N")
    _show_composition(summary)
    roles = [f"{role} from {name}" for role, name in summary.columns.items()]
    console.print(f"columns: {', '.join(roles)}")
    _show_columns_left_out(summary)
    if summary.splits:
        sizes = [f"{n:,} {'in no set' if name == 'none' else name}" for name, n in summary.splits.items()]
        console.print(f"sets: {', '.join(sizes)}")
    if summary.groups is not None:
        console.print(f"groups: {summary.groups:,}")
    _show_targets(summary.targets, "sequences")
    console.print(f"transform: {transform}")


def _show_counts(summary: Summary, kept: str, padded: str) -> None:
    counts = Table(box=None, pad_edge=False, show_header=False)
    counts.add_column(justify="right")
    counts.add_column()
    counts.add_column(style="dim")
    counts.add_row(f"{summary.genes_kept:,}", kept, "")
    if summary.padded:
        counts.add_row(f"{summary.padded:,}", padded, "")
    for reason, count in summary.dropped.items():
        examples = summary.examples.get(reason, [])
        more = [] if len(examples) < 3 or count == 3 else ["…"]
        counts.add_row(f"{count:,}", f"left out: {reason}", ", ".join([*examples, *more]))
    console.print(counts)


def _show_composition(summary: Summary) -> None:
    gc = "–" if summary.gc is None else f"{summary.gc:.1%}"
    console.print(f"GC {gc}, N {summary.n:.2%} of all bases")


def _show_columns_left_out(summary: Summary) -> None:
    for columns, what in (
        (summary.ignored_columns, "without numbers"),
        (summary.left_out_columns, "that are no targets"),
    ):
        if columns:
            console.print(f"columns {what} passed over: {listed(columns, 5)}")


def _show_targets(targets: Sequence[TargetSummary], rows: str) -> None:
    columns = ("target", rows, "missing", "min", "mean", "max", "zeros")
    table = new_table(*columns, right=set(columns[1:]))
    for target in targets[:_MAX_TARGETS_SHOWN]:
        numbers: list[Any] = [target.min, target.mean, target.max]
        shown = ["–" if value is None else f"{value:.4g}" for value in numbers]
        zeros = "–" if target.zeros is None else f"{target.zeros:.1%}"
        table.add_row(target.name, f"{target.n:,}", f"{target.missing:,}", *shown, zeros)
    if len(targets) > _MAX_TARGETS_SHOWN:
        table.caption = f"and {len(targets) - _MAX_TARGETS_SHOWN} more targets, in summary.json"
    console.print(table)
