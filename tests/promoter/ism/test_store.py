from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.libraries import library_of
from upath import UPath

from promoter.dataset.promoters import crop_windows, read_promoters, write_promoters
from promoter.errors import InputError
from promoter.ism import Scores, iterate_scores, load_scores
from promoter.ism.scores_format import find_manifest
from promoter.ism.store import GENE_COLUMNS, concatenate, load_contents, write_part
from promoter.sequence import decode
from promoter.storage.formats import Checksums
from promoter.storage.parts import PartFiles, check_part, part_path
from promoter.storage.paths import resolve

LENGTH = 5
TARGETS = ["basal", "salt response"]
METADATA = {"model": "a" * 64, "data": "b" * 64}


def part(first: int, n: int) -> Scores:
    """Genes `first` and on; equal numbers give equal genes."""
    rng = np.random.default_rng(first)
    genes = pd.DataFrame(
        {
            "gene_id": [f"g{first + row}" for row in range(n)],
            "gene_name": pd.Series([None if row % 2 else f"name{first + row}" for row in range(n)], dtype="str"),
            "chrom": "chr1",
            "start": np.arange(n) - 2,  # windows may pass the chromosome's start
            "end": np.arange(n) - 2 + LENGTH,
            "strand": [*"+-" * n][:n],
            "sequence": decode(rng.integers(0, 5, (n, LENGTH)).astype(np.uint8)),
        }
    )
    return Scores(
        genes,
        TARGETS,
        rng.normal(size=(n, 2)).astype(np.float32),
        rng.normal(size=(n, 2, 4, LENGTH)).astype(np.float32),
    )


