"""The section of the report's page that compares attributions with the scores that are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from promoter import storage
from promoter.checkpoint import SerializedModel
from promoter.errors import InputError
from promoter.ism.agreement import agreement
from promoter.ism.store import load_contents
from promoter.report import charts
from promoter.report.genes import ChosenGenes, require_scores_of
from promoter.report.sections import PageParts
from promoter.storage import AnyPath

_QUANTILES = {"low": 0.05, "first": 0.25, "median": 0.5, "third": 0.75, "high": 0.95}


def agreement_section(
    chosen: ChosenGenes | None,
    folders: Sequence[AnyPath],
    members: Sequence[SerializedModel],
    parts: PageParts,
) -> dict[str, Any] | None:
    """Return how far the contributions of other folders agree with those drawn, and chart it; None without any.

    Args:
        chosen: the folder of the scores that are drawn, and their target; None where there is none.
        folders: folders of attributions.
        members: the networks of the page, which the attributions must be of.
        parts: charts of the page, to which one is added.

    Raises:
        InputError: the attributions are of another model or other genes, or there are no scores to compare with.
    """
    if not folders:
        return None
    if chosen is None:
        raise InputError(
            "are compared with `scores`", setting="attributions", fix="make some with ism or attribute"
        )
    tables = []
    for folder in folders:
        require_scores_of(storage.resolve(folder), members)
        method = load_contents(folder).method_name
        if tables and method in tables[-1]["method"].unique():
            method = f"{method} ({storage.resolve(folder).name})"
        tables.append(agreement(chosen.folder, folder, chosen.target).assign(method=method))
    table = pd.concat(tables, ignore_index=True)
    known = table.dropna()
    if len(known):
        parts.charts["agreement"] = charts.agreement(known)
    rows = [
        {
            "method": method,
            "genes": int(of_method["pearson"].notna().sum()),
            **{name: of_method["pearson"].quantile(share) for name, share in _QUANTILES.items()},
        }
        for method, of_method in table.groupby("method", sort=False)
    ]
    of_gene = {
        gene: list(of_method[["method", "pearson"]].itertuples(index=False, name=None))
        for gene, of_method in table.groupby("gene_id")
    }
    return {"with": chosen.contents.method_name, "rows": rows, "of_gene": of_gene, "drawn": len(known) > 0}
