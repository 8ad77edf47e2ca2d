"""ISM scores as other tools read them: tf-modisco-lite, genome browsers, bedtools, chrombpnet's tools.

Which contribution and which direction each file holds:

- `ohe.npz`, `shap.npz`: one-hot and hypothetical contributions, (genes, 4, length), ACGT, 5'→3' along each gene.
  `genes.tsv` names the rows. N, padding included, is zeros in both.
- `contributions.bw`, `contributions.bedgraph`: the actual contribution, at the base that is there, on the genome.
  N and positions past a chromosome's end are left out. Where promoters overlap, a base shows its contribution to
  the gene whose TSS is nearest (of two equally near, the first in the scores). A mean would show it to neither: a
  motif near one TSS would fade by what it does, mostly nothing, for a gene whose TSS is far.
- `regions.bed`: stretches that matter, of each gene by itself, so that those of neighbours may overlap: the
  windows of 7 known bases whose mean absolute actual contribution is above the 95% quantile of the gene's, merged.
  Score: the region's mean absolute contribution, 1000 for the largest of all genes.
- `contributions.h5`: `raw/seq` (one-hot), `shap/seq` (hypothetical) and `projected_shap/seq` (actual), (genes, 4,
  length), as chrombpnet writes them: forward strand, so that rows can be placed by `contributions.h5.regions.bed`
  (narrowPeak; the window's middle is start + summit). Windows that pass a chromosome's end are left out, as there.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import IO, NamedTuple, cast
from urllib.parse import quote

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pybigtools
from upath import UPath

from promoter import storage
from promoter.dataset.genome import chromosome_sizes, match_chromosomes, renamed
from promoter.errors import InputError
from promoter.ism import Scores, hypothetical_contributions, iterate_scores
from promoter.ism.store import load_contents
from promoter.sequence import BASES, N_TOKEN, encode, one_hot, reverse_complement
from promoter.storage import AnyPath

FILES = {
    "modisco": ("ohe.npz", "shap.npz", "genes.tsv"),
    "bigwig": ("contributions.bw",),
    "bedgraph": ("contributions.bedgraph",),
    "bed": ("regions.bed",),
    "h5": ("contributions.h5", "contributions.h5.regions.bed"),
}
_NEED_SIZES = ("bigwig", "h5")
_WINDOW, _QUANTILE = 7, 0.95  # bases, about a motif's core; a gene of 2,000 bases has some ten such regions
_MODISCO_SEQLET, _MODISCO_MOST = 30, 1_000_000  # bases of a seqlet by its defaults; the -n that chrombpnet advises


@dataclass(frozen=True)
class Exported:
    """What `export_scores` wrote.

    Attributes:
        genes: how many.
        length: of their sequences, in bases.
        target: whose contributions.
        files: paths, in the order of the formats.
        past_ends: genes that the h5 leaves out, since their windows pass a chromosome's end.
        tss_known: whether the scores say where the TSS is; else it was taken to be the base after the window.
        renamed: chromosomes of the scores -> the genome's spelling, which the files have, where they differ.
    """

    genes: int
    length: int
    target: str
    files: list[UPath]
    past_ends: int
    tss_known: bool
    renamed: dict[str, str] = field(default_factory=dict)


class _Batch(NamedTuple):
    """Some genes, 5'→3' along each: one-hot int8 and hypothetical contributions float32, (genes, 4, length)."""

    rows: slice  # among all genes
    one_hot_NAL: np.ndarray
    hypothetical_NAL: np.ndarray


_Take = Callable[[_Batch], None]


def export_scores(
    scores: AnyPath,
    out: AnyPath,
    formats: Sequence[str],
    genome: AnyPath | None = None,
    genes: Sequence[str] | None = None,
    target: str | None = None,
) -> Exported:
    """Write the scores of one target in other formats, reading some genes at a time.

    Args:
        scores: folder that `jobs.ism` wrote.
        out: folder for the files; all of them appear at the end.
        formats: keys of `FILES`.
        genome: FASTA, .fai or chrom.sizes, for the lengths of chromosomes.
        genes: ids; all by default.
        target: name; may be left out when there is one.

    Raises:
        InputError: a format, target or gene that is not there; coordinates or a genome that are needed and
            missing, or that do not fit; unfinished scores.
    """
    require_formats(formats, genome)
    where = storage.resolve(out)
    contents = load_contents(scores, genes)
    target = _chosen_target(contents.targets, target)
    placed = set(formats) - {"modisco"}
    table = contents.genes
    if placed and table[["chrom", "start", "strand"]].isna().any(axis=None):
        raise InputError(
            f"{storage.resolve(scores)}: is of sequences without coordinates, which --formats "
            f"{', '.join(sorted(placed))} needs; choose --formats modisco"
        )
    sizes, spelling = _match(table, genome) if genome and placed else (None, {})
    table = table.assign(chrom=table["chrom"].replace(spelling))
    with ExitStack() as stack:
        takers: list[_Take] = []
        past_ends = 0
        if "modisco" in formats:
            takers.append(stack.enter_context(_modisco(where, table, contents.length)))
        if "h5" in formats and sizes is not None:
            inside = ((table["start"] >= 0) & (table["end"] <= table["chrom"].map(sizes))).to_numpy()
            past_ends = int((~inside).sum())
            takers.append(stack.enter_context(_h5(where, table, inside, contents.length)))
        regions: list[pd.DataFrame] = []
        if "bed" in formats:
            takers.append(lambda batch: regions.append(_regions(table.iloc[batch.rows], batch)))
        tracks = {"bigwig", "bedgraph"} & placed
        # on disk: contributions of all genes are a quarter of the scores, and still more than memory may hold
        kept = stack.enter_context(tempfile.TemporaryFile())
        if tracks:
            takers.append(lambda batch: _keep_on_genome(table.iloc[batch.rows], batch, kept, sizes, genome))
        _read(scores, genes, target, takers)

        def track() -> Iterator[_Block]:
            on_genome = np.memmap(kept, np.float32, "r", shape=(len(table), contents.length))
            return _track(table, on_genome, contents.downstream or 0)

        if "bigwig" in formats and sizes is not None:
            _write_bigwig(stack.enter_context(storage.whole_path(where / FILES["bigwig"][0])), track(), sizes)
        if "bedgraph" in formats:
            _write_bedgraph(stack.enter_context(storage.open_whole(where / FILES["bedgraph"][0])), track())
        if "bed" in formats:
            _write_bed(stack.enter_context(storage.open_whole(where / FILES["bed"][0])), pd.concat(regions))
    files = [where / name for one in formats for name in FILES[one]]
    tss_known = contents.downstream is not None
    return Exported(len(table), contents.length, target, files, past_ends, tss_known, renamed(spelling))


def require_formats(formats: Sequence[str], genome: AnyPath | None) -> None:
    """Refuse formats that there are not, and those that need the genome when it is not given.

    Raises:
        InputError: names them.
    """
    unknown = [one for one in formats if one not in FILES]
    if unknown or not formats:
        raise InputError(f"--formats {', '.join(unknown) or '(none)'}: choose among {', '.join(FILES)}")
    needing = [one for one in formats if one in _NEED_SIZES]
    if needing and genome is None:
        others = ",".join(one for one in FILES if one not in _NEED_SIZES)
        raise InputError(
            f"--formats {', '.join(needing)}: needs the chromosomes' lengths; "
            f"give --genome FASTA, .fai or chrom.sizes, or choose --formats {others}"
        )


def modisco_command(folder: AnyPath, genes: int, length: int) -> str:
    """Return the command line that finds motifs in `ohe.npz` and `shap.npz`.

    modisco's -w takes the middle of the sequences, 400 bases by default, where a promoter's most telling bases are
    at an end; so -w is all of them (all but the last when they are odd in number, which modisco cannot take). Its
    -n keeps so many seqlets, in the order of the genes; here as many as find room, so that the last genes count.
    """
    folder = storage.resolve(folder)
    names = [shlex.quote(str(folder / name)) for name in ("ohe.npz", "shap.npz", "modisco.h5")]
    seqlets = min(max(genes * length // _MODISCO_SEQLET, 100), _MODISCO_MOST)
    return f"modisco motifs -s {names[0]} -a {names[1]} -n {seqlets} -w {length - length % 2} -o {names[2]}"


def _chosen_target(targets: list[str], target: str | None) -> str:
    if target is None and len(targets) == 1:
        return targets[0]
    if target not in targets:
        given = "is missing" if target is None else f"{target}: is not in the scores"
        raise InputError(f"--target {given}; there are {', '.join(targets)}")
    return target


def _match(table: pd.DataFrame, genome: AnyPath) -> tuple[dict[str, int], dict[str, str]]:
    sizes = chromosome_sizes(genome)
    chroms = table["chrom"].unique()
    spelling = match_chromosomes(chroms, sizes)
    unknown = [name for name in chroms if name not in spelling]
    if unknown:
        raise InputError(
            f"{storage.resolve(genome)}: has no {', '.join(unknown[:3])} (it has {', '.join(list(sizes)[:3])}); "
            "give the genome that the data were prepared from"
        )
    return sizes, spelling


def _read(scores: AnyPath, genes: Sequence[str] | None, target: str, takers: list[_Take]) -> None:
    """Hand the genes to each taker, some at a time."""
    done = 0
    for some in iterate_scores(scores, genes, [target]):
        batch = _as_batch(some, done)
        for take in takers:
            take(batch)
        done = batch.rows.stop


def _as_batch(some: Scores, done: int) -> _Batch:
    tokens_NL = encode(some.genes["sequence"].tolist())
    known_N1L = (tokens_NL != N_TOKEN)[:, None]
    hypothetical_NAL = np.where(known_N1L, hypothetical_contributions(some.scores[:, 0]), np.float32(0))
    one_hot_NAL = one_hot(tokens_NL).numpy().astype(np.int8)
    return _Batch(slice(done, done + len(tokens_NL)), one_hot_NAL, hypothetical_NAL)


def _actual(batch: _Batch) -> np.ndarray:
    """Return the contribution of the base that is there, NaN where none is known: (genes, length)."""
    actual_NL = (batch.hypothetical_NAL * batch.one_hot_NAL).sum(axis=1)
    return np.where(batch.one_hot_NAL.any(axis=1), actual_NL, np.float32("nan"))


@contextmanager
def _modisco(where: UPath, table: pd.DataFrame, length: int) -> Iterator[_Take]:
    ohe, shap, names = FILES["modisco"]
    shape = (len(table), len(BASES), length)
    with (
        storage.whole_path(where / ohe) as ohe_path,
        storage.whole_path(where / shap) as shap_path,
        _npz(ohe_path, np.int8, shape) as ohe_file,
        _npz(shap_path, np.float32, shape) as shap_file,
        storage.open_whole(where / names) as names_file,
    ):

        def take(batch: _Batch) -> None:
            ohe_file.write(batch.one_hot_NAL.tobytes())
            shap_file.write(batch.hypothetical_NAL.astype(np.float32, copy=False).tobytes())

        table.to_csv(names_file, sep="\t", index=False)
        yield take


@contextmanager
def _npz(path: Path, dtype: type, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """Open an .npz for the bytes of one array, in order: numpy's own writer wants the whole array."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        yield member