def assert_same(one: Scores, other: Scores) -> None:
    pd.testing.assert_frame_equal(one.genes, other.genes, check_dtype=False)
    assert one.targets == other.targets
    for name in ("predictions", "scores"):
        assert getattr(one, name).dtype == np.float32
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def rows(scores: Scores, order: list[int]) -> Scores:
    genes = scores.genes.iloc[order].reset_index(drop=True)
    return Scores(genes, scores.targets, scores.predictions[order], scores.scores[order])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Genes g0 to g6 in parts of 3, 3 and 1, written last first."""
    for index in (2, 1, 0):
        write_part(part_path(tmp_path / "scores", index), part(3 * index, 1 if index == 2 else 3), METADATA)
    return tmp_path


ALL = [part(0, 3), part(3, 3), part(6, 1)]
WHOLE = Scores(
    pd.concat([one.genes for one in ALL], ignore_index=True),
    TARGETS,
    np.concatenate([one.predictions for one in ALL]),
    np.concatenate([one.scores for one in ALL]),
)


def test_a_part_holds_the_contracts_columns_base_major(tmp_path: Path) -> None:
    written = part(0, 3)
    write_part(tmp_path / "part-00000.parquet", written, METADATA)
    table = pq.read_table(tmp_path / "part-00000.parquet")
    scores_type = "fixed_size_list<element: float>[20]"
    assert {field.name: str(field.type) for field in table.schema} == {
        **dict.fromkeys(("gene_id", "gene_name", "chrom", "strand", "sequence"), "string"),
        **dict.fromkeys(("start", "end"), "int64"),
        **{f"{target}_prediction": "float" for target in TARGETS},
        **{f"{target}_scores": scores_type for target in TARGETS},
    }
    assert table.column_names[:7] == ["gene_id", "gene_name", "chrom", "start", "end", "strand", "sequence"]
    for row, cells in enumerate(table.to_pylist()):
        expected = written.genes.astype(object).where(written.genes.notna(), None).iloc[row]
        assert {str(name): cells[str(name)] for name in written.genes} == expected.to_dict()
        for index, target in enumerate(TARGETS):
            assert cells[f"{target}_prediction"] == written.predictions[row, index]
            for base, position in np.ndindex(4, LENGTH):
                found = cells[f"{target}_scores"][base * LENGTH + position]  # all A, then C, G, T
                assert found == written.scores[row, index, base, position]
    metadata = json.loads((table.schema.metadata or {})[b"promoter"])
    assert metadata.items() >= {**METADATA, "targets": TARGETS, "format": 1}.items()
    assert "f(sequence with base at position) - f(sequence)" in metadata["meaning"]


@pytest.mark.parametrize("inner", ["", "scores"])
def test_loaded_scores_are_those_written_in_the_order_of_the_parts(folder: Path, inner: str) -> None:
    assert_same(load_scores(folder / inner), WHOLE)


def test_remote_scores_load_as_local_ones(folder: Path) -> None:
    remote = f"memory://{folder.name}/out"
    for index, one in enumerate(ALL):
        write_part(part_path(f"{remote}/scores", index), one, METADATA)
    assert_same(load_scores(remote), WHOLE)
    assert check_part(part_path(f"{remote}/scores", 2), ["g6"], METADATA)
    assert not check_part(part_path(f"{remote}/scores", 3), ["g6"], METADATA)


@pytest.mark.parametrize("order", [[5], [6, 0], [4, 3, 5], [3, 1, 6, 0, 2, 5, 4], [2, 2]])
def test_scores_of_chosen_genes_come_in_the_order_asked_for(folder: Path, order: list[int]) -> None:
    assert_same(load_scores(folder, genes=[f"g{row}" for row in order]), rows(WHOLE, order))


@pytest.mark.parametrize("genes", [["g0", "nobody", "g6"], ["nobody"]])
def test_a_chosen_gene_without_scores_is_named(folder: Path, genes: list[str]) -> None:
    with pytest.raises(InputError, match=rf"^{folder}/scores: has no scores of nobody; .*`genes`"):
        load_scores(folder, genes=genes)


def test_a_folder_without_score_files_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=rf"^{folder}: holds no part"):
            load_scores(folder)


def test_a_truncated_score_file_or_other_Parquet_file_is_refused_by_name(folder: Path) -> None:
    path = folder / "scores" / "part-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"^{path}: is not a complete Parquet file"):
        load_scores(folder)
    pq.write_table(pa.table({"gene_id": ["g3"]}), path)
    with pytest.raises(InputError, match=f"^{path}: has scores format None, promoter .* reads 1;"):
        load_scores(folder)


def test_a_part_is_complete_only_with_its_genes_and_metadata(folder: Path) -> None:
    path, genes = part_path(folder / "scores", 1), ["g3", "g4", "g5"]
    assert check_part(path, genes, METADATA)
    assert check_part(path, np.array(genes, dtype=object).tolist(), {})
    for others in (["g3", "g4"], [*genes, "g6"], ["g4", "g3", "g5"], ["g3", "g4", "g6"], []):
        assert not check_part(path, others, METADATA)
    for other in ({"model": "c" * 64}, {"data": ""}, {"settings": None, "seed": 1}):
        assert not check_part(path, genes, {**METADATA, **other})
    assert not check_part(part_path(folder / "scores", 3), genes, METADATA)


@pytest.mark.parametrize("keep", [0, 3, 200, -200, -8, -1])
def test_a_truncated_part_is_incomplete(folder: Path, keep: int) -> None:
    path = Path(str(part_path(folder / "scores", 1)))
    path.write_bytes(path.read_bytes()[:keep])
    assert not check_part(path, ["g3", "g4", "g5"], METADATA)


def test_missing_parts_include_the_damaged_and_those_of_another_run(tmp_path: Path) -> None:
    folder = resolve(tmp_path)
    ids = [[f"g{3 * index}", f"g{3 * index + 1}"] for index in range(60)]
    metadata = [{**METADATA, "number": index} for index in range(60)]
    for index in range(60):
        if index % 7:
            write_part(part_path(folder / "scores", index), part(3 * index, 2), metadata[index])
    damaged = part_path(folder / "scores", 8)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    write_part(part_path(folder / "scores", 9), part(3 * 9, 1), metadata[9])  # a gene less
    write_part(part_path(folder / "scores", 10), part(3 * 10, 2), metadata[11])  # of another run
    write_part(part_path(folder / "scores", 99), part(0, 2), metadata[0])  # none of ours
    expected = [index for index in range(60) if index % 7 == 0 or index in (8, 9, 10)]
    assert PartFiles(folder, "scores", ids, metadata).missing() == expected
    assert PartFiles(folder, "nowhere", ids, metadata).missing() == list(range(60))
    assert PartFiles(folder, "scores", [], []).missing() == []


def test_a_part_that_cannot_be_written_leaves_the_old_one(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "scores").iterdir()}
    for broken in (
        replace(ALL[1], genes=ALL[1].genes.head(2)),  # fewer genes than scores
        replace(ALL[1], targets=[*TARGETS, "a third"]),
    ):
        with pytest.raises((pa.ArrowInvalid, IndexError)):
            write_part(part_path(folder / "scores", 1), broken, METADATA)
    with pytest.raises(TypeError):
        write_part(part_path(folder / "scores", 1), ALL[0], {"model": Path()})  # no JSON
    assert {path.name: path.read_bytes() for path in (folder / "scores").iterdir()} == before


def test_names_of_parts_sort_by_their_numbers() -> None:
    names = [part_path("/x", index).name for index in (0, 9, 10, 99_999)]
    assert names == ["part-00000.parquet", "part-00009.parquet", "part-00010.parquet", "part-99999.parquet"]
    assert names == sorted(names)


def test_genes_of_a_FASTA_without_coordinates_are_kept(tmp_path: Path) -> None:
    scores = part(0, 2)
    missing = pd.array([None, None], dtype="Int64")
    genes = scores.genes.assign(chrom=None, strand=None, start=missing, end=missing)
    write_part(tmp_path / "part-00000.parquet", replace(scores, genes=genes), METADATA)
    loaded = load_scores(tmp_path)
    assert loaded.genes[["chrom", "start", "end", "strand"]].isna().all().all()
    assert np.array_equal(loaded.scores, scores.scores)


def test_float16_loses_what_is_stated_and_no_more(tmp_path: Path) -> None:
    scores = part(0, 3)
    scores.scores[0, 0, 0] = [1e-9, -6e4, 0, 1e-5, 3.14159]
    write_part(part_path(tmp_path / "scores", 0), scores, METADATA, "float16")
    assert pq.read_schema(str(part_path(tmp_path / "scores", 0))).field("basal_scores").type == pa.list_(
        pa.float16(), 20
    )
    loaded = load_scores(tmp_path).scores
    assert loaded.dtype == np.float32
    assert (np.abs(loaded - scores.scores) <= np.maximum(5e-4 * np.abs(scores.scores), 3e-8)).all()
    scores.scores[1, 1, 2, 3] = 7e4
    with pytest.raises(ValueError, match="70000 is too large for float16"):
        write_part(part_path(tmp_path / "scores", 1), scores, METADATA, "float16")
    assert not part_path(tmp_path / "scores", 1).exists()


def test_the_standard_deviations_of_an_ensemble_are_kept(tmp_path: Path) -> None:
    one, spread = part(0, 3), part(7, 3)
    written = replace(one, predictions_sd=spread.predictions, scores_sd=spread.scores)
    write_part(part_path(tmp_path / "scores", 0), written, METADATA)
    loaded = load_scores(tmp_path, genes=["g2", "g0"])
    assert loaded.predictions_sd is not None
    assert loaded.scores_sd is not None
    assert np.array_equal(loaded.predictions_sd, spread.predictions[[2, 0]])
    assert np.array_equal(loaded.scores_sd, spread.scores[[2, 0]])
    assert load_scores(tmp_path).targets == TARGETS


def test_only_the_row_groups_with_the_chosen_genes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = part(0, 50)
    write_part(part_path(tmp_path, 0), many, METADATA)
    groups: list[list[int]] = []
    read = pq.ParquetFile.read_row_groups

    def counted(file: pq.ParquetFile, row_groups: list[int], *arguments: object, **named: object) -> pa.Table:
        groups.append(list(row_groups))
        return read(file, row_groups, *arguments, **named)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    assert_same(load_scores(tmp_path, genes=["g40", "g3"]), rows(many, [40, 3]))
    assert groups == [[0, 2]]


def test_the_manifest_says_which_parts_there_are(folder: Path) -> None:
    listed = [{"file": f"scores/part-{index:05d}.parquet", "genes": n} for index, n in enumerate([3, 3, 1])]
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"complete": False}))
    with pytest.raises(InputError, match="is not finished; run the same"):
        load_scores(folder)
    assert load_scores(folder, genes=["g5"]).genes["gene_id"].tolist() == ["g5"]
    manifest.write_text(json.dumps({"complete": True, "parts": listed}))
    write_part(part_path(folder / "scores", 9), part(20, 3), METADATA)  # left over from another run
    assert_same(load_scores(folder), WHOLE)
    assert_same(load_scores(folder / "scores"), WHOLE)
    part_path(folder / "scores", 1).unlink()
    with pytest.raises(InputError, match=r"part-00001\.parquet: no such part"):
        load_scores(folder)


def test_parts_of_several_runs_are_not_mixed(folder: Path) -> None:
    write_part(part_path(folder / "scores", 1), part(3, 3), METADATA | {"model": "c" * 64})
    with pytest.raises(InputError, match=r"part-00001\.parquet: is of another run"):
        load_scores(folder)


@pytest.mark.parametrize("genes", [None, ["g6", "g1", "g4"]])
@pytest.mark.parametrize("targets", [None, TARGETS[1:]])
def test_iterating_over_a_store_gives_the_same_scores_in_file_order(
    folder: Path, genes: list[str] | None, targets: list[str] | None
) -> None:
    some = list(iterate_scores(folder, genes, targets))
    assert max(len(one.genes) for one in some) <= 3
    order = range(7) if genes is None else [1, 4, 6]
    expected = rows(WHOLE, list(order))
    if targets:
        expected = replace(
            expected, targets=targets, predictions=expected.predictions[:, 1:], scores=expected.scores[:, 1:]
        )
    assert_same(concatenate(some), expected)


def test_iterating_over_a_store_reads_one_row_group_at_a_time(tmp_path: Path) -> None:
    many = part(0, 50)
    write_part(part_path(tmp_path, 0), many, METADATA)
    some = list(iterate_scores(tmp_path))
    assert [len(one.genes) for one in some] == [16, 16, 16, 2]
    assert_same(concatenate(some), many)


def test_the_contents_of_a_store_name_genes_targets_and_the_tss(folder: Path) -> None:
    contents = load_contents(folder, ["g5", "g2"])
    assert contents.genes["gene_id"].tolist() == ["g2", "g5"]
    assert (contents.targets, contents.length, contents.downstream) == (TARGETS, LENGTH, None)
    window = {"upstream": 3, "downstream": 2}
    (folder / "manifest.json").write_text(json.dumps({"complete": False, "window": window}))
    assert load_contents(folder, ["g5"]).downstream == 2
    with pytest.raises(InputError, match="is not finished"):
        load_contents(folder)
    with pytest.raises(InputError, match="is not finished"):
        next(iterate_scores(folder))
    with pytest.raises(InputError, match="has no scores of nobody"):
        load_contents(folder, ["g5", "nobody"])


@pytest.mark.parametrize("region", [None, (1, 4)])
def test_sequences_without_coordinates_come_back_without(tmp_path: Path, region: tuple[int, int] | None) -> None:
    write_promoters(tmp_path / "data", library_of({"a": "ACGTN", "b": "TTTTT"}))
    genes = read_promoters(tmp_path / "data").genes[GENE_COLUMNS]
    genes = crop_windows(genes, *region) if region else genes
    values = np.zeros((2, 1, 4, len(genes["sequence"][0])), np.float32)
    write_part(part_path(tmp_path / "scores", 0), Scores(genes, ["t"], values[:, :, 0, 0], values), METADATA)
    manifest = {"window": None, "positions": region, "complete": True, "parts": [{"file": "part-00000.parquet"}]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    read = load_scores(tmp_path).genes
    assert read["sequence"].tolist() == (["CGT", "TTT"] if region else ["ACGTN", "TTTTT"])
    assert read[["gene_name", "chrom", "start", "end", "strand"]].isna().all(axis=None)
    contents = load_contents(tmp_path)
    assert (contents.located, contents.noun, contents.downstream) == (False, "sequence", None)
    assert contents.first == (1 if region else 0)


def test_only_positions_without_a_tss_count_from_the_first_base(folder: Path) -> None:
    window = {"upstream": -1, "downstream": 3}
    (folder / "manifest.json").write_text(json.dumps({"window": window, "positions": [1, 3]}))
    contents = load_contents(folder, ["g5"])
    assert (contents.located, contents.noun, contents.first) == (True, "gene", 0)


def test_the_manifest_is_found_from_the_run_and_from_its_scores(folder: Path) -> None:
    assert find_manifest(folder) is find_manifest(folder / "scores") is None
    (folder / "manifest.json").write_text("{}")
    for given in (folder, folder / "scores", str(folder / "scores")):
        assert str(find_manifest(given)) == str(folder / "manifest.json")
    (folder / "scores" / "manifest.json").write_text("{}")  # the nearer one is taken
    assert str(find_manifest(folder / "scores")) == str(folder / "scores" / "manifest.json")


def complete(folder: Path) -> dict[str, Any]:
    """Let the fixture's parts be those of a finished run; return the manifest."""
    ids = [one.genes["gene_id"].tolist() for one in ALL]
    parts = PartFiles(resolve(folder), "scores", ids, [METADATA] * 3, {"genes": 7, "genes_per_part": 3})
    assert parts.missing() == []
    parts.write_manifest(complete=True)
    return json.loads((folder / "manifest.json").read_text())


