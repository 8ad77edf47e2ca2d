"""Sum the values of transcripts to genes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd
from upath import UPath

from promoter.dataset.sheets import read_mapping
from promoter.errors import InputError, counted, doubt, note
from promoter.storage import AnyPath

_VERSION = re.compile(r"\.\d+$")
_GENCODE = re.compile(r"[^|]+\|([^|]+)\|.*")  # ENST…|ENSG…|…, the names in GENCODE's FASTA of transcripts
_TRANSCRIPT_NAMES = r"(ensembl)?(tx|transcript|target)((stable)?(id|name)(version)?)?|name"
_GENE_NAMES = r"(ensembl|ens)?gene((stable)?(id|name)(version)?)?"


def read_tx2gene(path: AnyPath) -> dict[str, str]:
    """Read which gene each transcript is of, from a table of transcripts and genes.

    Args:
        path: table with the transcripts in its first and the genes in its second column, or with columns named so;
            a header is optional, further columns are ignored.

    Returns:
        Transcript id -> gene id.

    Raises:
        InputError: the file is no such table, or a transcript is of two genes.
    """
    return read_mapping(
        path,
        "table of transcripts and genes",
        names=("transcript", "gene"),
        patterns=(_TRANSCRIPT_NAMES, _GENE_NAMES),
        only_two=False,
        conflict="transcript '{}' is of two genes, {} and {}; the first column must hold the transcripts, the "
        "second the genes",
    )


def gencode_genes(ids: pd.Series) -> pd.Series | None:
    """Return the gene ids in the names that GENCODE gives to transcripts; None if the ids are no such names."""
    genes = ids.str.extract(_GENCODE.pattern, expand=False)
    return None if genes.isna().any() else genes


def sum_transcripts(path: UPath, values: pd.DataFrame, genes: Mapping[str, str]) -> pd.DataFrame:
    """Sum the rows of transcripts to genes; rows that are genes already, or unknown, stay as they are.

    A version, as in `ENST01.2`, is dropped only if the id is unknown with it, and if that makes no two rows and no
    transcripts of different genes equal.

    Args:
        path: file that the values are from, for messages.
        values: linear values, a row a transcript; NaN where a value is missing, which counts as 0 beside others.
        genes: transcript id -> gene id.

    Returns:
        A row a gene, in the order in which genes first occur.
    """
    ids = pd.Series(values.index, dtype="object")
    of_gene = ids.map(genes)
    known_genes = set(genes.values())
    is_gene = ids.isin(known_genes) & of_gene.isna()
    rest = of_gene.isna() & ~is_gene
    plain = ids.str.replace(_VERSION, "", regex=True)
    plain = plain[rest & ~plain.duplicated(keep=False)]  # where numbers tell rows apart they are no versions
    by_version = plain.map(_without_versions(genes)) if len(plain) else plain
    of_gene = of_gene.fillna(by_version)
    n_by_version = int(by_version.notna().sum())
    mapped, unknown = int(of_gene.notna().sum()), ids[of_gene.isna() & ~is_gene]
    if mapped == 0:
        if len(unknown):
            known = f"ids like {', '.join(list(genes)[:3])}" if genes else "there is none"
            doubt(
                f"{path}: no row (ids like {', '.join(ids[:3])}) is a known transcript ({known}), so "
                "rows are taken for genes; if they are not, give `tx2gene`"
            )
        return values
    result = _sum(path, values, of_gene.fillna(ids))
    if len(result) < len(values) or (of_gene.dropna() != ids[of_gene.notna()]).any():
        versions = f" ({n_by_version:,} without their version)" if n_by_version else ""
        note(f"{path}: {counted(mapped, 'transcript')}{versions} summed to {counted(of_gene.nunique(), 'gene')}")
    if len(unknown):
        doubt(
            f"{path}: {counted(len(unknown), 'row')} neither of a known transcript nor of a gene, with ids like "
            f"{', '.join(unknown[:3])}; they are taken for genes: see `tx2gene`"
        )
    return result


def sum_rows(path: UPath, values: pd.DataFrame, genes: pd.Series) -> pd.DataFrame:
    """Sum rows by the gene that the table itself names for each.

    Args:
        path: file that the values are from, for messages.
        values: linear values; NaN where a value is missing.
        genes: gene of each row.
    """
    result = _sum(path, values, genes)
    if len(result) < len(values):
        note(f"{path}: {counted(len(values), 'row')} summed to {counted(len(result), 'gene')}")
    return result


def _sum(path: UPath, values: pd.DataFrame, genes: pd.Series) -> pd.DataFrame:
    result = values.groupby(genes.to_numpy(), sort=False).sum(min_count=1)
    if len(result) < len(values) and (values.to_numpy() < 0).any():
        raise InputError(
            f"{path}: has several rows for a gene but negative values, which cannot be summed if they are "
            "logarithms; give a table with a row a gene"
        )
    return result


def _without_versions(genes: Mapping[str, str]) -> dict[str, str | None]:
    """Return the gene of each transcript without its version; None where that leaves the gene open."""
    unversioned: dict[str, str | None] = {}
    for transcript, gene in genes.items():
        plain = _VERSION.sub("", transcript)
        unversioned[plain] = gene if unversioned.get(plain, gene) == gene else None
    return unversioned
