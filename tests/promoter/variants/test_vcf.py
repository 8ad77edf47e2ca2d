"""Reading VCF files: kinds of files that read alike, and files that are refused."""

from __future__ import annotations

import bz2
import gzip
import warnings
from pathlib import Path

import pytest
from Bio.bgzf import BgzfBlocks, BgzfWriter
from hypothesis import example, given
from hypothesis import strategies as st
from support.files import Write
from support.variant_cases import VCF_HEADER, vcf_line

from promoter.errors import InputError, InputNote, InputWarning
from promoter.variants.vcf import REASONS, VcfRecord, read_records, require_usable

LINE = vcf_line("1", 5, "A", "C")
HEADER_OF_SAMPLES = VCF_HEADER.rstrip() + "\tFORMAT\ts1\ts2\n"


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip", "bcf"])
def test_plain_gzip_bgzip_and_bcf_variants_read_alike(
    write: Write, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
):
    from cyvcf2 import VCF, Writer  # noqa: PLC0415 # with the library's own import, a lazy one

    text = (
        VCF_HEADER.replace("#CHROM", "##contig=<ID=1>\n#CHROM")
        + "1\t9\t.\tA\tC,G\t.\t.\t.\n1\t3\t.\tAC\tA\t.\t.\t.\n"
    )
    path = write("in.vcf", text)
    if kind == "gzip":
        path = write("in.vcf.gz", gzip.compress(text.encode()))
    elif kind != "plain":
        template = VCF(str(path))
        path = tmp_path / f"out.{kind}"
        writer = Writer(str(path), template, mode="wz" if kind == "bgzip" else "wb")
        for record in template:
            writer.write_record(record)
        writer.close()
    assert list(read_records(path)) == [VcfRecord("1", 9, "A", ["C", "G"]), VcfRecord("1", 3, "AC", ["A"])]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (VCF_HEADER, "holds no variants"),
        (VCF_HEADER + "\n\n", "holds no variants"),
        ("chr1\t5\t9\tgene\n", "is neither VCF nor BCF"),
        ("#chrom\tstart\tend\nchr1\t5\t9\n", "is neither VCF nor BCF"),
        ("##fileformat=VCFv4.2\n", "no line '#CHROM'"),
        ("##fileformat=VCFv4.2\n" + LINE, "line 2 comes before any line '#CHROM'"),
        (VCF_HEADER + LINE + "1\tx\t.\tA\tC\t.\t.\t.\n", "line 4 is no variant .*position 'x'"),
        (VCF_HEADER + "1\t-5\t.\tA\tC\t.\t.\t.\n", "line 3 is no variant .*position '-5'"),
        (VCF_HEADER + "1\t٣\t.\tA\tC\t.\t.\t.\n", "line 3 is no variant .*position"),
        (VCF_HEADER + "1\t1e5\t.\tA\tC\t.\t.\t.\n", "line 3 is no variant .*position"),
        (VCF_HEADER + f"1\t{10**20}\t.\tA\tC\t.\t.\t.\n", "line 3 is no variant .*position '1000"),
        (VCF_HEADER + f"1\t{'9' * 9999}\t.\tA\tC\t.\t.\t.\n", "line 3 is no variant .*position '9999"),
        (VCF_HEADER + "1\t5\t.\t\tC\t.\t.\t.\n", "line 3 is no variant .*lacks"),
        (VCF_HEADER + "\t5\t.\tA\tC\t.\t.\t.\n", "line 3 is no variant .*lacks"),
        (VCF_HEADER + "1\t5\t.\tA\t\t.\t.\t.\n", "line 3 is no variant .*lacks"),
        (VCF_HEADER + "1\t5\t.\tA\tC,,G\t.\t.\t.\n", "line 3 is no variant .*lacks"),
        (VCF_HEADER + "1\t5\t.\tA\tC\n", "line 3 is no variant .*has 5 columns"),
        (VCF_HEADER + "1 5 . A C . . .\n", "line 3 is no variant .*has 1 columns"),
        (VCF_HEADER + LINE.rstrip() + "\tGT\n", "line 3 is no variant .*has 9 columns, the header 8"),
        (
            HEADER_OF_SAMPLES + LINE.rstrip() + "\tGT\t0/1\n",
            "line 3 is no variant .*has 10 columns, the header 11",
        ),
        (VCF_HEADER.replace("\t", " ") + LINE, "line 2, the header, must begin with #CHROM POS .* split by tabs"),
        (VCF_HEADER.replace("POS\tID", "ID\tPOS") + LINE, "line 2, the header, must begin with #CHROM POS"),
        (HEADER_OF_SAMPLES.replace("FORMAT\t", "") + LINE, "line 2, the header, has 's1' for its column 9"),
        (HEADER_OF_SAMPLES.replace("s2", "s1") + LINE, "line 2, the header, has two samples named 's1'"),
        (VCF_HEADER + LINE + "1\t5\t.\tA\0\tC\t.\t.\t.\n", "bytes that are 0"),
        (b"BCF\2\2", "cannot be read to its end"),
        (gzip.compress((VCF_HEADER + vcf_line("1", 5, "A", "C") * 999).encode(), mtime=0)[:-20], "damaged"),
        (b"\x1f\x8b\x08\x00\x00", "damaged"),
    ],
)
def test_a_file_that_is_no_vcf_is_refused_in_one_line(
    write: Write, content: str | bytes, message: str, capfd: pytest.CaptureFixture[str]
):
    path = write("x.vcf", content)
    with pytest.raises(InputError, match=message) as raised:
        list(read_records(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_a_vcf_cut_between_two_blocks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.vcf.gz"
    with BgzfWriter(str(path)) as file:
        file.write(VCF_HEADER + vcf_line("1", 5, "A", "C") * 9999)
    assert len(list(read_records(path))) == 9999
    blocks = list(BgzfBlocks(path.open("rb")))
    path.write_bytes(path.read_bytes()[: blocks[1][0]])
    with pytest.raises(InputError, match=r"cut\.vcf\.gz: the bgzip data ends early \(no end marker\)"):
        list(read_records(path))


RECORDS = [VcfRecord("1", 5, "A", ["C"]), VcfRecord("1", 6, "AC", ["A", "<DEL>"]), VcfRecord("2", 0, "n", [])]
BODY = "1\t5\t.\tA\tC\t.\t.\t.\n1\t6\trs1\tAC\tA,<DEL>\t.\t.\tEND=9\n2\t0\t.\tn\t.\t.\t.\t.\n"


@pytest.mark.parametrize(
    "content",
    [
        VCF_HEADER + BODY,
        (VCF_HEADER + BODY).replace("\n", "\r\n"),
        (VCF_HEADER + BODY).rstrip("\n"),
        VCF_HEADER + BODY.replace("\n", "\n\n") + "\n \n",
        VCF_HEADER + BODY.replace("\n", "\t\n"),
        "\ufeff" + VCF_HEADER + BODY,
        VCF_HEADER.partition("\n")[2] + BODY,
        VCF_HEADER.replace("#CHROM", "##contig=<ID=1,\n##\n#CHROM") + BODY,
        HEADER_OF_SAMPLES + BODY.replace("\n", "\tGT\t0/1\t./.\n"),
        VCF_HEADER + BODY.replace("END=9", "X=" + "A" * 300_000),
        bz2.compress((VCF_HEADER + BODY).encode()),
    ],
)
def test_a_vcf_reads_alike_however_it_is_written(write: Write, content: str | bytes) -> None:
    assert list(read_records(write("in.vcf", content))) == RECORDS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ((VCF_HEADER + BODY.replace("END=9", "CLN=Behçet")).encode("latin-1"), "line 4 is not UTF-8"),
        ((VCF_HEADER + BODY).encode("utf-16"), "is read as UTF-16"),
    ],
)
def test_another_encoding_of_a_vcf_is_read_and_said(write: Write, content: bytes, said: str) -> None:
    with pytest.warns(InputNote, match=said):
        assert list(read_records(write("in.vcf", content))) == RECORDS


