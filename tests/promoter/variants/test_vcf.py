"""Reading VCF files: kinds of files that read alike, and files that are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from Bio.bgzf import BgzfBlocks, BgzfWriter
from support.files import Write
from support.variant_cases import VCF_HEADER, vcf_line

from promoter.errors import InputError
from promoter.variants.vcf import VcfRecord, read_records


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


def test_a_vcf_without_records_has_none(write: Write):
    assert list(read_records(write("none.vcf", VCF_HEADER))) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("chr1\t5\t9\tgene\n", "is neither VCF nor BCF"),
        ("##fileformat=VCFv4.2\n", "no line '#CHROM'"),
        (VCF_HEADER + vcf_line("1", 5, "A", "C") + "1\tx\t.\tA\tC\t.\t.\t.\n", "line 4 is no variant"),
        (VCF_HEADER + "1\t5\t.\tA\tC\n", "line 3 is no variant"),
        (VCF_HEADER + "1 5 . A C . . .\n", "line 3 is no variant"),
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
