"""No target can have the name of another column: the columns are those that the writers themselves make."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.training.folds import _fold_table
from promoter import storage
from promoter.checkpoint import ModelInfo
from promoter.dataset.promoters import Promoters, read_promoters, without_coordinates, write_promoters
from promoter.dataset.targets import DERIVED_SUFFIXES, RESERVED_NAMES, require_target_names
from promoter.errors import InputError
from promoter.evaluation.evaluate import evaluate
from promoter.evaluation.intervals import add_intervals
from promoter.evaluation.predictions import (
    baselines_table,
    predictions_table,
    separate_baselines,
    write_predictions,
)
from promoter.ism import Scores
from promoter.ism.store import write_part
from promoter.variants.effects import effects_to_table
from promoter.variants.windows import TssWindow

ROOT = Path(__file__).parents[2]
TABLE_WRITERS = {"write_table", "write_tables"}
# every function that writes a Parquet table; those without a column a target are not run below
WRITERS = {
    "write_promoters": True,
    "write_predictions": True,
    "write_batches": True,  # by write_part
    "write_table": False,  # by write_tables
    "predict_effects": True,  # by effects_to_table
    "_embed_part": False,
}
SENTINELS = ["@1", "@2"]


def callers_of_write_table() -> Iterator[str]:
    for path in [*ROOT.glob("promoter/**/*.py"), *ROOT.glob("jobs/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
                yield from (
                    node.name for call in calls if ast.unparse(call.func).removeprefix("storage.") in TABLE_WRITERS
                )


def test_every_writer_of_tables_is_known_here() -> None:
    assert set(callers_of_write_table()) == set(WRITERS)


def columns_of_outputs(folder: Path, targets: list[str]) -> dict[str, list[str]]:
    """Return the columns of each table with a column a target, as it is written for an ensemble of two folds."""
    n, size = 3, len(targets)
    genes = without_coordinates(
        pd.DataFrame({"gene_id": list("ghi"), "sequence": "ACGT", "split": "test", "group": "x", "weight": 1.0})
    )
    located = genes.assign(chrom="1", tss=9, strand="+", start=5, end=9).drop(columns=["split", "group", "weight"])
    values = np.arange(n * size, dtype=np.float32).reshape(n, size)
    info = ModelInfo(
        targets, {"upstream": 4, "downstream": 0, "length": 4}, split={"train": [], "val": [], "test": ["1"]}
    )
    data = Promoters(located, values, targets, {})
    write_promoters(folder / "data", Promoters(genes, values, targets, {}))
    predicted = predictions_table(data, info, values, spread=values, half_width=values)
    write_predictions(folder / "ensemble.parquet", predicted)
    folders = [storage.resolve(folder / name) for name in ("one", "two")]
    for run in folders:
        table = predictions_table(data, info, values)
        write_predictions(run / "predictions.parquet", table)
        write_predictions(run / "baselines.parquet", baselines_table(table, targets, {"kmers": values}))
    folds = _fold_table(folders, targets, fold=1, baselines=True, only_test=True)
    joined, _ = separate_baselines(folds, targets)
    write_predictions(folder / "folds.parquet", add_intervals(joined, targets, folds=1))
    scores = np.ones((n, size, 4, 4), np.float32)
    write_part(folder / "part.parquet", Scores(located, targets, values, scores, values, scores), {})
    alleles = {"gene": [0], "pos": [6], "ref": ["A"], "alt": ["C"], "start": [5], "end": [6], "new": [b"C"]}
    members = np.ones((2, 1, size))
    effects = effects_to_table(
        located, pd.DataFrame(alleles), targets=targets, reference=members, difference=members,
        windows=[TssWindow(9, "+", 4, 0)] * n,
    )  # fmt: skip
    files = ["data/promoters", "ensemble", "one/predictions", "one/baselines", "folds", "part"]
    columns = {name: pq.read_schema(folder / f"{name}.parquet").names for name in files}
    return columns | {"folds with baselines": list(folds.columns), "effects": effects.column_names}


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return columns_of_outputs(tmp_path_factory.mktemp("outputs"), SENTINELS)


@pytest.fixture(scope="module")
def fixed(columns: dict[str, list[str]]) -> set[str]:
    """Return the columns that are no target's."""
    return {name for names in columns.values() for name in names if not name.startswith("@")}


