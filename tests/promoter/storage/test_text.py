"""Reading text as it comes: encodings, compression, binary files, pipes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Write

from promoter import storage
from promoter.errors import InputError, InputNote

ROOT = Path(__file__).parents[3]
LINES = ["gene\tvalue\n", "Müller\t1\n", "straße\t2\n"]
TEXT = "".join(LINES)


def read(path: Path) -> tuple[str, list[str]]:
    """Read a file, and collect what is said about it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with storage.open_text(path) as file:
            text = file.read()
    return text, [str(one.message) for one in said if isinstance(one.message, InputNote)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_utf8_reads_alike_with_any_line_end_and_mark(write: Write, encoding: str, end: str) -> None:
    path = write("t.tsv", TEXT.replace("\n", end).encode(encoding))
    assert read(path) == (TEXT, [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_and_utf32_are_read_and_it_is_said(write: Write, encoding: str) -> None:
    path = write("t.tsv", TEXT.encode(encoding))
    assert read(path) == (TEXT, [f"{path}: is read as {encoding.upper()}"])


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_latin1_is_read_and_the_first_such_line_is_named(write: Write, encoding: str) -> None:
    text, said = read(path := write("t.tsv", ("x\n" * 70_000 + TEXT).encode(encoding)))
    assert text == "x\n" * 70_000 + TEXT
    assert said == [f"{path}: line 70002 is not UTF-8; such letters are read as Latin-1: 'Müller\t1'"]


def test_utf8_and_latin1_in_one_file_are_both_read(write: Write) -> None:
    path = write("t.tsv", "é\n".encode() + "é\n".encode("latin-1") + "é€\n".encode() + "€\n".encode("cp1252"))
    text, said = read(path)
    assert text == "é\né\né€\n€\n"
    assert len(said) == 1
    assert "line 2" in said[0]


def test_a_byte_order_mark_within_joined_files_is_left_out(write: Write) -> None:
    assert read(write("t.bed", TEXT.encode("utf-8-sig") * 2))[0] == TEXT * 2


@given(st.text(st.characters(exclude_characters="\r\0\ufeff", exclude_categories=["Cs"])), st.integers(0, 40))
def test_any_utf8_text_is_read_as_it_is(tmp_path_factory: pytest.TempPathFactory, text: str, more: int) -> None:
    text = text + "a" * (65_536 - more) + text  # a letter may lie across two chunks
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode())
    assert read(path) == (text, [])


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(content)
    try:
        text, said = read(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 # either may come
    else:
        assert text.encode(errors="strict") or not content.strip(b"\xef\xbb\xbf\xff\xfe\0")
        assert said or text == content.decode().replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "packed", [gzip.compress, bz2.compress, lzma.compress, lambda _: zipped("t.tsv"), lambda text: text]
)
def test_text_is_unpacked_by_content_and_can_be_rewound(write: Write, packed: Callable[[bytes], bytes]) -> None:
    path = write("t.txt", packed(TEXT.encode()))
    with storage.open_text(path) as file:
        assert file.readline() == LINES[0]
        file.seek(0)
        assert file.readlines() == LINES
    assert storage.first_bytes(path, 4) == b"gene"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(os.urandom(5000), mtime=0)[:-2000], "the gzip data ends early or is damaged"),
        (gzip.compress(b"x" * 5000, mtime=0)[:-6] + b"\0" * 6, "the gzip data ends early or is damaged"),
        (bz2.compress(os.urandom(5000))[:-2000], "the bzip2 data ends early or is damaged"),
        (bz2.compress(b"x" * 5000)[:20] + b"\0" * 30, "the bzip2 data ends early or is damaged"),
        (lzma.compress(os.urandom(5000))[:-2000], "the xz data ends early or is damaged"),
        (zipped("t.tsv")[:-30], "the zip data ends early or is damaged"),
        (zipped("a", "b"), r"is a zip of 2 files \(a, b\)"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "is an Excel workbook"),
        (b"\x28\xb5\x2f\xfd\0\0", "is zstd; unpack it"),
        (gzip.compress(b"BAM\1\0\0\0", mtime=0), "is BAM, not text"),
        (b"\x43\x27\x41\x1a\0\0\0\0\5\0\0\0", "is 2bit, not text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is a PNG image, not text"),
        (b"\x89HDF\r\n\x1a\n\0", "is HDF5, not text"),
        (b"PAR1\x15\0", "is Parquet, not text"),
        (b"\xd0\xcf\x11\xe0\0\0", r"is an Excel workbook \(\.xls\)"),
        (gzip.compress(b"RDX3\nX\n\0\0\0", mtime=0), "is R's data"),
        (b"gene\tvalue\na\0b\t1\n", "is not a text file"),
        (b"gene\tvalue\n" * 9999 + b"a\0b\t1\n", "line 10000 has bytes that are 0"),
        ("x\n".encode("utf-16") + b"\0", "is not a text file"),
    ],
)
def test_what_is_no_text_is_refused_and_named(write: Write, content: bytes, message: str) -> None:
    path = write("t.tsv", content)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        read(path)


@pytest.mark.parametrize("name", ["PAR1", "BCF", "CRAMP1"])
def test_genes_named_like_binary_formats_are_text(write: Write, name: str) -> None:
    assert read(write("t.tsv", f"{name}\t1\n")) == (f"{name}\t1\n", [])


def test_a_named_pipe_is_read_once_and_kept(tmp_path: Path) -> None:
    pipe = tmp_path / "genes.bed"
    os.mkfifo(pipe)
    content = gzip.compress(TEXT.encode() * 50_000)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    kept = storage.require_file(pipe, "annotation")
    writer.join()
    assert kept.suffix == ".bed"
    assert storage.require_file(pipe, "annotation") == storage.resolve(pipe) == kept
    for path in (pipe, Path(str(kept))):
        assert storage.compression(path) == "gzip"
        assert read(path)[0] == TEXT * 50_000


def test_an_empty_pipe_is_an_empty_file(tmp_path: Path) -> None:
    pipe = tmp_path / "genes.bed"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"",))
    writer.start()
    with pytest.raises(InputError, match="annotation is empty"):
        storage.require_file(pipe, "annotation")
    writer.join()


def test_process_substitution_and_stdin_are_read_and_leave_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom promoter import storage\n"
        "for path in sys.argv[1:]:\n"
        "    where = storage.require_file(path, 'table')\n"
        "    with storage.open_text(where) as file: text = file.read()\n"
        "    again = storage.require_file(path, 'table')\n"
        "    print(text.strip(), storage.sha256(path) == storage.sha256(where), again == where)\n"
    )
    shell = f'{sys.executable} -c "$1" <(printf one) <(printf two | gzip) /dev/stdin < <(printf three)'
    done = subprocess.run(
        ["/bin/bash", "-c", shell, "-", code],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["one True True", "two True True", "three True True"], done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_that_does_not_fit_the_temporary_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "x.fa"
    os.mkfifo(pipe)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("promoter.storage.pipes.shutil.copyfileobj", full)
    writer = threading.Thread(target=lambda: os.close(os.open(pipe, os.O_WRONLY)))
    writer.start()
    with pytest.raises(OSError, match=r"x\.fa: is a pipe.*No space left on device.*TMPDIR") as error:
        storage.require_file(pipe, "genome")
    writer.join()
    assert type(error.value).__name__ == "StorageError"
