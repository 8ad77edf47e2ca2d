from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.files import Write
from support.libraries import library_of

from promoter.dataset.promoters import (
    Promoters,
    crop_windows,
    locate,
    near_tss,
    read_promoters,
    region_of_positions,
    select,
    window_of_region,
    write_promoters,
)
from promoter.errors import InputError
from promoter.sequence import decode

# By DESIGN.md, not by the code
COLUMNS = {
    **{"gene_id": "string", "gene_name": "string", "chrom": "string", "tss": "int64", "strand": "string"},
    **{"start": "int64", "end": "int64", "sequence": "string", "level": "float", "2nd target": "float"},
}
WINDOW = {"window": {"upstream": 3, "downstream": 1}, "transform": "log2p1", "sources": {"g.fa": "0a"}}
PROMOTERS = Promoters(
    pd.DataFrame(
        {
            "gene_id": ["g2", "g1", "007"],
            "gene_name": pd.Series(["rpl1902", None, "NA"], dtype="str"),
            "chrom": ["chr1", "1", "chr1"],
            "tss": [5, 1, 2**40],
            "strand": ["+", "-", "+"],
            "start": [2, 1, 2**40 - 3],
            "end": [6, 5, 2**40 + 1],
            "sequence": ["ACGT", "NNAC", "TTTT"],
        }
    ),
    np.array([[0.1, 1], [-2, np.nan], [1e-30, 3e38]], np.float32),
    ["level", "2nd target"],
    WINDOW,
)


def test_a_data_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_promoters(tmp_path / "new" / "data", PROMOTERS)
    assert [file.name for file in (tmp_path / "new" / "data").iterdir()] == ["promoters.parquet"]
    for where in (path, path.parent, str(path.parent)):
        read = read_promoters(where)
        pd.testing.assert_frame_equal(read.genes, PROMOTERS.genes)
        np.testing.assert_array_equal(read.targets, PROMOTERS.targets)
        assert read.targets.dtype == np.float32
        assert (read.target_names, len(read), read.length) == (PROMOTERS.target_names, 3, 4)
        assert read.metadata.items() >= WINDOW.items()
        assert read.checksum == hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()
        assert read.tokens.tolist() == [[0, 1, 2, 3], [4, 4, 0, 1], [3, 3, 3, 3]]


def test_promoters_parquet_has_the_contracts_columns_types_and_metadata(tmp_path: Path) -> None:
    table = pq.read_table(str(write_promoters(tmp_path, PROMOTERS)))
    assert {field.name: str(field.type) for field in table.schema} == COLUMNS
    assert table.schema.names == list(COLUMNS)
    assert set(table.schema.metadata) == {b"promoter"}
    metadata = json.loads(table.schema.metadata[b"promoter"])
    assert metadata == {"format": 1, **WINDOW, "targets": ["level", "2nd target"]}
    assert table["sequence"].to_pylist() == ["ACGT", "NNAC", "TTTT"]


def test_a_data_set_of_an_earlier_version_has_no_names(tmp_path: Path) -> None:
    path = write_promoters(tmp_path, PROMOTERS)
    pq.write_table(pq.read_table(str(path)).drop_columns(["gene_name"]), str(path))
    read = read_promoters(path)
    assert list(read.genes.columns) == list(PROMOTERS.genes.columns)
    assert read.genes["gene_name"].isna().all()


@pytest.mark.parametrize("asked", [["g1", "g2"], ["rpl1902", "g1"], ["g1", "rpl1902", "g2"]])
def test_genes_are_selected_by_id_or_name(asked: list[str]) -> None:
    assert select(PROMOTERS, asked).tolist() == [0, 1]


def test_a_name_of_two_genes_selects_none() -> None:
    genes = PROMOTERS.genes.assign(gene_name=["a", "a", "g2"])
    promoters = Promoters(genes, PROMOTERS.targets, PROMOTERS.target_names, WINDOW)
    assert select(promoters, ["g2"]).tolist() == [0]  # an id, whatever gene has it as its name
    with pytest.raises(InputError, match="not in the data"):
        select(promoters, ["a"])


def test_equal_data_have_equal_bytes(tmp_path: Path) -> None:
    one, other = (Path(str(write_promoters(tmp_path / name, PROMOTERS))).read_bytes() for name in "ab")
    assert one == other