@contextmanager
def _h5(where: UPath, table: pd.DataFrame, inside: np.ndarray, length: int) -> Iterator[_Take]:
    shown = table[inside]
    if not len(shown):
        raise InputError("--formats h5: every window passes a chromosome's end; choose other formats")
    name, regions = FILES["h5"]
    shape, chunk = (len(shown), len(BASES), length), (min(16, len(shown)), len(BASES), length)
    with storage.whole_path(where / name) as path, h5py.File(path, "w") as file:
        # gzip, since blosc, which chrombpnet takes, needs a plug-in to be read
        raw, shap, projected = (
            file.create_dataset(f"{group}/seq", shape, dtype, chunks=chunk, compression="gzip", compression_opts=1)
            for group, dtype in (("raw", np.int8), ("shap", np.float32), ("projected_shap", np.float32))
        )
        file.attrs["meaning"] = (
            "shap: hypothetical contributions (ISM scores minus their mean over the bases), projected_shap: "
            "actual ones (times one-hot); forward strand, (genes, ACGT, position)"
        )
        for key, column in (("coords_chrom", "chrom"), ("coords_strand", "strand"), ("gene_id", "gene_id")):
            file.create_dataset(key, data=shown[column].astype(object).tolist(), dtype=h5py.string_dtype())
        for key, column in (("coords_start", "start"), ("coords_end", "end")):
            file.create_dataset(key, data=shown[column].to_numpy(np.int64))
        done = 0

        def take(batch: _Batch) -> None:
            nonlocal done
            keep = inside[batch.rows]
            minus_N11 = (table["strand"].iloc[batch.rows][keep] == "-").to_numpy()[:, None, None]
            ones_NAL, shap_NAL = (
                np.where(minus_N11, reverse_complement(x_NAL[keep].astype(np.float32)), x_NAL[keep])
                for x_NAL in (batch.one_hot_NAL, batch.hypothetical_NAL)
            )
            rows = slice(done, done + len(ones_NAL))
            raw[rows], shap[rows], projected[rows] = ones_NAL, shap_NAL, shap_NAL * ones_NAL
            done = rows.stop

        yield take
    peaks = shown[["chrom", "start", "end"]].assign(name=shown["gene_id"].map(_bed_name), score=0)
    peaks = peaks.assign(strand=shown["strand"], signal=0, p=-1, q=-1, summit=length // 2)
    with storage.open_whole(where / regions) as text:
        peaks.to_csv(text, sep="\t", header=False, index=False, quoting=3)


def _regions(genes: pd.DataFrame, batch: _Batch) -> pd.DataFrame:
    """Return the regions of some genes: chrom, start, end, name, strength (mean |contribution|), strand."""
    actual_NL = np.abs(_actual(batch))
    if actual_NL.shape[1] < _WINDOW:
        return pd.DataFrame(columns=["chrom", "start", "end", "name", "score", "strand"])
    # each window by itself, since running sums would leave traces of rounding; NaN where a base is not known
    means_NW = np.lib.stride_tricks.sliding_window_view(actual_NL, _WINDOW, axis=1).mean(axis=-1)
    rows = []
    columns = [genes[name] for name in ("chrom", "start", "end", "gene_id", "strand")]
    for chrom, start, end, name, strand, actual, means in zip(*columns, actual_NL, means_NW, strict=True):
        whole = means[~np.isnan(means)]
        high = means > (np.quantile(whole, _QUANTILE) if len(whole) else 0)
        covered = np.convolve(high, np.ones(_WINDOW)) > 0
        for first, last in np.flatnonzero(np.diff(covered, prepend=False, append=False)).reshape(-1, 2).tolist():
            place = (start + first, start + last) if strand == "+" else (end - last, end - first)
            rows.append((chrom, *place, _bed_name(name), float(actual[first:last].mean()), strand))
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "name", "score", "strand"])