def test_the_manifest_lists_the_checksums_of_the_parts(folder: Path) -> None:
    for part_file, entry in zip(sorted((folder / "scores").iterdir()), complete(folder)["parts"], strict=True):
        content = part_file.read_bytes()
        footer = content[-8 - int.from_bytes(content[-8:-4], "little") :]
        assert entry == {
            "file": f"scores/{part_file.name}",
            "genes": len(pq.read_table(part_file)),
            "sha256": hashlib.sha256(content).hexdigest(),
            "footer_sha256": hashlib.sha256(footer).hexdigest(),
        }
    assert_same(load_scores(folder), WHOLE)


def _list_twice(manifest: dict[str, Any]) -> None:
    manifest["parts"][2] = manifest["parts"][1]


def _list_too_few(manifest: dict[str, Any]) -> None:
    del manifest["parts"][1]


@pytest.mark.parametrize("change", [_list_twice, _list_too_few])
@pytest.mark.parametrize("genes", [None, ["g0"]])
def test_a_manifest_that_lists_other_parts_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], genes: list[str] | None
) -> None:
    manifest = complete(folder)
    change(manifest)
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"^{path}: is not what was written .*; copy it again"):
        load_scores(folder, genes)
    path.write_text(json.dumps({key: value for key, value in manifest.items() if key != "sha256"}))
    with pytest.raises(InputError, match=rf"^{path}: lists (part-00001.parquet twice|4 of 7 genes); copy the"):
        load_scores(folder, genes)


