"""FASTA as it comes: read as a naive reader reads it, or refused with line and record."""

from __future__ import annotations

import bz2
import gzip
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Write, bgzip

from promoter.dataset.fasta import read_fasta
from promoter.dataset.genome import Genome
from promoter.errors import InputError, InputNote, StorageError
from promoter.storage import resolve

RECORDS = {"chr1": "ACGTTGCAAN" * 12 + "acgRYt", "2": "GATTACA", "chrM": "C"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


def fasta(records: dict[str, str], width: int = 50) -> str:
    lines = []
    for name, sequence in records.items():
        lines += [f">{name} a chromosome", *(sequence[i : i + width] for i in range(0, len(sequence), width))]
    return "\n".join(lines) + "\n"


def as_bases(sequence: str) -> str:
    return sequence.upper().replace("U", "T")


def naive(text: str) -> dict[str, str]:
    """Read a FASTA in the simplest way."""
    records = text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n").split(">")[1:]
    return {record.split()[0]: as_bases("".join(record.partition("\n")[2].split())) for record in records}


def whole(path: Path) -> tuple[dict[str, str], list[str]]:
    """Read a FASTA through `Genome`, and collect what is said about it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        genome = Genome(path)
        found = {name: genome.fetch(name, 0, length) for name, length in genome.lengths.items()}
        for name, sequence in found.items():  # short windows meet other line ends than a long one
            for start in range(0, len(sequence), 7):
                assert genome.fetch(name, start, start + 3) == (sequence + "NNN")[start : start + 3]
        genome.close()
    return found, [str(one.message) for one in said if isinstance(one.message, InputNote)]


PLAIN = fasta(RECORDS)
READ_IN_PLACE = {
    "lines": PLAIN,
    "crlf": PLAIN.replace("\n", "\r\n"),
    "no last line end": PLAIN.rstrip("\n"),
    "spaces at line ends": PLAIN.replace("\n", " \n"),
    "a tab at line ends": PLAIN.replace("\n", "\t\r\n"),
    "blank lines at the end": PLAIN + "\n\n \n",
    "blank lines between records": PLAIN.replace(">", "\n\n>"),
    "blank lines after headers": PLAIN.replace("chromosome\n", "chromosome\n\n"),
    "byte-order mark": "\ufeff" + PLAIN,
    "byte-order mark and a blank line": "\ufeff\n" + PLAIN,
    "comments at the start": "; by hand\n\n" + PLAIN,
    "rna": PLAIN.replace("T", "U").replace("t", "u"),
    "latin-1 in a header": PLAIN.replace("a chromosome", "Müller").encode("latin-1"),
    "space before the name": PLAIN.replace(">", "> "),
}
COPIED = {
    "uneven lines": PLAIN.replace("CGTTG", "CG\nTTG", 2),
    "spaces at some line ends": PLAIN.replace("\n", " \n", 2),
    "spaces within lines": PLAIN.replace("ACGTT", "ACG TT"),
    "a blank line within a record": PLAIN.replace("\n", "\n\n", 2),
    "another end of the last full line": ">a\nACG \nACG \nACG\n>b\nA\n",
    "lone carriage returns": PLAIN.replace("\n", "\r"),
    "utf-16": PLAIN.encode("utf-16"),
    "joined with byte-order marks": "\ufeff" + PLAIN.replace(">2", "\ufeff>2"),
    "gzip": gzip.compress(PLAIN.encode(), mtime=0),
    "bzip2": bz2.compress(PLAIN.encode()),
}


@pytest.mark.parametrize("kind", READ_IN_PLACE)
@pytest.mark.parametrize("packed", [False, True])
def test_a_FASTA_with_lines_of_one_length_is_read_in_place(
    write: Write, tmp_path: Path, cache: Path, kind: str, packed: bool
) -> None:
    content = READ_IN_PLACE[kind]
    data = content if isinstance(content, bytes) else content.encode()
    path = bgzip(tmp_path / "g.fa.gz", data, block=37) if packed else write("g.fa", data)
    before = sorted(cache.rglob("*"))
    expected = {name: as_bases(sequence) for name, sequence in RECORDS.items()}
    assert whole(path) == (expected, [])
    assert whole(path) == (expected, [])  # by the index that the first one wrote
    assert sorted(cache.rglob("*")) == before
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert dict(read_fasta(resolve(path))) == expected
    assert ["is not UTF-8" in str(one.message) for one in said] == [True] * (kind == "latin-1 in a header")


@pytest.mark.parametrize("kind", COPIED)
def test_another_FASTA_is_read_from_a_copy_that_is_made_once(write: Write, cache: Path, kind: str) -> None:
    content = COPIED[kind]
    path = write("g.fa", content)
    expected = {name: as_bases(sequence) for name, sequence in RECORDS.items()}
    if kind == "another end of the last full line":
        expected = {"a": "ACGACGACG", "b": "A"}
    found, said = whole(path)
    assert found == expected
    copies = {copy: copy.stat().st_mtime_ns for copy in cache.rglob("*-g.fa.regular.fa")}
    assert [line for line in said if any(str(copy) in line for copy in copies)]
    found, said = whole(path)
    assert found == expected
    assert said == []
    assert {copy: copy.stat().st_mtime_ns for copy in copies} == copies
    assert sorted(one.name for one in path.parent.iterdir()) == ["g.fa"]
    path.write_text(fasta({"new": "ACGT"}))  # another file in its place
    assert whole(path)[0] == {"new": "ACGT"}


def test_descriptions_are_those_of_the_headers(write: Write, tmp_path: Path) -> None:
    for path in (
        write("g.fa", READ_IN_PLACE["blank lines between records"]),
        bgzip(tmp_path / "g.fa.gz", PLAIN.encode(), block=37),
    ):
        genome = Genome(path)
        assert genome.descriptions() == dict.fromkeys(RECORDS, "a chromosome")
        genome.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (">p1 a protein\nMKVLA\n", r"line 2 \(record 'p1'\).*'MKVLA' has 'L'.*protein"),
        (PLAIN + ">p1\nACGT\nMKVQA\n", r"line 11 \(record 'p1'\).*has 'Q'"),
        (">a\nACGT\n1 ACGT\n", r"line 3 \(record 'a'\).*has '1'"),
        (">a\nACGT\n\xe9\n", r"line 3 \(record 'a'\).*has 'é'"),
        (">a\nACGT\n>\nACGT\n", "line 3: the record has no name after '>'"),
        (">a\nACGT\n> \nACGT\n", "line 3: the record has no name after '>'"),
        (">a x\nACGT\n>b\nA\n>a y\nAC\n", "lines 1 and 5: two records are named 'a'"),
        ("chr1\t1\t2\n", "is no FASTA"),
        ("\n\nACGT\n", "is no FASTA"),
        ("@read\nACGT\n+\nIIII\n", "is FASTQ"),
        ("<!DOCTYPE html>\n<html></html>\n", "is HTML"),
        (b"\x43\x27\x41\x1a\0\0\0\0\5\0\0\0", "is 2bit, not text"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_holds_no_bases_is_refused_with_line_and_record(
    write: Write, content: str | bytes, message: str, packed: bool
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    path = write("g.fa", gzip.compress(data, mtime=0) if packed else data)
    for read in (Genome, lambda path: list(read_fasta(resolve(path)))):
        with pytest.raises(InputError, match=message) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)
    assert [one.name for one in path.parent.iterdir()] == ["g.fa"]  # no index of a bad file


@pytest.mark.parametrize("content", [">a\n>b\n", ">a\n\n", "; only a comment\n\n"])
def test_a_FASTA_without_any_base_was_not_written_to_the_end(write: Write, content: str) -> None:
    with pytest.raises(InputError, match=r"holds no (bases|record); was it written to the end\?"):
        Genome(write("g.fa", content))


def test_an_empty_record_is_a_warning_of_a_genome_and_an_error_of_sequences(write: Write) -> None:
    path = write("g.fa", ">a\n>b\nACGT\n>c\n")
    found, said = whole(path)
    assert found == {"a": "", "b": "ACGT", "c": ""}
    assert said == [f"{path}: 2 records have no bases (a, c); was it written to the end?"]
    with pytest.raises(InputError, match="record 'a' has no sequence"):
        list(read_fasta(resolve(path)))


@pytest.mark.parametrize("letter", ["X", "x", "-", ".", "*"])
def test_masks_and_gaps_are_read_as_N_and_it_is_said(write: Write, letter: str) -> None:
    path = write("g.fa", f">a\nACGT{letter}\nAC\n")
    found, said = whole(path)
    assert found == {"a": f"ACGT{letter.upper()}AC"}
    assert said == [f"{path}: letters such as '{letter.upper()}' (a:0-7) are read as N"]
    with pytest.warns(InputNote, match="1 letters X.* are read as N"):
        assert dict(read_fasta(resolve(path))) == found


def test_a_damaged_bgzip_is_refused_by_name_though_its_index_is_whole(tmp_path: Path) -> None:
    path = bgzip(tmp_path / "g.fa.gz", fasta({"a": "ACGTACCA" * 5000}, 80).encode(), block=8000)
    Genome(path).close()
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 9] = b"\xff" * 9
    path.write_bytes(damaged)
    for file in tmp_path.glob("g.fa.gz.*"):
        os.utime(file, (path.stat().st_mtime + 9, path.stat().st_mtime + 9))
    genome = Genome(path)
    with pytest.raises(InputError, match=rf"^{path}: a:0-40000 cannot be read"):
        genome.fetch("a", 0, 40_000)
    for file in tmp_path.glob("g.fa.gz.*"):
        file.unlink()
    with pytest.raises(InputError, match=f"^{path}: the gzip data ends early or is damaged"):
        Genome(path)


def test_bgzip_of_any_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "g.fa"
    path.write_bytes(bgzip(tmp_path / "g.fa.gz", PLAIN.encode(), block=37).read_bytes())
    assert whole(path)[0] == naive(PLAIN)


def test_a_genome_from_a_pipe_is_read_and_leaves_nothing_in_the_cache(tmp_path: Path, cache: Path) -> None:
    before = sorted(cache.rglob("*"))
    for name, content in (("plain.fa", PLAIN.encode()), ("packed.fa", gzip.compress(PLAIN.encode()))):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        if (child := os.fork()) == 0:
            pipe.write_bytes(content)
            os._exit(0)
        assert whole(pipe)[0] == naive(PLAIN)
        os.waitpid(child, 0)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["packed.fa", "plain.fa"]
    assert sorted(cache.rglob("*")) == before


def test_a_full_disk_is_named_with_the_fix(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("g.fa.gz", gzip.compress(PLAIN.encode()))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("promoter.storage.atomic.os.fsync", full)
    with pytest.raises(StorageError, match=rf"^{tmp_path / 'cache'}/.*No space left on device.*XDG_CACHE_HOME"):
        Genome(path)
    assert [one for one in (tmp_path / "cache").rglob("*") if one.is_file()] == []


LINE = st.text("ACGTUNRYacgtun", min_size=1, max_size=9)
BLANK = st.sampled_from(["", "", "", " ", "\t"])


@st.composite
def odd_fasta(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a FASTA with lines of any length, line ends and blanks, in any encoding."""
    text = draw(st.sampled_from(["", "\ufeff", "\n", ";note\n"]))
    for index in range(draw(st.integers(1, 4))):
        end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
        width = draw(st.integers(0, 5))
        text += f">r{index}{draw(st.sampled_from(['', ' chromosome I', ' Müller']))}{end}"
        sequence = draw(st.text("ACGTUNRYacgtun", min_size=1, max_size=30))
        lines = (
            [sequence[i : i + width] for i in range(0, len(sequence), width)]
            if width
            else draw(st.lists(LINE, min_size=1, max_size=5))
        )
        text += "".join(line + draw(BLANK) + end for line in lines)
    text = text.rstrip("\r\n") if draw(st.booleans()) else text
    if draw(st.booleans()):
        return text, text.removeprefix("\ufeff").encode("latin-1")
    return text, text.encode(draw(st.sampled_from(["utf-8", "utf-16"])))


@given(odd_fasta(), st.sampled_from([bytes, gzip.compress]))
def test_any_FASTA_reads_as_a_naive_reader_reads_it(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[str, bytes], pack: Callable[[bytes], bytes]
) -> None:
    text, content = drawn
    path = tmp_path_factory.mktemp("any") / "g.fa"
    path.write_bytes(pack(content))
    expected = naive(text)
    assert whole(path)[0] == expected
    assert whole(path)[0] == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNote)
        assert dict(read_fasta(resolve(path))) == expected


