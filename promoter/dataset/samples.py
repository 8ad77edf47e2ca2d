"""Make targets of samples: means over replicates, and differences between conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from promoter.dataset.layouts import column_names
from promoter.dataset.sheets import read_mapping
from promoter.errors import InputError, counted, note
from promoter.storage import AnyPath

_SAMPLE = r"|samples?|samplenames?|sampleids?|names?|ids?|files?|runs?|library|libraries"
_CONDITION = r"conditions?|groups?|treatments?"


@dataclass(frozen=True)
class Replicates:
    """Describe the samples of a condition.

    Attributes:
        samples: names of the samples.
        sd: standard deviation over the samples after the transform, averaged over the genes that have at least two
            values; None if there are none.
    """

    samples: list[str]
    sd: float | None


def read_replicates(path: AnyPath) -> dict[str, str]:
    """Read the condition of each sample from a sheet.

    Args:
        path: table with the columns `sample` and `condition` and any others, or two columns without a header.

    Returns:
        Sample -> condition, in the order of the sheet.

    Raises:
        InputError: the columns cannot be told, a cell is empty, or a sample has two conditions.
    """
    return read_mapping(
        path,
        "sheet of samples",
        names=("sample", "condition"),
        patterns=(_SAMPLE, _CONDITION),
        only_two=True,
        conflict="sample '{}' has the conditions '{}' and '{}'; give it one",
    )


def match_samples(replicates: Mapping[str, str], samples: Sequence[str]) -> dict[str, str]:
    """Return sample -> condition with the names that the samples have in the table.

    Args:
        replicates: sample -> condition, with the samples as the table has them, or without path and `.bam`.
        samples: names of the samples of the table.

    Raises:
        InputError: the table has no such sample.
    """
    cut = dict(zip(replicates, column_names(list(replicates)), strict=True))
    names = {name: name if name in samples else cut[name] for name in replicates}
    unknown = [name for name in replicates if names[name] not in samples]
    if unknown:
        raise InputError(
            f"`replicates`: the expression table has no sample {unknown[:3]} ({len(unknown)} of {len(names)}), "
            f"it has {', '.join(samples[:6])}; correct the sheet (a header is 'sample' and 'condition')"
        )
    left_out = [name for name in samples if name not in names.values()]
    if left_out:
        shown = ", ".join(left_out[:6])
        note(f"left out, since the sheet of replicates lacks them: {counted(len(left_out), 'sample')}, {shown}")
    return {names[name]: condition for name, condition in replicates.items()}


def average_replicates(
    values: pd.DataFrame, conditions: Mapping[str, str]
) -> tuple[pd.DataFrame, dict[str, Replicates]]:
    """Average samples by condition.

    Args:
        values: transformed values, a column a sample; NaN where a value is missing, which no mean counts.
        conditions: sample -> condition; samples without one are left out.

    Returns:
        A column a condition, and the samples and spread of each.
    """
    means, spread = {}, {}
    for condition in dict.fromkeys(conditions.values()):
        samples = [sample for sample, name in conditions.items() if name == condition]
        of_condition = values[samples]
        sd = of_condition.std(axis=1, ddof=1).mean()  # NaN for genes with less than two values, which mean skips
        means[condition] = of_condition.mean(axis=1)
        spread[condition] = Replicates(samples, None if pd.isna(sd) else float(sd))
    return pd.DataFrame(means, index=values.index), spread


def parse_contrasts(contrast: str | Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of conditions to compare.

    Args:
        contrast: `"A,B"`, `["A,B", "A,C"]`, or the same without commas, `["A", "B", "A", "C"]`.

    Raises:
        InputError: the names do not make pairs of different conditions.
    """
    items = [contrast] if isinstance(contrast, str) else contrast
    names = [name.strip() for item in items for name in item.split(",")]
    pairs = list(zip(names[::2], names[1::2], strict=False))
    if not names or len(names) % 2 or any(a == b or not a or not b for a, b in pairs):
        fix = "name two different conditions as 'A,B', for A minus B; further pairs likewise"
        raise InputError("is no pair", setting="contrast", value=contrast, fix=fix)
    return pairs


def subtract_conditions(values: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Subtract conditions from one another: a column `A_vs_B` is A minus B, NaN where either is.

    Args:
        values: transformed values, a column a condition or sample.
        pairs: names of the columns A and B.

    Raises:
        InputError: there is no such column.
    """
    unknown = [name for pair in pairs for name in pair if name not in values.columns]
    if unknown:
        there = ", ".join(map(str, values.columns[:10]))
        raise InputError(
            "no such condition or sample", setting="contrast", value=unknown[0], fix=f"there are {there}"
        )
    return pd.DataFrame({f"{a}_vs_{b}": values[a] - values[b] for a, b in pairs}, index=values.index)
