"""The section of the report's page that says how many training sequences are enough."""

from __future__ import annotations

from typing import Any

from upath import UPath

from promoter.evaluation.learning_curve import CURVE, NETWORK, describe_gain, read_curve
from promoter.report import charts
from promoter.report.sections import FIX_FILE, PageParts
from promoter.storage.records import require_intact


def training_size_section(run: UPath, target: str, parts: PageParts, *, noun: str) -> dict[str, Any] | None:
    """Return r by the number of training sequences, and chart it with the best baseline; None without a curve."""
    if not (run / CURVE).exists():
        return None
    require_intact(run / CURVE, FIX_FILE)
    curve = read_curve(run / CURVE)
    of_target = curve[curve["target"] == target].rename(columns={"pearson_low": "low", "pearson_high": "high"})
    at_last = of_target[of_target["sequences"] == of_target["sequences"].max()].set_index("model")["pearson"]
    baselines = at_last.drop(NETWORK).dropna()
    drawn = [NETWORK, *([baselines.idxmax()] if len(baselines) else [])]
    names = ["sequences", "model", "pearson", "low", "high"]
    chosen = of_target.loc[of_target["model"].isin(drawn), names]
    shown = chosen.assign(model=chosen["model"].str.replace("_", " "))
    parts.charts["r_by_training_size"] = charts.r_by_training_size(shown, noun)
    known = of_target.groupby("model", sort=False)["pearson"].any()  # that of a constant is undefined
    models = [str(model) for model in known.index[known]]
    rows = [
        {"sequences": size, "of_model": rows.set_index("model").loc[models].to_dict("records")}
        for size, rows in of_target.groupby("sequences")
    ]
    return {
        "rows": rows,
        "models": [model.replace("_", " ") for model in models],
        "sentence": describe_gain(curve, target, noun),
        "n": int(of_target["n"].max()),
    }