def test_joined_vcfs_are_read_to_the_end_each_by_its_own_header(write: Write) -> None:
    other = HEADER_OF_SAMPLES + "##late=1\n" + BODY.replace("\n", "\tGT\t0/1\t./.\n")
    with pytest.warns(InputNote, match="line 6 is a header among the records"):
        assert list(read_records(write("in.vcf", VCF_HEADER + BODY + other))) == RECORDS * 2
    with (
        pytest.warns(InputNote, match="line 6 is a header"),
        pytest.raises(InputError, match=r"line 8 .*has 8 columns, the header 11"),
    ):
        list(read_records(write("in.vcf", VCF_HEADER + BODY + HEADER_OF_SAMPLES + BODY)))


def naive(text: str) -> list[VcfRecord]:
    """Read records as a script would."""
    lines = [line.split("\t") for line in text.split("\n") if line.strip() and not line.startswith("#")]
    return [
        VcfRecord(line[0], int(line[1]), line[3], line[4].split(",") if line[4] != "." else []) for line in lines
    ]


CELL = st.sampled_from(
    ["1", "chr1", "5", "0", "99999999999999999999", "", ".", "A", "AC", "A,C", "<DEL>", "*", " ", "é"]
)
ODD_LINES = st.lists(
    st.one_of(
        st.lists(CELL, max_size=12).map("\t".join),
        st.just(LINE.strip()),
        st.sampled_from([*VCF_HEADER.split("\n"), *HEADER_OF_SAMPLES.split("\n"), "#", ""]),
        st.text(max_size=9),
    ),
    max_size=6,
)


