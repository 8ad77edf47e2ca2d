"""Links to the public genome browsers."""

from __future__ import annotations

import re
from urllib.parse import quote

from promoter.errors import InputError

_UCSC = "https://genome.ucsc.edu/cgi-bin/hgTracks?db={db}&position={region}"
_ENSEMBL = "https://{host}/{species}/Location/View?r={region}"
# the UCSC name of an assembly that Ensembl shows -> Ensembl's server and name of the species
_ENSEMBL_OF = {
    "hg38": ("www.ensembl.org", "Homo_sapiens"),
    "hg19": ("grch37.ensembl.org", "Homo_sapiens"),
    "mm39": ("www.ensembl.org", "Mus_musculus"),
    "rn7": ("www.ensembl.org", "Rattus_norvegicus"),
    "danRer11": ("www.ensembl.org", "Danio_rerio"),
    "dm6": ("www.ensembl.org", "Drosophila_melanogaster"),
    "ce11": ("www.ensembl.org", "Caenorhabditis_elegans"),
    "sacCer3": ("www.ensembl.org", "Saccharomyces_cerevisiae"),
}
_SYNONYMS = {
    "GRCh38": "hg38",
    "GRCh37": "hg19",
    "GRCm39": "mm39",
    "GRCm38": "mm10",
    "mRatBN7.2": "rn7",
    "GRCz11": "danRer11",
    "BDGP6": "dm6",
    "WBcel235": "ce11",
    "R64-1-1": "sacCer3",
}
_MITOCHONDRIA = ("M", "MT", "Mito", "MtDNA")


def require_assembly(name: str) -> str:
    """Return the UCSC name of an assembly, given that or Ensembl's.

    Raises:
        InputError: what cannot be the name of an assembly.
    """
    if not re.fullmatch(r"[A-Za-z]{2,}[A-Za-z0-9]*\d+|GC[AF]_\d+\.\d+", known := _SYNONYMS.get(name, name)):
        raise InputError(f"--assembly {name}: must be a name as UCSC or Ensembl has it, such as hg38 or sacCer3")
    return known


def browser_links(assembly: str, chrom: str, start: int, end: int) -> dict[str, str]:
    """Return the name of each browser that shows the assembly, and its address of a stretch.

    Args:
        assembly: as `require_assembly` returns it.
        chrom: in any spelling.
        start: 0-based; what lies before the chromosome is left out.
        end: exclusive.
    """
    bare = re.sub(r"^chr(?=.)", "", chrom)
    mitochondrial = bare in _MITOCHONDRIA
    stretch = f"{max(start, 0) + 1}-{end}"  # both count from 1 and show the last base, too
    named = chrom if assembly.startswith("GC") else "chrM" if mitochondrial else f"chr{bare}"
    links = {"UCSC": _UCSC.format(db=quote(assembly), region=quote(f"{named}:{stretch}"))}
    if assembly in _ENSEMBL_OF:
        host, species = _ENSEMBL_OF[assembly]
        named = {"sacCer3": "Mito", "ce11": "MtDNA", "dm6": "mitochondrion_genome"}.get(assembly, "MT")
        region = quote(f"{named if mitochondrial else bare}:{stretch}")
        links["Ensembl"] = _ENSEMBL.format(host=host, species=species, region=region)
    return links