def test_a_failed_write_of_a_data_set_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = Path(str(write_promoters(tmp_path, PROMOTERS)))
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_promoters(tmp_path, replace(PROMOTERS, metadata={"window": object()}))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["promoters.parquet"]


@pytest.mark.parametrize("kept", [0, 4, 100, -1, -100])
def test_a_truncated_data_set_is_refused(tmp_path: Path, kept: int) -> None:
    path = Path(str(write_promoters(tmp_path, PROMOTERS)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="is empty" if kept == 0 else "not a complete Parquet file") as error:
        read_promoters(tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_damage_amid_a_data_set_is_refused(tmp_path: Path) -> None:
    path = Path(str(write_promoters(tmp_path, PROMOTERS)))
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as error:
        read_promoters(tmp_path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has data format 99, promoter .* reads 1; .*make it again"),
        (None, "has data format None, promoter .* reads 1; .*make it again"),
        ({"targets": ["level", "gone"]}, "lacks the columns gone; make it again"),
    ],
)
def test_a_data_set_of_another_format_version_is_refused(
    tmp_path: Path, change: dict[str, Any] | None, message: str
) -> None:
    path = str(write_promoters(tmp_path, PROMOTERS))
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[b"promoter"])
    raw = None if change is None else {"promoter": json.dumps(metadata | change)}
    pq.write_table(table.replace_schema_metadata(raw), path)
    with pytest.raises(InputError, match=message) as error:
        read_promoters(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "gene_name"])
def test_a_missing_column_of_a_data_set_is_named(tmp_path: Path, column: str) -> None:
    path = str(write_promoters(tmp_path, PROMOTERS))
    table: pa.Table = pq.read_table(path)
    pq.write_table(table.drop_columns([column]), path)
    with pytest.raises(InputError, match=f"lacks the columns {column};"):
        read_promoters(path)


def test_a_missing_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no promoters\.parquet; make it with prepare"):
        locate(tmp_path)
    with pytest.raises(InputError, match="none: no such data set"):
        locate(tmp_path / "none")


FASTA = ">a first\nACGT\nacgt\n\n>b\nRYNnTTTT\n"


@pytest.mark.parametrize(
    "content", [FASTA, FASTA.replace("\n", "\r\n"), FASTA.rstrip(), gzip.compress(FASTA.encode(), mtime=0)]
)
def test_a_FASTA_of_sequences_has_neither_coordinates_nor_targets(write: Write, content: str | bytes) -> None:
    path = write("some.fa", content)
    promoters = read_promoters(path)
    assert promoters.genes["gene_id"].tolist() == ["a", "b"]
    assert promoters.genes["sequence"].tolist() == ["ACGTACGT", "RYNNTTTT"]
    assert promoters.tokens.tolist() == [[0, 1, 2, 3] * 2, [4, 4, 4, 4, 3, 3, 3, 3]]
    assert promoters.genes[["chrom", "tss", "strand", "start", "end"]].isna().all(axis=None)
    assert promoters.targets.shape == (2, 0)
    assert promoters.target_names == []
    assert promoters.checksum == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (">a\nACGT\n>b\nACG\n", "'b' has 3 bases, 'a' has 4; all sequences need one length"),
        (">a\nACGT\n>b\n>c\nACGT\n", "record 'b' has no sequence"),
        (">a\n", "record 'a' has no sequence"),
        ("\n\n", "holds no record"),
        ("<!DOCTYPE html>\n<html>\n", r"is HTML .*: '<!DOCTYPE html>'"),
        ("\nACGT\n", r"is no FASTA .*: 'ACGT'"),
        (">a\nACGT\n>a\nACGT\n", "two records are named 'a'"),
        (b">a\nA\0\n", "is not a text file"),
        ("", "is empty"),
    ],
)
def test_a_FASTA_of_several_lengths_is_refused(write: Write, content: str | bytes, message: str) -> None:
    path = write("some.fa", content)
    with pytest.raises(InputError, match=message) as error:
        read_promoters(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


SPLITS = pd.Series(["test", None, "train"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"genes": ["007", "g2"]}, [0, 2]),  # in the order of the data, not of the request
        ({"genes": ["g1", "g1"]}, [1]),
        ({"split": "test", "splits": SPLITS}, [0]),
        ({"splits": SPLITS}, [0, 1, 2]),
        ({"genes": ["g1", "007"], "split": "train", "splits": SPLITS}, [2]),
    ],
)
def test_genes_are_chosen_by_name_and_by_split(options: dict[str, Any], expected: list[int]) -> None:
    assert select(PROMOTERS, **options).tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"genes": ["g1", "z", "y"]},
            r"`genes=\['y', 'z'\]`: not in the data \(2 of 3\); it has ids like g2, g1, 007",
        ),
        ({"genes": []}, "no gene is left by `genes`;"),
        ({"split": "val", "splits": SPLITS}, "no gene is left by .*`split='val'`"),
        ({"genes": ["g1"], "split": "test", "splits": SPLITS}, "no gene is left"),
    ],
)
def test_a_choice_of_no_genes_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select(PROMOTERS, **options)