def test_a_part_other_than_the_listed_one_is_refused_and_computed_again(folder: Path) -> None:
    complete(folder)
    path = folder / "scores" / "part-00001.parquet"
    scores = replace(ALL[1], scores=ALL[1].scores + 1)
    write_part(path, scores, METADATA)  # intact, of the same genes and models
    ids = [one.genes["gene_id"].tolist() for one in ALL]
    readers = (
        lambda: load_scores(folder),
        lambda: load_scores(folder, ["g3"]),
        lambda: load_contents(folder),
        lambda: list(iterate_scores(folder)),
        lambda: list(iterate_scores(folder, ["g3"])),
        lambda: list(iterate_scores(folder, targets=TARGETS[:1])),
    )
    for read in readers:
        with pytest.raises(InputError, match=rf"^{path}: is not what was written .*; run the same job again"):
            read()
    assert PartFiles(
        resolve(folder), "scores", ids, [METADATA] * 3, {"genes": 7, "genes_per_part": 3}
    ).missing() == [1]


def test_each_part_is_read_whole_once_however_often_it_is_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [one.genes["gene_id"].tolist() for one in ALL]
    parts = PartFiles(resolve(folder), "scores", ids, [METADATA] * 3, {"genes": 7, "genes_per_part": 3})
    whole: list[str] = []

    def check(path: UPath, *arguments: Any) -> Checksums | None:
        whole.append(path.name)
        return check_part(path, *arguments)

    monkeypatch.setattr("promoter.storage.parts.check_part", check)
    (folder / "scores" / "part-00000.parquet").unlink()
    assert parts.missing() == parts.missing() == [0]
    parts.known[0] = write_part(part_path(folder / "scores", 0), ALL[0], METADATA)
    assert parts.missing() == []
    assert sorted(whole) == ["part-00001.parquet", "part-00002.parquet"]
    write_part(part_path(folder / "scores", 1), replace(ALL[1], predictions=ALL[1].predictions + 1), METADATA)
    (folder / "scores" / "part-00002.parquet").unlink()
    assert parts.missing() == [1, 2]