@pytest.fixture(scope="module")
def suffixes(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return what each table adds to the name of a target, the empty text for the target itself."""
    return {
        table: [name.removeprefix("@1") for name in names if name.startswith("@1")]
        for table, names in columns.items()
    }


def test_every_table_has_a_column_of_each_target_and_none_twice(columns: dict[str, list[str]]) -> None:
    for names in columns.values():
        assert len(set(names)) == len(names)
        assert any(name.startswith("@1") for name in names)
        assert [name.replace("@1", "@2") for name in names if "@1" in name] == [
            name for name in names if "@2" in name
        ]


def test_fixed_columns_are_reserved(fixed: set[str]) -> None:
    assert fixed <= RESERVED_NAMES
    for name in fixed:
        with pytest.raises(InputError, match=f"the target '{name}' is a column of the outputs"):
            require_target_names(["a", name])


def test_no_accepted_pair_of_targets_gives_two_columns_one_name(
    fixed: set[str], suffixes: dict[str, list[str]]
) -> None:
    written = {suffix for of_table in suffixes.values() for suffix in of_table}
    assert written == {"", "_predicted_by_kmers", *DERIVED_SUFFIXES}
    added = sorted(written | {"_sd", "_by_kmers", "_by_"})
    candidates = sorted({f"a{first}{second}" for first, second in itertools.product(added, added)})
    accepted = collided = 0
    for pair in itertools.combinations(candidates, 2):
        columns = [*fixed, *(f"{target}{suffix}" for target in pair for suffix in written)]
        is_free = len(set(columns)) == len(columns)
        try:
            require_target_names(pair)
        except InputError:
            collided += 1
        else:
            accepted += 1
            assert is_free, pair
    assert accepted > 100
    assert collided > 100


def test_metrics_have_no_key_beside_the_targets() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"gene_id": map(str, range(60)), "split": ["train", "val", "test"] * 20})
    for target in SENTINELS:
        table[target], table[f"{target}_predicted"] = rng.normal(size=(2, 60))
    metrics = evaluate(
        table, SENTINELS, leaking=np.arange(60) < 9, baselines={"mean": np.zeros((60, 2))}, weights=np.ones(60)
    )
    assert {key for of_split in metrics.values() for key in of_split} == set(SENTINELS)


class CountedName(str):
    """A name that counts how often it is compared, as a search in a list does."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        CountedName.compared += 1
        return str.__eq__(self, other)  # type: ignore[arg-type] # as str has it

    __hash__ = str.__hash__


def test_checking_names_takes_work_in_proportion_to_their_number() -> None:
    work = []
    for number in (100, 1000):
        CountedName.compared = 0
        require_target_names([CountedName(f"t{index}") for index in range(number)])
        work.append(CountedName.compared + number)
    assert work[1] <= 12 * work[0]


class CountedTable:
    """A table of PyArrow that counts how often its list of columns, which it makes anew, is asked for."""

    def __init__(self, table: pa.Table, counts: dict[str, int]) -> None:
        self.table, self.counts = table, counts

    def __getattr__(self, name: str) -> Any:
        self.counts[name] = self.counts.get(name, 0) + 1
        return getattr(self.table, name)

    def __getitem__(self, name: str) -> Any:
        return self.table[name]

    def __len__(self) -> int:
        return len(self.table)


@pytest.mark.parametrize("targets", [1, 300])
def test_reading_a_data_set_lists_its_columns_a_few_times_however_many_targets(
    targets: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"t{index}" for index in range(targets)]
    genes = without_coordinates(pd.DataFrame({"gene_id": ["g", "h"], "sequence": "ACGT"}))
    values = np.arange(2 * targets, dtype=np.float32).reshape(2, -1)
    write_promoters(tmp_path, Promoters(genes, values, names, {}))
    counts: dict[str, int] = {}
    read = pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda *given, **options: CountedTable(read(*given, **options), counts)
    )
    np.testing.assert_array_equal(read_promoters(tmp_path).targets, values)
    assert counts.get("column_names", 0) <= 3
