from __future__ import annotations

import pytest

from promoter.errors import InputError
from promoter.report.browser_links import browser_links, require_assembly


@pytest.mark.parametrize(
    ("assembly", "chrom", "ucsc", "ensembl"),
    [
        (
            "hg38",
            "chr7",
            "db=hg38&position=chr7%3A11-20",
            "www.ensembl.org/Homo_sapiens/Location/View?r=7%3A11-20",
        ),
        ("hg38", "7", "db=hg38&position=chr7%3A11-20", "r=7%3A11-20"),
        ("hg38", "MT", "position=chrM%3A11-20", "r=MT%3A11-20"),
        ("sacCer3", "chrIV", "position=chrIV%3A11-20", "Saccharomyces_cerevisiae/Location/View?r=IV%3A11-20"),
        ("sacCer3", "Mito", "position=chrM%3A11-20", "r=Mito%3A11-20"),
        ("GCF_000001405.40", "NC_000007.14", "position=NC_000007.14%3A11-20", None),
        ("mm10", "chrX", "position=chrX%3A11-20", None),
    ],
)
def test_links_count_from_1_and_spell_chromosomes_as_the_browser_does(
    assembly: str, chrom: str, ucsc: str, ensembl: str | None
) -> None:
    links = browser_links(assembly, chrom, 10, 20)
    assert ucsc in links["UCSC"]
    assert (ensembl is None) == ("Ensembl" not in links)
    assert ensembl is None or ensembl in links["Ensembl"]


def test_browser_links_leave_out_what_lies_before_the_chromosome() -> None:
    assert "chr1%3A1-20" in browser_links("hg38", "chr1", -80, 20)["UCSC"]


def test_a_name_from_a_file_cannot_add_to_a_browser_link() -> None:
    (address,) = browser_links("mm10", "x&y=<b>#", 0, 1).values()
    assert address.endswith("position=chrx%26y%3D%3Cb%3E%23%3A1-1")


def test_assemblies_are_known_by_both_names_and_others_refused() -> None:
    assert [require_assembly(name) for name in ("GRCh38", "hg38", "R64-1-1")] == ["hg38", "hg38", "sacCer3"]
    for name in ("", "hg38&x=1", "human", "../x1"):
        with pytest.raises(InputError, match="such as hg38 or sacCer3"):
            require_assembly(name)
