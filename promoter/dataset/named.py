"""Download the public yeast data set, check its files, and derive the inputs of `prepare` from them.

Genome and genes: Ensembl R64-1-1, release 109. Expression: RNA-seq in glucose and lactate
(github.com/drozdovapb/S_cerevisiae_lactate_transcriptome) and before and after 15 minutes of 0.4 M
NaCl (github.com/CellSignaling/OsmoAtlas_StressFeatures_2021), each at a fixed commit.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pooch
from upath import UPath

from promoter import storage
from promoter.dataset.annotation import read_genes
from promoter.errors import InputError, InputNote
from promoter.storage import AnyPath

_RAW = "https://raw.githubusercontent.com"
_LACTATE = f"{_RAW}/drozdovapb/S_cerevisiae_lactate_transcriptome/23092fbc70b6eff60fe27adba2e13e2254179d10/data"
_OSMO = f"{_RAW}/CellSignaling/OsmoAtlas_StressFeatures_2021/d16baf2d9f4c676e801a2b4fe21cccc11cbad24d/data"


class Source(NamedTuple):
    """Describe a file as its address serves it; a copy on disk may be gzipped."""

    name: str
    url: str
    sha256: str


_GENOME = Source(
    "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz",
    f"{_RAW}/W-L/pauNy/0947735fef078d929eae9f84b5c5a32b8d3fe24b/data/"
    "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz",
    "862bf7f350552bbea0e206c43c188b3fcff2223194850b6202f72f2594e067c8",
)
_ANNOTATION = Source(
    "Saccharomyces_cerevisiae.R64-1-1.109.gtf.gz",
    f"{_RAW}/TCFig/RNAseqDanny-repo/33816a822bde798014745cef9f3a6d3b933e3ca4/"
    "Saccharomyces_cerevisiae.R64-1-1.109.gtf.gz",
    "5f62a620466921e55e48fb9a6a54500a00131c22313d36072e4ab78bbfdf171c",
)
LACTATE_COUNTS = Source(
    "lactate_allSamples.featureCounts.txt",
    f"{_LACTATE}/allSamples.featureCounts.txt",
    "30f8202bc4f5cd8577ead342509c7f5e9c22a70b18c81494a99dbb1be69718c9",
)
_LACTATE_SAMPLES = Source(
    "lactate_sample_table.txt",
    f"{_LACTATE}/sample_table.txt",
    "5d7c59811a4adb7a9d61a9251e4bedef85c627795b89aec8347eed5958239f81",
)
OSMO_COUNTS = Source(
    "osmo_rawReadCounts_merged_no_mutants.tab",
    f"{_OSMO}/derived_data/rawReadCounts_merged_no_mutants.tab",
    "8b394b16890c73ae476b423124a1831280083391d33181c2b4d7648b89a3a88f",
)
OSMO_SAMPLES = Source(
    "osmo_sample_classification.tab",
    f"{_OSMO}/original_data/sample_classification.tab",
    "5f97b100d3935cea077efc1be7678961eeff367c2f1ec7978c196a44ba3bb805",
)
SALT_SOURCES = (OSMO_COUNTS, OSMO_SAMPLES, LACTATE_COUNTS)  # the last for the lengths of the genes


@dataclass(frozen=True)
class YeastFiles:
    """Hold the paths of the derived files, the inputs of `prepare`."""

    genome: UPath
    genes: UPath
    levels: UPath
    salt_response: UPath


def fetch_yeast(
    folder: AnyPath, cache: AnyPath | None = None, on_download: Callable[[str], None] = lambda _: None
) -> YeastFiles:
    """Download the original files unless they are cached, check them, and derive the inputs into `folder`.

    `genome.fa` and `genes.bed` (protein-coding genes; start codon to stop codon, since the annotation
    has no untranslated regions) use UCSC chromosome names. `expression.tsv` holds TPM, averaged over
    the replicates of eight conditions. `salt_response.tsv` holds
    log2(TPM in salt + 1) - log2(TPM before + 1) of nuclear genes with at least 1 TPM in both.

    Args:
        folder: output folder for the derived files.
        cache: folder that holds the originals or receives them; None (default) means the user's cache folder.
        on_download: function called with the name of each original before its download (default: does nothing).

    Raises:
        InputError: an original cannot be downloaded, or its SHA-256 is not the expected one.
    """
    where = storage.resolve(folder)
    originals = (
        Path(str(storage.resolve(cache))) if cache is not None else Path(pooch.os_cache("promoter")) / "yeast"
    )
    files = YeastFiles(
        where / "genome.fa", where / "genes.bed", where / "expression.tsv", where / "salt_response.tsv"
    )
    sources = (_GENOME, _ANNOTATION, LACTATE_COUNTS, _LACTATE_SAMPLES, OSMO_COUNTS, OSMO_SAMPLES)
    paths = {source: fetch(source, originals, on_download) for source in sources}
    _write_genome(paths[_GENOME], files.genome)
    genes = _coding_genes(paths[_ANNOTATION])
    bed = genes.assign(score=0)[["chrom", "start", "end", "gene_id", "score", "strand"]]
    _write_table(bed, files.genes, header=False)
    levels = _levels(paths).reindex(genes["gene_id"]).dropna().rename_axis("gene")
    _write_table(levels.map("{:.4g}".format).reset_index(), files.levels)
    _write_table(_salt_response(genes, levels), files.salt_response)
    return files


def fetch(
    source: Source,
    folder: Path,
    on_download: Callable[[str], None] = lambda _: None,
    *,
    setting: str = "cache",
) -> Path:
    """Return the path of a file in a folder, plain or gzipped, checked; download it where it is missing.

    Args:
        source: name, address and SHA-256 of the file as it is served.
        folder: folder that holds the file, as its name or with .gz behind it, or that receives it.
        on_download: function called with the name before a download (default: does nothing).
        setting: name of the setting that gives the folder, for messages (default `cache`).

    Raises:
        InputError: the file in the folder is another one or damaged, or it cannot be downloaded. A file that is
            there is never replaced.
    """
    plain, gzipped = folder / source.name, folder / f"{source.name}.gz"
    found = gzipped if gzipped.exists() else plain
    if found.exists():
        try:
            content = found.read_bytes() if found == plain else gzip.decompress(found.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{found}: the gzip data is damaged ({error}); delete it and run again") from error
        if hashlib.sha256(content).hexdigest() != source.sha256:
            raise InputError(f"{found}: its content is not the expected one (SHA-256); delete it and run again")
        return found

    def download(url: str, target: str, manager: Any) -> None:
        on_download(source.name)
        pooch.HTTPDownloader()(url, target, manager)

    pooch.get_logger().setLevel(logging.WARNING)  # on_download reports the downloads
    try:
        expected = f"sha256:{source.sha256}"
        return Path(pooch.retrieve(source.url, expected, source.name, folder, downloader=download))  # type: ignore[arg-type] # called by position
    except Exception as error:  # whatever the network stack raises
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{source.url}: cannot be downloaded ({reason}); bring the file yourself as {plain} "
            f"and give its folder as `{setting}`"
        ) from error


def _ucsc(name: str) -> str:
    return "chrM" if name == "Mito" else f"chr{name}"


def _write_genome(source: Path, target: UPath) -> None:
    with storage.open_text(source) as lines, storage.open_atomic(target) as out:
        for line in lines:
            if line.startswith(">"):
                out.write(f">{_ucsc(line[1:].split()[0])}\n".encode())
            else:
                out.write(line.upper().encode())


def _coding_genes(annotation: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNote)  # the file is known: that genes begin at start codons, too
        genes = read_genes(annotation, biotype="protein_coding")
    genes["chrom"] = genes["chrom"].map(_ucsc)
    roman = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI".split()  # noqa: SIM905 # reads better
    order = {f"chr{name}": number for number, name in enumerate(roman)} | {"chrM": len(roman)}
    by_position: Callable[[pd.Series], pd.Series] = lambda c: c.map(order) if c.name == "chrom" else c  # noqa: E731 # a key
    return genes.sort_values(["chrom", "start", "end"], key=by_position, kind="stable")


def _levels(paths: dict[Source, Path]) -> pd.DataFrame:
    """Compute TPM by gene and condition, averaged over replicates."""
    lactate = pd.read_csv(paths[LACTATE_COUNTS], sep="\t", comment="#", index_col="Geneid")
    samples = pd.read_csv(paths[_LACTATE_SAMPLES], sep="\t", index_col="sample")["condition"]
    osmo = pd.read_csv(paths[OSMO_COUNTS], sep="\t", index_col=0)
    osmo_samples = "osmo_" + pd.read_csv(paths[OSMO_SAMPLES], sep="\t", index_col=0)["condition"]
    length = lactate["Length"]
    tables = []
    for counts, condition in ((lactate, samples), (osmo[osmo.index.isin(length.index)], osmo_samples)):
        rate = counts[[s for s in condition.index if s in counts]].div(length.reindex(counts.index), axis=0)
        tpm = rate / rate.sum() * 1e6
        mean = tpm.T.groupby(condition).mean().T
        tables.append(mean[sorted(mean.columns, key=lambda name: (name != "control", name))])
    return tables[0].join(tables[1], how="inner")


def _salt_response(genes: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    nuclear = genes["gene_id"][genes["chrom"] != "chrM"]
    both = levels.loc[levels.index.isin(nuclear), ["osmo_basal", "osmo_salt"]]
    both = both[(both >= 1).all(axis=1)].add(1).apply(np.log2)
    response = (both["osmo_salt"] - both["osmo_basal"]).map("{:.4f}".format)
    return response.rename("salt_log2fc").rename_axis("gene").reset_index()


def _write_table(table: pd.DataFrame, path: UPath, header: bool = True) -> None:
    storage.write_text(path, table.to_csv(sep="\t", index=False, header=header))