def test_wide_windows_are_cropped_to_what_lies_before_the_tss() -> None:
    length, half = 20_000, 10_000
    drawn = np.random.default_rng(0).integers(0, 4, (2, length)).astype(np.uint8)
    genes = pd.DataFrame(
        {
            "gene_id": ["a", "b"],
            "chrom": "chr1",
            "tss": [50_000, 90_000],
            "strand": ["+", "-"],
            "start": [50_000 - half, 90_001 - half],
            "end": [50_000 + half, 90_001 + half],
            "sequence": decode(drawn),
        }
    )
    wide = Promoters(
        genes, np.zeros((2, 1), np.float32), ["t"], {"window": {"upstream": half, "downstream": half}}, "sum"
    )
    near = near_tss(wide)
    assert near.genes[["start", "end"]].to_numpy().tolist() == [[48_000, 50_000], [90_001, 92_001]]
    assert near.genes["sequence"].tolist() == [one[8_000:10_000] for one in genes["sequence"]]
    assert near.metadata["window"] == {"upstream": 2000, "downstream": 0}
    short = replace(
        wide, genes=crop_windows(genes, 0, 3000), metadata={"window": {"upstream": 3000, "downstream": 0}}
    )
    assert near_tss(short) is short


def test_a_region_around_the_tss_is_given_in_indices_of_the_window() -> None:
    assert region_of_positions(PROMOTERS, [-2, 1]) == (1, 4)  # the TSS is at index 3
    assert window_of_region(PROMOTERS, (1, 4)) == {"upstream": 2, "downstream": 1}
    assert window_of_region(PROMOTERS, (0, 2)) == {"upstream": 3, "downstream": -1}
    assert window_of_region(PROMOTERS, None) == WINDOW["window"]
    assert window_of_region(replace(PROMOTERS, metadata={"window": None}), None) is None


@pytest.mark.parametrize("positions", [[-4, 1], [-2, 2], [1, 1], [-2], [-2, 0, 1]])
def test_a_region_outside_the_window_is_refused(positions: list[int]) -> None:
    with pytest.raises(InputError, match="from -3 to 1, which the window has around the TSS"):
        region_of_positions(PROMOTERS, positions)


LIBRARY = library_of({"a": "ACGTA", "b": "TTTTT"})


def test_without_a_tss_positions_count_from_the_first_base() -> None:
    assert region_of_positions(LIBRARY, [0, 5]) == (0, 5)
    assert region_of_positions(LIBRARY, [1, 3]) == (1, 3)
    assert window_of_region(LIBRARY, (1, 3)) is None


@pytest.mark.parametrize("positions", [[-1, 3], [-3, -1], [0, 6], [2, 2], [3, 2], [1], [0, 1, 2]])
def test_positions_outside_a_sequence_are_refused(positions: list[int]) -> None:
    with pytest.raises(InputError, match="from 0 to 5, counted from the first base of each sequence, since none"):
        region_of_positions(LIBRARY, positions)


def test_missing_coordinates_stay_missing_in_a_region(tmp_path: Path) -> None:
    write_promoters(tmp_path, LIBRARY)
    for promoters in (LIBRARY, read_promoters(tmp_path)):
        cropped = crop_windows(promoters.genes, 1, 3)
        assert cropped["sequence"].tolist() == ["CG", "TT"]
        assert cropped[["chrom", "start", "end", "strand"]].isna().all(axis=None)


def test_no_selected_sequence_is_called_a_gene() -> None:
    splits = pd.Series(["train", "train"])
    with pytest.raises(InputError, match="no sequence is left by"):
        select(LIBRARY, ["a"], splits, "test")