@given(st.one_of(st.binary(max_size=60), st.text(">ACGTxa \n\r;-1E\ufeff\0", max_size=60).map(str.encode)))
def test_any_bytes_are_a_genome_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "g.fa"
    path.write_bytes(content)
    try:
        found, _ = whole(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 # either may come
        return
    if all(found.values()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputNote)
            assert dict(read_fasta(resolve(path))) == found


def test_a_damaged_block_anywhere_is_refused_by_name_and_never_read_wrong(tmp_path: Path) -> None:
    sequence = "".join(np.random.default_rng(0).choice(list("ACGT"), 4000))
    path = bgzip(tmp_path / "g.fa.gz", fasta({"a": sequence}, 80).encode(), block=500)
    good = path.read_bytes()
    messages: set[str] = set()
    for with_index in (False, True):
        for position in range(0, len(good) - 28, 29):  # the end marker has 28 bytes
            for damage in (bytes([good[position] ^ 0xFF]), b""):
                for index in tmp_path.glob("g.fa.gz.*"):
                    index.unlink()
                path.write_bytes(good)
                if with_index:
                    Genome(path)
                path.write_bytes(good[:position] + damage + good[position + 1 :])
                os.utime(path, (0, 0))  # older than the index
                try:
                    read = Genome(path).fetch("a", 0, 4000)
                except InputError as error:
                    messages.add(str(error))
                else:  # a byte of no meaning, such as a time
                    assert read == sequence
    assert len(messages) > 20
    assert all(str(path) in message and "\n" not in message for message in messages)
