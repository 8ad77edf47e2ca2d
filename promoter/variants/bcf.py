"""Read a BCF in a child process, since htslib ends its process on some damaged files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from upath import UPath

from promoter import storage
from promoter.errors import InputError


def bcf_lines(source: UPath) -> Iterator[str]:
    """Yield each record of a BCF as a line of a VCF, without quality, filters, annotations and samples.

    Raises:
        InputError: the file is damaged.
    """
    with TemporaryDirectory() as folder:
        local = Path(str(source))
        if not storage.is_local(source):
            local = Path(folder) / source.name
            storage.copy_file(source, local)
        # a list without a shell, and a path that is never read as an option
        command = [sys.executable, "-P", "-X", "utf8", __file__, str(local)]
        with (Path(folder) / "errors").open("w+", encoding="utf-8", errors="replace") as errors:
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", errors="replace"
            ) as child:
                assert child.stdout is not None  # noqa: S101 # for the type checker
                yield from child.stdout
            if child.returncode:
                errors.seek(0)
                reason = (errors.read().splitlines() or [f"exit code {child.returncode}"])[-1][:100]
                raise InputError(f"{source}: cannot be read to its end ({reason}); make it again, or give a VCF")


def _print_records(path: str) -> None:
    from cyvcf2 import VCF  # noqa: PLC0415 # takes a while to import, which others need not wait for

    for record in VCF(path, lazy=True):
        print(record.CHROM, record.POS, ".", record.REF, ",".join(record.ALT) or ".", ".", ".", ".", sep="\t")


if __name__ == "__main__":
    _print_records(sys.argv[1])
