from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from promoter.checkpoint import ModelInfo
from promoter.dataset.promoters import Promoters, read_promoters
from promoter.errors import InputError
from promoter.evaluation.predictions import predictions_table, require_fitting, write_predictions

INFO = ModelInfo(
    targets=["basal", "salt response"],
    window={"upstream": 6, "downstream": 2, "length": 8},
    split={"train": ["chr1", "chr2"], "val": ["chr3"], "test": ["chrX"]},
)
CHROMS = ["chrX", "chr1", "chr9", "chr3", "chr1"]
PREDICTED = np.arange(10, dtype=np.float32).reshape(5, 2) / 3


def promoters(
    targets: dict[str, list[float]], chroms: list[str] = CHROMS, length: int = 8, window: Any = None
) -> Promoters:
    n = len(chroms)
    genes = pd.DataFrame(
        {
            "gene_id": [f"g{n - row}" for row in range(n)],  # not in alphabetical order
            "chrom": chroms,
            "tss": 100,
            "strand": "+",
            "start": 94,
            "end": 94 + length,
            "sequence": "A" * length,
        },
        index=pd.Index(range(10, 10 + n)),  # as after a selection
    )
    values = np.array(list(targets.values()), np.float32).reshape(len(targets), n).T
    return Promoters(genes, values, list(targets), {"window": window})


def test_predictions_have_a_row_a_gene_in_the_order_of_the_data_with_split_and_values() -> None:
    data = promoters({"salt response": [1, 2, np.nan, 4, 5], "unused": [0, 0, 0, 0, 0]})
    table = predictions_table(data, INFO, PREDICTED)
    names = ["basal", "basal_predicted", "salt response", "salt response_predicted"]
    assert table.columns.tolist() == ["gene_id", "gene_name", "chrom", "split", *names]
    assert table["gene_id"].tolist() == ["g5", "g4", "g3", "g2", "g1"]
    assert table["chrom"].tolist() == CHROMS
    assert table["split"].isna().tolist() == [False, False, True, False, False]
    assert table["split"].dropna().tolist() == ["test", "train", "val", "train"]
    assert table["basal"].isna().all()  # not in the data
    np.testing.assert_array_equal(table["salt response"], [1, 2, np.nan, 4, 5])
    np.testing.assert_array_equal(table[["basal_predicted", "salt response_predicted"]], PREDICTED)


def test_predictions_find_splits_across_spellings_of_chromosomes() -> None:
    data = promoters({}, chroms=["X", "1", "9", "3", "2"])
    split = predictions_table(data, INFO, PREDICTED)["split"]
    assert split.where(split.notna(), None).tolist() == ["test", "train", None, "val", "train"]


def test_sequences_of_a_FASTA_have_neither_split_nor_observed_values(tmp_path: Path) -> None:
    (tmp_path / "s.fa").write_text(">b\nACGTACGT\n>a\nNNNNacgt\n")
    data = read_promoters(tmp_path / "s.fa")
    require_fitting(data, INFO)
    table = predictions_table(data, INFO, PREDICTED[:2])
    assert table["gene_id"].tolist() == ["b", "a"]
    assert table[["chrom", "split", *INFO.targets]].isna().all().all()
    write_predictions(tmp_path / "p.parquet", table)
    assert pq.read_table(tmp_path / "p.parquet")["split"].to_pylist() == [None, None]


def test_predictions_parquet_has_strings_float32_and_nothing_else(tmp_path: Path) -> None:
    table = predictions_table(promoters({"basal": [1, 2, np.nan, 4, 5]}), INFO, PREDICTED)
    write_predictions(tmp_path / "new" / "p.parquet", table)
    found = pq.read_table(tmp_path / "new" / "p.parquet")
    assert {field.name: str(field.type) for field in found.schema} == {
        name: "string" if name in ("gene_id", "gene_name", "chrom", "split") else "float" for name in table.columns
    }
    assert found["split"].to_pylist() == table.pop("split").tolist()
    pd.testing.assert_frame_equal(found.drop_columns("split").to_pandas(), table, check_dtype=False)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.parquet"]


@pytest.mark.parametrize("length", [7, 9, 2000])
def test_windows_of_another_length_are_refused_with_both_numbers(length: int) -> None:
    with pytest.raises(InputError) as error:
        require_fitting(promoters({}, length=length), INFO)
    assert f"windows of {length} bases, the model was trained on 8;" in str(error.value)
    assert "`upstream` and `downstream` (6 and 2)" in str(error.value)


@pytest.mark.parametrize(("upstream", "named"), [(8, "`upstream=6`"), (5, "`upstream=6`")])
def test_windows_cut_elsewhere_are_refused_though_as_long(upstream: int, named: str) -> None:
    data = promoters({}, window={"upstream": upstream, "downstream": 8 - upstream})
    with pytest.raises(InputError, match=f"{upstream} bases upstream of the TSS, .* trained on 6; .*{named}"):
        require_fitting(data, INFO)


@pytest.mark.parametrize("window", [None, {"upstream": 6, "downstream": 2}])
def test_windows_that_fit_the_model_pass(window: dict[str, int] | None) -> None:
    require_fitting(promoters({}, window=window), INFO)


def test_a_model_of_unknown_window_takes_any_of_its_length() -> None:
    info = ModelInfo(["basal"], {"upstream": None, "downstream": None, "length": 8})
    require_fitting(promoters({}, window={"upstream": 1, "downstream": 7}), info)
    with pytest.raises(InputError, match=r"windows of 9 bases, .* on 8; give sequences of 8 bases$"):
        require_fitting(promoters({}, length=9), info)
