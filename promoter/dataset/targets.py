"""What targets may be called, what they look like, and which of them look wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from upath import UPath

from promoter.dataset.config import Transform
from promoter.dataset.layouts import Unit
from promoter.errors import InputError, counted, doubt
from promoter.labels import is_visible

# What other outputs add to a target's name; tests/jobs/test_target_names.py holds them against the outputs.
DERIVED_SUFFIXES = (
    *("_predicted", "_predicted_sd", "_low", "_high"),  # predictions.parquet
    *("_prediction", "_prediction_sd", "_scores", "_scores_sd"),  # part files of ISM
    *("_ref", "_alt", "_difference", "_difference_sd"),  # variants.parquet
)
_UNITS = re.compile(r"(?:^|[\W_])(tpm|fpkm|rpkm|cpm|count|abundance)s?(?:$|[\W_])", re.IGNORECASE)
_CODES = (-99, -999, -9999)  # which some programs write for a missing value
_BASELINE = "_predicted_by_"  # baselines.parquet
RESERVED_NAMES = frozenset(
    {
        *("gene_id", "gene_name", "chrom", "tss", "strand", "start", "end", "sequence"),  # promoters.parquet
        *("split", "fold", "group", "weight"),
        *("pos", "ref", "alt", "tss_distance"),  # variants.parquet
    }
)

_UNLIKELY = {
    "a length": r"(.* )?length|length .*|len|width|size|gene size",
    "a coordinate": r"((gene|tx|transcript|exon|chrom|cds|feature) ?)?(start|end|stop|pos(ition)?|tss|tes|strand)"
    r"( ?pos(ition)?)?|chr(om(osome)?)?( scaffold)?( name)?|seq(id| ?names?)|reference|contig|scaffold"
    r"|exons?|exon (count|number)|(num|n) exons?",
    "a p-value": r"(.* )?(p ?adj|adj p|p ?val(ue)?s?|fdr|[qs] ?val(ue)?s?|bonferroni)( .*)?",
    "an identifier": r"(.* )?(id|ids)|.*entrez.*|gene ?id|hgnc|ncbi|tax ?id|index|level 0|row|row ?names?"
    r"|row ?number|rank",
    "a statistic of a test": r"base ?mean|lfc ?se|stat|log ?cpm|ave ?expr|(.* )?(conf|ci) (lo|hi|low|high)",
    "a GC content": r"(.* )?gc( content)?|percent(age)? gc.*",
    "a group": r"cluster|module",
    "a date": r"(.* )?(date|timestamp|datetime)",
    "a column without a name": r"unnamed \d+( level \d+)?",
}


# beside p-values: `t` of limma, `se_b` of sleuth, `pct.1` of Seurat; alone they may be samples
_STATISTIC = re.compile(
    r"[tTFBzZ]|LRT?|W|chisq|df|rss|test_stat|se(_b)?|(mean|var)_obs|tech_var|(smooth_|final_)?sigma_sq(_pmax)?|pct\.[12]|scores?"
)
_SPREAD = re.compile(r"(.*?) ?(sd|se|sem|std|stdev|stderr|cv|var|variance|n)")


def unlikely_target(name: str) -> str | None:
    """Return what a column is by its name, if it is not a measurement: `a length`, `a p-value`; None otherwise."""
    words = re.sub(r" (bp|kb|nt)$", "", _words(name))
    return next((kind for kind, pattern in _UNLIKELY.items() if re.fullmatch(pattern, words)), None)


def unlikely_targets(names: Sequence[str]) -> dict[str, str]:
    """Return what the columns of a table are that are no measurements; the spread beside a mean is none either."""
    kinds = {name: kind for name in names if (kind := unlikely_target(name))}
    if "a p-value" in kinds.values():
        kinds |= {name: "a statistic of a test" for name in names if _STATISTIC.fullmatch(name)}
    means = {_words(name) for name in names}
    for name in names:
        spread = _SPREAD.fullmatch(_words(name))
        if spread and {f"{spread[1]} mean".strip(), f"mean {spread[1]}".strip()} & means:
            kinds.setdefault(name, "a spread")
    return kinds


def _words(name: str) -> str:
    """Return a name as lower-case words: `lfcSE` and `lfc_se` are `lfc se`."""
    return re.sub(r"[^a-z0-9]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()).strip()


def require_target_names(names: Sequence[str]) -> None:
    """Check that no column of an output that is derived from a target can have the name of another column.

    Args:
        names: names of the targets.

    Raises:
        InputError: a name is taken; the message has one to use instead.
    """
    known = Counter(names)
    for name in names:
        if name in RESERVED_NAMES:
            _refuse(name, "is a column of the outputs", names)
        if not name.strip() or not all(map(is_visible, name)):
            what = "has no name" if not name.strip() else "has letters in its name that cannot be seen"
            raise InputError(f"the target {name!r} {what}; rename the column in its table")
        if name.endswith("_predicted") or _BASELINE in name:
            _refuse(name, "is what outputs call a prediction", names)
        bases = (name.removesuffix(suffix) for suffix in DERIVED_SUFFIXES if name.endswith(suffix))
        base = next((base for base in bases if base in known), None)
        if base is not None:
            _refuse(name, f"is what outputs call a column that they derive from the target '{base}'", names)
        if known[name] > 1:
            raise InputError(f"two targets are called '{name}'; rename one of the columns")


def _refuse(name: str, why: str, names: Sequence[str]) -> None:
    plain = name.replace(_BASELINE, "_by_").removesuffix("_predicted") or name
    number = 0
    while (free := f"{plain}_expression{number or ''}") in names:
        number += 1
    raise InputError(f"the target '{name}' {why}; rename the column in its table, to '{free}' say")


@dataclass(frozen=True)
class TargetSummary:
    """Describe the values of a target.

    Attributes:
        name: name of the target.
        n: number of genes with a value.
        missing: number of genes without a value.
        min: smallest value; None if there is none.
        mean: mean value; None if there is none.
        max: largest value; None if there is none.
        zeros: share of the values that are 0; None if there is none. The transforms leave 0 at 0.
    """

    name: str
    n: int
    missing: int
    min: float | None
    mean: float | None
    max: float | None
    zeros: float | None


def describe_targets(values: pd.DataFrame, noun: str = "gene") -> list[TargetSummary]:
    """Describe each target, and warn of those that cannot be learned or are no measurements.

    Args:
        values: a column a target, transformed; NaN where a value is missing.
        noun: what a row is called in messages (default `gene`).

    Returns:
        A summary of each target, in the order of the columns.
    """
    summaries, constant = [], []
    for name, column in values.items():
        known = column.to_numpy(dtype=np.float64)
        known = known[~np.isnan(known)]
        if len(known) == 0:
            summaries.append(TargetSummary(str(name), 0, len(column), None, None, None, None))
            doubt(f"target '{name}' has no value for any {noun}; leave it out with `targets`")
            continue
        low, mean, high = float(known.min()), float(known.mean()), float(known.max())
        zeros = float((known == 0).mean())
        summaries.append(TargetSummary(str(name), len(known), len(column) - len(known), low, mean, high, zeros))
        kind = unlikely_target(str(name))
        if low == high and len(known) > 1:
            constant.append(f"'{name}' is {low:g} for every {noun}")
        elif kind == "a p-value" and not (low >= 0 and high <= 1):
            kind = None  # its logarithm, or a sample with such a name
        if kind is not None:
            doubt(
                f"target '{name}' is called like {kind}, not like expression; choose other columns with `targets`"
            )
    if constant:
        others = f", and so for {counted(len(constant) - 1, 'other')}" if len(constant) > 1 else ""
        doubt(f"target {constant[0]}{others}: nothing to learn; leave it out with `targets`")
    return summaries


def warn_of_values(path: UPath, raw: pd.DataFrame, transform: Transform, unit: Unit | None) -> None:
    """Warn of values that do not go with the transform, or with what the layout says that they are.

    Args:
        path: file that the values are from, for messages.
        raw: a column a sample, before the transform; NaN where a value is missing.
        transform: transform that they get.
        unit: unit of the layout; None if it does not say.
    """
    array = raw.to_numpy()
    known = array[np.isfinite(array)]
    units = dict.fromkeys(found[1] for name in raw.columns if (found := _UNITS.search(str(name))))
    if len(units) > 1:
        doubt(f"{path}: the columns are in several units ({', '.join(units)}); choose those of one with `targets`")
    if len(codes := np.intersect1d(known, _CODES)):
        doubt(f"{path}: has the value {codes[0]:g}; if it stands for a missing one, write NA")
    if not len(known) or unit == "log2 fold change":
        return
    whole, high = bool((known == np.round(known)).all()), f"up to {known.max():g}"
    if transform == "none" and known.min() >= 0 and known.max() > 50:
        what, advice = (
            ("counts", "cpm_log2p1")
            if unit == "counts" or (whole and unit is None)
            else ("TPM or the like", "log2p1")
        )
        doubt(f"{path}: the values look like {what}, not logarithms ({high}); consider `transform={advice!r}`")
    if transform != "none" and unit is None and not whole and known.max() < 30:
        doubt(f"{path}: the values look like logarithms ({high}); if they are, take `transform='none'`")
    totals = raw.sum()
    off = totals[(totals < 5e5) | (totals > 2e6)]
    if unit == "TPM" and len(off):
        others = f" (and of {counted(len(off) - 1, 'other')})" if len(off) > 1 else ""
        doubt(
            f"{path}: the TPM of '{off.index[0]}'{others} add up to {off.iloc[0]:,.0f}, not 1,000,000: are rows "
            "missing, or is it another unit?"
        )
