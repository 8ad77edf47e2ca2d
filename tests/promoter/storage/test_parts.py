"""Part files of earlier versions, which are read as those of today."""

from __future__ import annotations

import pyarrow as pa

from promoter.storage.parts import with_gene_names


def test_rows_of_an_earlier_version_get_a_column_of_names() -> None:
    old = pa.table({"chrom": ["1"], "gene_id": ["g"], "x": [2.0]})
    new = with_gene_names(old)
    assert new.column_names == ["chrom", "gene_id", "gene_name", "x"]
    assert new.to_pylist() == [{"chrom": "1", "gene_id": "g", "gene_name": None, "x": 2.0}]
    assert with_gene_names(new) is new