def _write_bed(file: IO[bytes], regions: pd.DataFrame) -> None:
    largest = regions["score"].max() if len(regions) else 0
    table = regions.assign(score=(1000 * regions["score"] / (largest or 1)).round().astype(int))
    table = table.sort_values(["chrom", "start", "end"], kind="stable")
    table.to_csv(file, sep="\t", header=False, index=False, quoting=3)


def _bed_name(gene: str) -> str:
    """Return a gene's name without white space, which ends a BED field; %20 and so on as in GFF3."""
    return re.sub(r"[\s%]", lambda found: quote(found[0]), gene)


def _keep_on_genome(
    genes: pd.DataFrame,
    batch: _Batch,
    kept: IO[bytes],
    sizes: dict[str, int] | None,
    genome: AnyPath | None,
) -> None:
    """Append actual contributions to what the tracks are made of, by coordinate, NaN where no base is known."""
    actual_NL = _actual(batch)
    minus = (genes["strand"] == "-").to_numpy()
    actual_NL[minus] = actual_NL[minus, ::-1]
    known_NL = ~np.isnan(actual_NL)
    first = genes["start"].to_numpy(np.int64) + known_NL.argmax(axis=1)
    end = genes["end"].to_numpy(np.int64) - known_NL[:, ::-1].argmax(axis=1)
    limit = genes["chrom"].map(sizes).to_numpy() if sizes else np.full(len(genes), np.iinfo(np.int64).max)
    wrong = np.flatnonzero(known_NL.any(axis=1) & ((first < 0) | (end > limit)))
    if len(wrong):
        at = wrong[0]
        gene, chrom = genes["gene_id"].iloc[at], genes["chrom"].iloc[at]
        raise InputError(
            f"{storage.resolve(genome or '')}: {chrom} has {limit[at]:,} bases, but {gene} has some at "
            f"{first[at]:,}-{end[at]:,}; give the genome that the data were prepared from"
        )
    kept.write(actual_NL.astype(np.float32, copy=False).tobytes())


