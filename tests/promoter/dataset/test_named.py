from __future__ import annotations

import gzip
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from promoter.dataset import named as data
from promoter.dataset.named import fetch_yeast
from promoter.errors import InputError

DERIVED = ["genes.bed", "expression.tsv", "salt_response.tsv", "genome.fa"]


@pytest.fixture
def originals(yeast: Path, tmp_path: Path) -> Path:
    """A folder with the originals, in which a test may spoil one."""
    folder = tmp_path / "originals"
    folder.mkdir()
    for file in (yeast / "original").iterdir():
        (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror("the tests have no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _as_shared(yeast: Path, name: str) -> bytes:
    return (
        gzip.decompress((yeast / "genome.fa.gz").read_bytes())
        if name == "genome.fa"
        else (yeast / name).read_bytes()
    )


def test_the_yeast_data_derived_from_the_originals_equal_the_shared_data(
    yeast: Path, tmp_path: Path, offline: None
) -> None:
    files = fetch_yeast(tmp_path, yeast / "original")
    assert [str(tmp_path / name) for name in DERIVED] == [
        str(path) for path in (files.genes, files.levels, files.salt_response, files.genome)
    ]
    for name in DERIVED:
        assert (tmp_path / name).read_bytes() == _as_shared(yeast, name), name


def test_yeast_originals_may_be_plain_or_gzip(yeast: Path, originals: Path, tmp_path: Path, offline: None) -> None:
    for name in ("lactate_allSamples.featureCounts.txt", "osmo_rawReadCounts_merged_no_mutants.tab"):
        packed = originals / f"{name}.gz"
        (originals / name).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    fetch_yeast(tmp_path, originals)
    for name in DERIVED:
        assert (tmp_path / name).read_bytes() == _as_shared(yeast, name), name


@pytest.mark.parametrize(
    "name",
    [
        "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz",
        "Saccharomyces_cerevisiae.R64-1-1.109.gtf.gz",
        "lactate_allSamples.featureCounts.txt.gz",
        "lactate_sample_table.txt",
        "osmo_rawReadCounts_merged_no_mutants.tab.gz",
        "osmo_sample_classification.tab",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "changed", "truncated"])
def test_a_spoiled_original_of_a_named_data_set_is_refused_by_name(
    originals: Path, tmp_path: Path, offline: None, name: str, damage: str
) -> None:
    path = originals / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        changed = gzip.decompress(content) if name.endswith(".gz") else content
        changed = changed.replace(b"1", b"2", 1)
        path.write_bytes(gzip.compress(changed, 1, mtime=0) if name.endswith(".gz") else changed)
    with pytest.raises(InputError) as error:
        fetch_yeast(tmp_path / "derived", originals)
    message = str(error.value)
    assert str(originals / name.removesuffix(".gz")) in message
    assert "`cache`" in message or "delete it and run again" in message
    assert "\n" not in message
    assert not (tmp_path / "derived").exists()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address of a server on this machine, and its folder `served`."""
    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "served"))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("whole", [True, False])
def test_a_missing_original_of_a_named_data_set_is_downloaded_checked_and_kept(
    yeast: Path,
    originals: Path,
    tmp_path: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    whole: bool,
) -> None:
    name = "osmo_sample_classification.tab"
    served = tmp_path / "served" / name
    shutil.move(originals / name, served)
    content = served.read_bytes()
    monkeypatch.setattr(data, "OSMO_SAMPLES", data.OSMO_SAMPLES._replace(url=f"{address}/{name}"))
    told: list[str] = []
    if whole:
        fetch_yeast(tmp_path / "derived", originals, told.append)
        assert told == [name]
        assert capfd.readouterr() == ("", "")  # nothing of pooch's own
        assert (originals / name).read_bytes() == content
        assert (tmp_path / "derived" / "salt_response.tsv").read_bytes() == _as_shared(yeast, "salt_response.tsv")
        return
    served.unlink()
    served.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{address}/{name}: cannot be downloaded \(SHA256.*`cache`"):
        fetch_yeast(tmp_path / "derived", originals)
    assert not (originals / name).exists()
    assert not (tmp_path / "derived").exists()
