"""What tests of files share: types of fixtures, a writer of bgzip, and an oracle for windows."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[[str, "str | bytes"], Path]
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


def bgzip(path: Path, content: bytes, block: int = 65_280) -> Path:
    """Write bgzip with blocks of `block` bytes (65,280 is samtools'; Biopython's own are 65,536)."""
    from Bio.bgzf import BgzfWriter  # noqa: PLC0415 # the tests on a GPU do without

    with BgzfWriter(str(path)) as file:
        for start in range(0, len(content), block):
            file.write(content[start : start + block])
            if block < 65_536:
                file.flush()
    return path


def oracle(chromosome: str, tss: int, strand: str, upstream: int, downstream: int) -> str:
    """Cut a promoter in the simplest way: pad the whole chromosome, slice, complement the string."""
    pad = upstream + downstream + len(chromosome) + 1
    at = pad + tss
    padded = "N" * pad + chromosome.upper() + "N" * pad
    if strand == "+":
        return padded[at - upstream : at + downstream]
    return padded[at - downstream + 1 : at + upstream + 1].translate(_COMPLEMENT)[::-1]