class _Block(NamedTuple):
    """A stretch of a track: runs of equal values, ascending."""

    chrom: str
    starts: np.ndarray
    ends: np.ndarray
    values: np.ndarray


def _track(genes: pd.DataFrame, on_genome: np.ndarray, downstream: int) -> Iterator[_Block]:
    """Yield a track, by chromosome name and coordinate: one at a time the stretches that windows cover.

    Args:
        genes: `chrom`, `start`, `end`, `strand`.
        on_genome: a row a gene, by ascending coordinate, NaN where there is none.
        downstream: bases of the windows from the TSS on.
    """
    tss = np.where(genes["strand"] == "+", genes["end"] - downstream, genes["start"] - 1 + downstream)
    for chrom, there in genes.reset_index(drop=True).groupby("chrom", sort=True):
        ordered = there.sort_values("start", kind="stable")
        reach = ordered["end"].cummax().shift(fill_value=ordered["start"].iloc[0])
        for _, overlapping in ordered.groupby((ordered["start"] > reach).cumsum()):
            yield _nearest(str(chrom), overlapping.sort_index(), on_genome, tss)


def _nearest(chrom: str, genes: pd.DataFrame, on_genome: np.ndarray, tss: np.ndarray) -> _Block:
    """Resolve overlaps: each base takes the value of the gene whose TSS is nearest, the first of equals."""
    origin = int(genes["start"].min())
    values = np.full(int(genes["end"].max()) - origin, np.float32("nan"))
    nearest = np.full(len(values), np.iinfo(np.int64).max)
    for row, start, end in zip(genes.index, genes["start"], genes["end"], strict=True):
        here = slice(start - origin, end - origin)
        distance = np.abs(np.arange(start, end) - tss[row])
        take = ~np.isnan(on_genome[row]) & (distance < nearest[here])
        nearest[here][take] = distance[take]
        values[here][take] = on_genome[row][take]
    positions = np.flatnonzero(~np.isnan(values))
    values = values[positions] + np.float32(0)  # -0 would be written so
    new = np.ones(len(positions), bool)
    new[1:] = (np.diff(positions) > 1) | (values[1:] != values[:-1])
    last = np.roll(new, -1)  # of its run: the next position begins another, or there is none
    return _Block(chrom, positions[new] + origin, positions[last] + 1 + origin, values[new])


