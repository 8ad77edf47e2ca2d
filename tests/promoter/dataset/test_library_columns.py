"""The columns that only a library of sequences has, through promoters.parquet and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from promoter.dataset.promoters import GENE_SCHEMA, Promoters, read_promoters, write_promoters

EMPTY = ("gene_name", "chrom", "tss", "strand", "start", "end")


def library(**columns: list[Any]) -> Promoters:
    genes = pd.DataFrame({"gene_id": ["a", "b", "c"], "sequence": ["ACGT", "TTTT", "GGNA"]})
    for name in EMPTY:
        kind = "Int64" if name in {"tss", "start", "end"} else "object"
        genes[name] = pd.Series([None] * 3, dtype=kind)
    genes = genes[GENE_SCHEMA.names].assign(**columns)
    return Promoters(genes, np.array([[1.0], [2.0], [np.nan]], np.float32), ["activity"], {"window": None})


@pytest.mark.parametrize("names", [(), ("split",), ("group", "weight"), ("split", "group", "weight")])
def test_columns_of_a_library_come_back_and_no_other_is_made(tmp_path: Path, names: tuple[str, ...]) -> None:
    values = {"split": ["train", None, "test"], "group": ["g1", "g1", None], "weight": [1.0, 0.5, 2.0]}
    written = library(**{name: values[name] for name in names})
    write_promoters(tmp_path, written)
    read = read_promoters(tmp_path)
    assert [name for name in read.genes if name not in GENE_SCHEMA.names] == list(names)
    for name in names:
        assert [None if pd.isna(value) else value for value in read.genes[name]] == values[name]
    assert read.genes["chrom"].isna().all()
    assert read.genes["start"].isna().all()
    assert not read.located
    assert read.noun == "sequence"
    assert (read.weights is None) == ("weight" not in names)
    if read.weights is not None:
        assert read.weights.dtype == np.float32
        assert read.weights.tolist() == values["weight"]