@given(ODD_LINES.map(lambda lines: (VCF_HEADER + "\n".join(lines)).encode()) | st.binary(max_size=99))
@example(b"##fileformat=VCFv4.2\n#CHROM")
def test_any_bytes_are_records_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.vcf"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNote)
        try:
            found = list(read_records(path))
        except InputError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 # either may come
        else:
            assert found == naive(content.decode().replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", ""))


def counts(**given: int) -> dict[str, int]:
    return {**dict.fromkeys([*REASONS, "in_windows", "outside"], 0), **given}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ref_mismatch": 9}, r"v\.vcf: no allele can be used \(9: REF is not .*another assembly\?"),
        ({"chromosome": 5, "symbolic": 2}, r"5: the genome has no such chromosome, 2: symbolic.*`chrom_names`"),
        ({"symbolic": 3}, r"3: symbolic allele.*right file"),
    ],
)
def test_a_vcf_of_which_no_allele_can_be_used_is_refused_with_the_reasons(
    given: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        require_usable("v.vcf", "g.fa", counts(**given))


def test_most_alleles_unlike_the_genome_or_none_in_a_window_is_a_warning() -> None:
    with pytest.warns(InputWarning, match=r"REF of 6 of 11 alleles is not what g\.fa has there"):
        require_usable("v.vcf", "g.fa", counts(ref_mismatch=6, in_windows=2, outside=3, symbolic=99))
    with pytest.warns(InputWarning, match="none of 3 alleles alters a window"):
        require_usable("v.vcf", "g.fa", counts(outside=3))
    require_usable("v.vcf", "g.fa", counts(ref_mismatch=5, in_windows=5))


def bcf_of(write: Write, folder: Path, text: str) -> Path:
    from cyvcf2 import VCF, Writer  # noqa: PLC0415 # with the library's own import, a lazy one

    template = VCF(str(write("in.vcf", text)))
    path = folder / "out.bcf"
    writer = Writer(str(path), template, mode="wb")
    for record in template:
        writer.write_record(record)
    writer.close()
    return path


def test_a_damaged_bcf_is_an_error_and_never_the_end_of_the_process(write: Write, tmp_path: Path) -> None:
    header = VCF_HEADER.replace("#CHROM", "##contig=<ID=1>\n#CHROM")
    path = bcf_of(write, tmp_path, header + vcf_line("1", 5, "A", "C").replace("END=5", ".") * 9)
    plain = gzip.decompress(path.read_bytes())
    for number, content in enumerate((plain[:-5], plain[:-9] + b"\xff" * 9, plain[:60] + b"\xff" * 400)):
        damaged = write(f"{number}.bcf", content)
        with pytest.raises(InputError, match=f"^{damaged}: cannot be read to its end"):
            list(read_records(damaged))
    path.write_bytes(path.read_bytes()[:-28])
    with pytest.raises(InputError, match="no end marker"):
        list(read_records(path))


def test_a_bcf_need_not_be_read_to_its_end(write: Write, tmp_path: Path) -> None:
    header = VCF_HEADER.replace("#CHROM", "##contig=<ID=1>\n#CHROM")
    path = bcf_of(write, tmp_path, header + vcf_line("1", 5, "A", "C").replace("END=5", ".") * 30_000)
    records = read_records(path)
    assert next(records) == VcfRecord("1", 5, "A", ["C"])
    records.close()  # type: ignore[attr-defined] # of a generator