def _write_bigwig(path: Path, track: Iterator[_Block], sizes: dict[str, int]) -> None:
    covered = 0

    def intervals() -> Iterator[tuple[str, int, int, float]]:
        nonlocal covered
        for block in track:
            covered += int((block.ends - block.starts).sum())
            columns = (block.starts.tolist(), block.ends.tolist(), block.values.tolist())
            yield from zip(repeat(block.chrom), *columns, strict=False)

    pybigtools.open(str(path), "w").write(sizes, intervals())
    if not covered:
        raise InputError("--formats bigwig: the sequences hold no known base; choose other genes")
    try:  # pybigtools prints what goes wrong in writing, and raises nothing
        with pybigtools.open(str(path)) as written:
            found = written.info()["summary"]["basesCovered"]
    except Exception as error:  # it has its own, and names them in no stable place
        raise RuntimeError(f"the bigWig could not be written ({error}); is the disk full?") from error
    if found != covered:
        raise RuntimeError(f"the bigWig got {found:,} of {covered:,} bases; is the disk full?")


def _write_bedgraph(file: IO[bytes], track: Iterator[_Block]) -> None:
    names = ["chrom", "start", "end", "value"]
    schema = pa.schema(list(zip(names, (pa.string(), pa.int64(), pa.int64(), pa.float32()), strict=True)))
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with pyarrow.csv.CSVWriter(cast("str", file), schema, write_options=options) as writer:
        for block in track:
            chrom = pa.repeat(block.chrom, len(block.starts))
            writer.write_batch(pa.record_batch([chrom, *map(pa.array, block[1:])], schema=schema))
