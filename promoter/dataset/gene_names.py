"""Names of genes beside their ids. Imports no pandas, so that the command line does without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promoter.labels import bed_field

if TYPE_CHECKING:
    import pandas as pd


def with_names(genes: pd.DataFrame) -> pd.DataFrame:
    """Return a table of genes that has the column `gene_name`: all missing where it had no names."""
    if "gene_name" not in genes:
        genes = genes.copy()
        genes.insert(list(genes.columns).index("gene_id") + 1, "gene_name", [None] * len(genes))
        genes = genes.astype({"gene_name": "str"})  # as it is read from a file
    return genes


def ids_of(named: Sequence[str], genes: pd.DataFrame) -> list[str]:
    """Return the ids of genes that are given by id or by name; what is neither stays, for the caller to refuse.

    A name that several genes have is neither.
    """
    ids = set(genes["gene_id"])
    names = with_names(genes)[["gene_name", "gene_id"]].dropna().drop_duplicates("gene_name", keep=False)
    id_of_name = dict(names.itertuples(index=False))
    return [gene if gene in ids else id_of_name.get(gene, gene) for gene in named]


def gene_label(gene_id: str, gene_name: object, form: str = "{} ({})") -> str:
    """Return a gene as people are shown it: `SPCC1682.14 (rpl1902)`, or the id alone where it has no other name.

    Args:
        gene_id: id of the gene.
        gene_name: its name; None, NaN or empty where it has none.
        form: how id and name stand together (default: as above).
    """
    named = isinstance(gene_name, str) and gene_name not in ("", gene_id)
    return form.format(gene_id, gene_name) if named else gene_id


def bed_names(genes: pd.DataFrame) -> list[str]:
    """Return `id|name` of each gene, as `gene_labels`, for a field of BED."""
    return [bed_field(label) for label in gene_labels(genes, "{}|{}")]


def gene_labels(genes: pd.DataFrame, form: str = "{} ({})") -> list[str]:
    """Return `gene_label` of each gene of a table with `gene_id` and, where it has names, `gene_name`."""
    genes = with_names(genes)
    return [gene_label(*pair, form) for pair in zip(genes["gene_id"], genes["gene_name"], strict=True)]
