"""A path that no file system takes is refused in one line, wherever it is given, as an input or an output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promoter import storage
from promoter.checkpoint import serialize_models
from promoter.dataset.aliases import read_chrom_names
from promoter.dataset.annotation import read_genes
from promoter.dataset.expression import read_expression
from promoter.dataset.genome import Genome
from promoter.dataset.library import read_library
from promoter.dataset.promoters import locate
from promoter.dataset.samples import read_replicates
from promoter.dataset.transcripts import read_tx2gene
from promoter.errors import InputError
from promoter.ism import load_scores
from promoter.ism.scores_format import find_manifest
from promoter.ism.store import load_contents
from promoter.models.config import PretrainedConfig
from promoter.models.weights import fetch_trunk
from promoter.motifs.known import read_motifs
from promoter.report.build import build_report

READERS: dict[str, Callable[[str], Any]] = {
    "genome": Genome,
    "genes": read_genes,
    "expression": read_expression,
    "sequences": read_library,
    "replicates": read_replicates,
    "tx2gene": read_tx2gene,
    "chrom_names": read_chrom_names,
    "data": locate,
    "scores": load_scores,
    "contents": load_contents,
    "manifest": find_manifest,
    "motifs": read_motifs,
    "model": lambda path: serialize_models([path]),
    "report": build_report,
    "weights": lambda path: fetch_trunk(PretrainedConfig(weights=path)),
    "out": storage.require_writable,
    "file": lambda path: storage.write_text(path, ""),
    "yaml": storage.read_yaml,
}
PATHS = {
    "300 letters": "n" * 300,
    "5,000 letters": "n" * 5000,
    "128 letters of two bytes": "é" * 128,
    "a long folder": "n" * 256 + "/a",
    "many folders": "/".join(["folder"] * 700),
    "NUL": "a\0b",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_no_file_system_takes_is_refused(
    reader: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"has a (name|path) of [\d,]+ bytes|holds the letter NUL") as error:
        READERS[reader](PATHS[path])
    assert len(str(error.value)) < 600
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_names_that_a_file_system_takes_are_written_and_read(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127):
        storage.write_text(tmp_path / name, "content")
        assert (tmp_path / name).read_bytes() == b"content"
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()
