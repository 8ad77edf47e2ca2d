"""Make links to public genome browsers."""

from __future__ import annotations

import re
from urllib.parse import quote

from promoter.errors import InputError

_UCSC = "https://genome.ucsc.edu/cgi-bin/hgTracks?db={db}&position={region}"
_ENSEMBL = "https://{host}/{species}/Location/View?r={region}"
# UCSC's name of an assembly that Ensembl shows -> Ensembl's server and name of the species
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
    """Translate the name of an assembly into UCSC's.

    Args:
        name: UCSC's name of a genome assembly, which is returned unchanged, or Ensembl's.

    Raises:
        InputError: the name cannot be that of an assembly.
    """
    if not re.fullmatch(r"[A-Za-z]{2,}[A-Za-z0-9]*\d+|GC[AF]_\d+\.\d+", known := _SYNONYMS.get(name, name)):
        problem = "must be a name as UCSC or Ensembl has it, such as hg38 or sacCer3"
        raise InputError(problem, setting="assembly", value=name)
    return known


def browser_links(assembly: str, chrom: str, start: int, end: int) -> dict[str, str]:
    """Make links to an interval in each browser that shows the assembly.

    Args:
        assembly: UCSC's name of the assembly, as `require_assembly` returns it.
        chrom: chromosome, in any spelling.
        start: first position, 0-based; positions before the chromosome are left out.
        end: position after the last one.

    Returns:
        Name of the browser -> address.
    """
    bare = re.sub(r"^chr(?=.)", "", chrom)
    mitochondrial = bare in _MITOCHONDRIA
    interval = f"{max(start, 0) + 1}-{end}"  # both browsers count from 1 and include the last base
    named = chrom if assembly.startswith("GC") else "chrM" if mitochondrial else f"chr{bare}"
    links = {"UCSC": _UCSC.format(db=quote(assembly), region=quote(f"{named}:{interval}"))}
    if assembly in _ENSEMBL_OF:
        host, species = _ENSEMBL_OF[assembly]
        named = {"sacCer3": "Mito", "ce11": "MtDNA", "dm6": "mitochondrion_genome"}.get(assembly, "MT")
        region = quote(f"{named if mitochondrial else bare}:{interval}")
        links["Ensembl"] = _ENSEMBL.format(host=host, species=species, region=region)
    return links
