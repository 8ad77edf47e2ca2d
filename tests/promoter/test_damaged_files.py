"""Each file of a run, damaged in each way, is refused by its name, or the damage changes nothing that is read."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from support.libraries import TARGET, write_library_run
from upath import UPath

from promoter import storage
from promoter.checkpoint import deserialize_ensemble, load_info, load_model, serialize_models
from promoter.dataset.promoters import read_promoters
from promoter.errors import InputError
from promoter.evaluation.evaluate import read_metrics
from promoter.evaluation.intervals import Calibration, Scale, read_calibration, write_calibration
from promoter.evaluation.predictions import read_predictions
from promoter.ism import iterate_scores, load_scores
from promoter.ism.store import load_contents
from promoter.report.sections import (
    PageParts,
    comparison_section,
    curves_section,
    leakage_section,
    metrics_section,
    model_section,
    motifs_section,
    search_section,
)
from promoter.splits.homology import read_leaks
from promoter.storage.parts import earlier_run
from promoter.storage.schema import checked, read_csv

pytestmark = pytest.mark.filterwarnings("ignore::promoter.errors.InputNote")  # of encodings
WRONG: list[Any] = [None, 3, True, "x", [], {}, {"x": {"y": [1]}}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a run on a library, its scores, motifs, search and calibration, once."""
    folder = tmp_path_factory.mktemp("run")
    write_library_run(folder)
    storage.write_text(folder / "search" / "trials.csv", "trial,status,score,epochs,reason\n1,finished,0.5,3,\n")
    storage.write_text(folder / "search" / "importance.csv", "setting,importance,trials\nmodel.crop,0.5,4\n")
    write_calibration(folder / "run", Calibration([["a"], ["b"]], {TARGET: Scale(1.0, 0.5, 2.0)}))
    config = {
        "split": {"by": "group", "random": False, "homology": "report"},
        "provenance": {"versions": {"promoter": "0.1.0"}, "inputs": {"data": "d" * 64}},
    }
    storage.write_yaml(folder / "run" / "config.yaml", config)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


def _read_model(folder: Path) -> object:
    load_model(folder / "run" / "model")
    return load_info(folder / "run" / "model")


@functools.cache
def _built(model: Path) -> tuple[Any, ...]:
    members = serialize_models([model])
    return (members, *deserialize_ensemble(members))


def _model_section(folder: Path) -> object:
    return model_section(UPath(folder / "run"), *_built(folder / "run"))


def _curves_section(folder: Path) -> object:
    return curves_section(UPath(folder / "run"), _built(folder / "run")[0], PageParts())


def _metrics_section(folder: Path) -> object:
    run = UPath(folder / "run")
    metrics = read_metrics(run / "metrics.json", [TARGET])
    info = _built(folder / "run")[2]
    return (
        metrics_section(metrics, [TARGET], target=TARGET, parts=PageParts()),
        comparison_section(folder / "run", metrics, run, info),
    )


def _read_scores(folder: Path) -> object:
    list(iterate_scores(folder / "ism"))
    return (load_scores(folder / "ism"), load_contents(folder / "ism"))


def _read_calibration(folder: Path) -> object:
    calibration = read_calibration(folder / "run")
    assert calibration is not None
    return calibration.half_width(np.zeros((2, 3, 1)), ["a", "b"], [TARGET]) if calibration.matches("ab") else None


Read = Callable[[Path], object]
DOCUMENTS: dict[str, Read] = {
    "run/model/model.yaml": _read_model,
    "run/config.yaml": _model_section,
    "run/metrics.json": _metrics_section,
    "run/intervals.json": _read_calibration,
    "ism/manifest.json": _read_scores,
}
TABLES: dict[str, Read] = {
    "run/history.csv": _curves_section,
    "run/leakage.csv": lambda folder: (
        leakage_section(UPath(folder / "run"), PageParts()),
        read_leaks(folder / "run" / "leakage.csv"),
    ),
    "motifs/motifs.tsv": lambda folder: motifs_section(folder / "motifs", PageParts()),
    "search/trials.csv": lambda folder: search_section(folder / "search", PageParts()),
    "search/importance.csv": lambda folder: search_section(folder / "search", PageParts()),
}
PARQUET: dict[str, Read] = {
    "data/promoters.parquet": lambda folder: read_promoters(folder / "data").tokens,
    "ism/scores/part-00000.parquet": _read_scores,
    "run/predictions.parquet": lambda folder: read_predictions(
        folder / "run" / "predictions.parquet", [TARGET, f"{TARGET}_predicted"]
    ),
    "run/baselines.parquet": lambda folder: read_predictions(
        folder / "run" / "baselines.parquet", [f"{TARGET}_predicted_by_mean"]
    ),
}
READERS = DOCUMENTS | TABLES | PARQUET


def require_refused_or_read(path: Path, read: Read, folder: Path, damage: object) -> bool:
    """Read a damaged file; return whether it was refused, by an InputError that names it on one line."""
    try:
        read(folder)
    except Exception as error:
        message = str(error)
        refused = isinstance(error, InputError) and "\n" not in message
        if not refused or not (path.name in message or path.parent.name in message):
            raise AssertionError(f"{path.name}, {damage}: {type(error).__name__}: {error}") from error
        return True
    return False


def load(path: Path) -> Any:
    return json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())


def dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value) if path.suffix == ".json" else yaml.safe_dump(value, sort_keys=False))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a document, the document itself first."""
    yield path
    inside = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
    for key, inner in inside.items():
        yield from places(inner, (*path, key))


def damaged(document: Any) -> Iterator[tuple[object, Any]]:
    """Yield a document with each value in turn left out, or replaced by each wrong one."""
    for place in places(document):
        for wrong in [..., *WRONG] if place else WRONG:
            changed = copy.deepcopy(document)
            if not place:
                yield (place, wrong), wrong
                continue
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            if wrong is ...:
                del inner[place[-1]]
            else:
                inner[place[-1]] = wrong
            yield (place, wrong), changed


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_with_any_value_missing_or_wrong_is_refused_by_name_or_read(folder: Path, name: str) -> None:
    path, refused = folder / name, 0
    assert not require_refused_or_read(path, DOCUMENTS[name], folder, "as it is")
    document = load(path)
    for damage, changed in damaged(document):
        dump(path, changed)
        refused += require_refused_or_read(path, DOCUMENTS[name], folder, damage)
    assert refused > len(WRONG)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("how", ["folder", "zeros", "half", "letters", "deep", "bomb", "empty"])
def test_a_file_that_is_something_else_is_refused_by_name(folder: Path, name: str, how: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        bomb = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(9))
        path.write_bytes(
            {
                "zeros": b"\0" * 1000,
                "half": content[: len(content) // 2],
                "letters": b"\xff\xfe\xfd",
                "deep": b"[" * 100_000,
                "bomb": bomb.encode(),
                "empty": b"",
            }[how]
        )
    refused = require_refused_or_read(path, READERS[name], folder, how)
    assert refused or how == "half"  # half of some texts is a text


def test_damaged_cells_of_a_table_are_refused_by_name_or_read(folder: Path) -> None:
    for name, read in TABLES.items():
        path = folder / name
        separator = "\t" if path.suffix == ".tsv" else ","
        rows = [line.split(separator) for line in path.read_text().splitlines()]
        for line, row in enumerate(rows):
            for column in range(len(row)):
                for cell in (None, "", "x", "1e999", '"', "\0"):
                    changed = copy.deepcopy(rows)
                    if cell is None:
                        del changed[line][column]
                    else:
                        changed[line][column] = cell
                    path.write_text("\n".join(separator.join(cells) for cells in changed) + "\n")
                    require_refused_or_read(path, read, folder, (line, column, cell))
        path.write_text("\n".join(separator.join(cells) for cells in rows) + "\n")


def damaged_tables(table: pa.Table) -> Iterator[tuple[object, pa.Table]]:
    """Yield a table with each column missing, doubled, of other types, or without a value; and other metadata."""
    for index, name in enumerate(table.column_names):
        yield (name, "missing"), table.remove_column(index)
        yield (name, "doubled"), table.append_column(name, table[name])
        for values in (["x"] * len(table), range(len(table)), [[1.0]] * len(table), [None] * len(table)):
            yield (name, next(iter(values))), table.set_column(index, name, pa.array(list(values)))
        wrong = pa.array(np.ones((len(table), 8), np.float32).ravel())
        yield (name, "lists"), table.set_column(index, name, pa.FixedSizeListArray.from_arrays(wrong, 8))
        kept = pa.array([row > 0 for row in range(len(table))])
        nulls = pa.nulls(len(table), table.schema.field(name).type)
        if not pa.types.is_fixed_size_list(nulls.type):
            yield (name, "null"), table.set_column(index, name, pc.if_else(kept, table[name], nulls))
    yield "no rows", table.slice(0, 0)
    yield "doubled rows", pa.concat_tables([table, table])
    raw = (table.schema.metadata or {}).get(b"promoter")
    for content in (b"", b"{", b"[" * 100_000, b"[]", b"3"):
        yield content[:9], table.replace_schema_metadata({"promoter": content})
    yield "no metadata", table.replace_schema_metadata(None)
    for damage, changed in damaged(json.loads(raw or b"{}")):
        yield damage, table.replace_schema_metadata({"promoter": json.dumps(changed)})


@pytest.mark.parametrize("name", PARQUET)
def test_damaged_columns_and_metadata_are_refused_by_name_or_read(folder: Path, name: str) -> None:
    path, refused = folder / name, 0
    for damage, changed in damaged_tables(pq.read_table(path)):
        pq.write_table(changed, path)
        refused += require_refused_or_read(path, PARQUET[name], folder, damage)
    assert refused > 10


@pytest.mark.parametrize("wrong", [{}, {"complete": 1, "genes_per_part": 3}, {"complete": False}, [], "x", None])
def test_a_damaged_manifest_is_no_run_to_be_resumed(tmp_path: Path, wrong: object) -> None:
    storage.write_json(tmp_path / "manifest.json", wrong)
    assert earlier_run(UPath(tmp_path), {}) is None
    storage.write_json(tmp_path / "manifest.json", {"complete": False, "genes_per_part": 3, "model": "m"})
    assert earlier_run(UPath(tmp_path), {"model": "m"}) == {"complete": False, "genes_per_part": 3}
    assert earlier_run(UPath(tmp_path), {"model": "other"}) is None


def test_values_are_checked_strictly_and_what_is_not_named_is_left_out() -> None:
    assert checked({"a": [1, 2.5]}, dict[str, list[float]], "f.json", "fix") == {"a": [1.0, 2.5]}
    for wrong in ({"a": ["1"]}, {"a": [True]}, {"a": 1}, [], None):
        with pytest.raises(InputError, match=r"^f\.json: .*; fix$"):
            checked(wrong, dict[str, list[float]], "f.json", "fix")


def test_text_of_a_table_stays_text(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "t.csv", "id,value,other\nNA,,NA\n01,nan,2\n")
    table = read_csv(tmp_path / "t.csv", "fix", text=["id", "gone?"], numbers=["value"])
    assert table["id"].tolist() == ["NA", "01"]
    assert table[["value", "other"]].isna().to_numpy().tolist() == [[True, True], [True, False]]
