"""What the variants of a VCF would do to the predictions of the genes in whose windows they fall.

The rules, in one place:

- A window is anchored at its TSS. A deletion between far end and TSS pulls bases in at the far end, an insertion
  pushes bases out there; beyond the TSS likewise at the other end. Past the chromosome's ends come N.
- An allele is first stripped of what ALT and REF share, of the end before the beginning, hence leftmost, as VCF
  has it. What is left is the *change*: the bases `[start, end)` become `new`. It falls in a window when it alters
  any base of it; of a deletion across the window's border the part outside counts as deleted too.
- Bases inserted right before the first transcribed base are upstream of it, on either strand.
- Where a change spans the TSS from both sides, `new` is laid from the left: as many of its bases as were left of
  the border between upstream and downstream stay left of it, the others go right. For substitutions of several
  bases that is each at its place.
- Skipped, and listed with the reason: symbolic alleles, breakends, `*`, records without ALT, letters other than
  ACGT, ALT equal to REF, REF unlike the genome, chromosomes that the genome lacks, repeated alleles.
"""

from __future__ import annotations

import gzip
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from upath import UPath

from promoter import storage
from promoter.dataset.genome import Genome, match_chromosomes, window
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError
from promoter.ism import saturation_mutagenesis
from promoter.ism.incremental import operations
from promoter.models.build import Network, NetworkConfig
from promoter.models.cnn import CNNConfig
from promoter.sequence import BASES, encode, reverse_complement
from promoter.storage import AnyPath
from promoter.training import predict

REASONS = {
    "chromosome": "the genome has no such chromosome",
    "no_alt": "no alternative allele",
    "symbolic": "symbolic allele, breakend or *",
    "non_acgt": "letters other than ACGT",
    "ref_mismatch": "REF is not what the genome has there",
    "same": "ALT equals REF",
    "duplicate": "the same allele again",
}
_BLOCK = 1 << 18  # bases read from the genome at a time; records mostly come in order
_BLOCKS = 64
_WINDOWS = 32  # a batch of predictions
_BASES_AT_A_TIME = 1 << 28  # of rebuilt windows in memory
# A mutant's share of saturation mutagenesis reaches about half the speed of a forward pass, operation by operation
_SLOWER = 2.0
_SYMBOLIC = re.compile(r"[<>\[\]*.]")
_ACGT = re.compile(r"[ACGT]+")


class Record(NamedTuple):
    """A line of a VCF: `pos` is 1-based, as there."""

    chrom: str
    pos: int
    ref: str
    alts: list[str]


class Change(NamedTuple):
    """The bases `[start, end)` of the chromosome, 0-based, become `new`."""

    start: int
    end: int
    new: str

    @property
    def is_snv(self) -> bool:
        """Tell whether one base replaces one."""
        return self.end - self.start == len(self.new) == 1


class Place(NamedTuple):
    """Where a gene's window lies: `upstream` and `downstream` bases on either side of the TSS's border."""

    tss: int
    strand: str
    upstream: int
    downstream: int

    @property
    def window(self) -> tuple[int, int]:
        """`[start, end)` on the chromosome."""
        return window(self.tss, self.strand, self.upstream, self.downstream)

    @property
    def border(self) -> int:
        """The position, on the chromosome, between upstream and downstream bases."""
        return self.tss if self.strand == "+" else self.tss + 1


@dataclass(frozen=True)
class Found:
    """The alleles of a VCF that fall in windows.

    Attributes:
        alleles: a row per allele and window, by gene in the data's order, then by position: `gene` (row of the
            data), `pos` (1-based), `ref`, `alt` (upper case, as in the VCF), `start`, `end`, `new` (see `Change`).
        counts: `variants` (records), `alleles`, `in_windows` (alleles), `rows` (of `alleles`), `spanning_tss`
            (rows), `outside`, and per reason in `REASONS` how many were skipped.
    """

    alleles: pd.DataFrame
    counts: dict[str, int]


def read_records(path: AnyPath) -> Iterator[Record]:
    """Read a VCF or BCF, plain or compressed, local or remote, line by line; no index is needed.

    Raises:
        InputError: missing, neither VCF nor BCF, a malformed line, or compressed data that ends early.
    """
    # takes a while to import, which other jobs need not wait for
    from cyvcf2 import VCF  # noqa: PLC0415
    from cyvcf2.cyvcf2 import set_htslib_log_level  # noqa: PLC0415

    set_htslib_log_level(0)  # it warns, once a chromosome, of headers that lack them
    where = storage.require_file(path, "VCF")
    _require_sound(where)
    with _local(where) as local:
        try:
            vcf = VCF(str(local), lazy=True)
        except OSError as error:
            raise InputError(
                f"{where}: is neither VCF nor BCF; give a file as bcftools or a caller writes it"
            ) from error
        try:
            for record in vcf:
                yield Record(record.CHROM, record.POS, record.REF, record.ALT)
        except Exception as error:  # it raises plain Exceptions
            reason = " ".join(str(error).split())[:100]
            raise InputError(f"{where}: cannot be read to its end ({reason}); fetch or make it again") from error
        finally:
            vcf.close()


def find_alleles(
    records: Iterator[Record],
    genome: Genome,
    promoters: Promoters,
    rows: Sequence[int],
    skip: Callable[[Record, str, str], None] = lambda record, alt, reason: None,
) -> Found:
    """Find which alleles fall in which windows; alleles in windows are kept in memory, others are not.

    Args:
        records: as `read_records` gives them, in any order.
        genome: that the promoters were taken from.
        promoters: with coordinates; `metadata` must say the window.
        rows: of the genes to look at.
        skip: called with each allele that is left out and a key of `REASONS`.

    Raises:
        InputError: promoters without coordinates, or not of this genome.
    """
    bases = _Bases(genome)
    places = places_of(promoters)
    chrom_of = match_chromosomes(promoters.genes["chrom"].iloc[list(rows)].unique(), genome.lengths)
    _require_same_genome(bases, promoters, places, rows, chrom_of)
    index = _Windows(promoters, places, rows, chrom_of)
    spelled = _Spelling(genome)
    counts = Counter(dict.fromkeys(["variants", "alleles", "in_windows", "rows", "spanning_tss", "outside"], 0))
    counts.update(dict.fromkeys(REASONS, 0))
    seen: set[tuple[str, int, str, str]] = set()
    found: list[tuple[int, int, str, str, int, int, str]] = []
    for record in records:
        counts["variants"] += 1
        chrom = spelled(record.chrom)
        for alt in record.alts or ["."]:
            counts["alleles"] += bool(record.alts)
            reason = _reason_to_skip(record, alt, chrom, bases)
            upper = (record.ref.upper(), alt.upper())
            windows, change = [], None
            if reason is None and chrom is not None:
                change = trim(record.pos - 1, *upper)
                windows = index.altered_by(chrom, change)
                if windows and (chrom, record.pos, *upper) in seen:
                    reason = "duplicate"
            if reason is not None or change is None:
                counts[reason or "chromosome"] += 1
                skip(record, alt, reason or "chromosome")
                continue
            counts["in_windows" if windows else "outside"] += 1
            if windows:
                seen.add((str(chrom), record.pos, *upper))
            for row in windows:
                counts["spanning_tss"] += change.start < places[row].border < change.end
                found.append((row, record.pos, *upper, change.start, change.end, change.new))
    counts["rows"] = len(found)
    columns = ["gene", "pos", "ref", "alt", "start", "end", "new"]
    table = pd.DataFrame(found, columns=pd.Index(columns))
    table = table.sort_values(["gene", "pos", "ref", "alt"], kind="stable", ignore_index=True)
    return Found(table, dict(counts))


def places_of(promoters: Promoters) -> list[Place]:
    """Return where each gene's window lies.

    Raises:
        InputError: the promoters have no coordinates, being of a FASTA of sequences.
    """
    shape = promoters.metadata.get("window")
    if not shape or shape.get("upstream") is None:
        raise InputError("--data: has no coordinates; give the folder that jobs.prepare wrote")
    genes = promoters.genes
    return [
        Place(int(tss), strand, shape["upstream"], shape["downstream"])
        for tss, strand in zip(genes["tss"], genes["strand"], strict=True)
    ]


def trim(start: int, ref: str, alt: str) -> Change:
    """Strip what REF and ALT share, of the end before the beginning.

    Args:
        start: of REF, 0-based.
        ref: upper case.
        alt: upper case.
    """
    shared = 0
    while shared < min(len(ref), len(alt)) and ref[-1 - shared] == alt[-1 - shared]:
        shared += 1
    ref, alt = ref[: len(ref) - shared], alt[: len(alt) - shared]
    shared = 0
    while shared < min(len(ref), len(alt)) and ref[shared] == alt[shared]:
        shared += 1
    return Change(start + shared, start + len(ref), alt[shared:])


def alters(change: Change, place: Place) -> bool:
    """Tell whether a change alters any base of a window, or which bases are in it."""
    start, end = place.window
    if change.start < change.end:
        return change.start < end and start < change.end
    if change.start == place.border:
        return place.upstream > 0
    return start < change.start < end


def distance_to_tss(change: Change, place: Place) -> int:
    """Return where a change stands in the gene's direction: 0 is the TSS, -1 the base before it.

    Of several bases the one nearest to the TSS counts; of inserted ones the place that the nearest gets.
    """
    first, last = change.start, change.end - 1
    if last < first:  # an insertion
        if place.strand == "+":
            first = last = change.start if change.start > place.tss else change.start - 1
        else:
            first = last = change.start - 1 if change.start <= place.tss else change.start
    low, high = first - place.tss, last - place.tss
    nearest = 0 if low <= 0 <= high else low if low > 0 else high
    return nearest if place.strand == "+" else -nearest


def rebuild(around: np.ndarray, first: int, change: Change, place: Place) -> np.ndarray:
    """Build a gene's window with a change in it, anchored at the TSS.

    Args:
        around: tokens of the chromosome's forward strand, which reach beyond the window on both sides by at least
            as many bases as the change takes away; N past the chromosome's ends.
        first: position of the first of them on the chromosome.
        change: that alters the window.
        place: of the window.

    Returns:
        uint8, shape (upstream + downstream,), 5'→3' along the gene.
    """
    new = encode(change.new)
    border, start, end = place.border, change.start, change.end
    upstream_on_left = place.strand == "+"
    if start < border < end:
        cut = min(border - start, len(new))
    elif end < border or (end == border and (start < end or upstream_on_left)):
        cut = len(new)
    else:
        cut = 0
    left = np.concatenate([around[: min(start, border) - first], new[:cut], around[end - first : border - first]])
    after = max(end, border) - first
    right = np.concatenate([around[border - first : max(start, border) - first], new[cut:], around[after:]])
    low, high = place.window
    sequence = np.concatenate([left[len(left) - (border - low) :], right[: high - border]])
    return sequence if place.strand == "+" else np.asarray(reverse_complement(sequence))


class Task(NamedTuple):
    """The alleles of one gene, with what scoring them needs.

    Attributes:
        tokens: of the window, 5'→3' along the gene.
        place: of the window.
        around: for `rebuild`.
        first: for `rebuild`.
        changes: in the order of the alleles.
    """

    tokens: np.ndarray
    place: Place
    around: np.ndarray
    first: int
    changes: list[Change]


def task_of(genome: Genome, chrom: str, tokens: np.ndarray, place: Place, changes: list[Change]) -> Task:
    """Put together what scoring one gene's alleles needs; `chrom` is spelled as in the genome."""
    start, end = place.window
    beyond = max(change.end - change.start for change in changes)
    around = encode(genome.fetch(chrom, start - beyond, end + beyond))
    return Task(tokens, place, around, start - beyond, changes)


def predict_alleles(
    model: Network,
    tasks: Sequence[Task],
    both_strands: bool = False,
    batch_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> tuple[np.ndarray, np.ndarray]:
    """Predict what alleles do.

    Single-base substitutions come from saturation mutagenesis of the stretch that holds them, where that is
    cheaper than a forward pass for each; all others from forward passes of rebuilt windows.

    Args:
        model: on the device to compute on.
        tasks: a gene each.
        both_strands: average with what the model says of the reverse complement.
        batch_size: of saturation mutagenesis; chosen by default.
        precision: of forward passes: fp32, or bf16, whose rounding, 1e-2 of a prediction, can hide small effects.

    Returns:
        Predictions of the unchanged window, and differences of the changed to them: float32, shape (alleles,
        targets) each, alleles in the order of the tasks.
    """
    rebuilt: list[tuple[Task, Change]] = []
    owner = []
    by_ism: dict[int, list[tuple[int, Change]]] = {}  # of a task, its alleles that ISM scores
    allele = 0
    for number, task in enumerate(tasks):
        snvs = [change for change in task.changes if change.is_snv]
        together = bool(snvs) and _worthwhile(model.config, task, snvs)
        for change in task.changes:
            if together and change.is_snv:
                by_ism.setdefault(number, []).append((allele, change))
            else:
                rebuilt.append((task, change))
                owner.append((allele, number))
            allele += 1
    references = np.stack([task.tokens for task in tasks])
    strands = [False, True] if both_strands else [False]
    predicted = _predict_windows(model, references, rebuilt, strands, precision)
    reference = predicted[np.repeat(np.arange(len(tasks)), [len(task.changes) for task in tasks])]
    difference = np.empty_like(reference)
    if owner:
        alleles, numbers = np.array(owner).T
        difference[alleles] = predicted[len(tasks) :] - predicted[numbers]
    for number, snvs in by_ism.items():
        place = tasks[number].place
        offsets = [_offset(change, place) for _, change in snvs]
        low, high = min(offsets), max(offsets) + 1
        scores = _scores(model, references[number], (low, high), strands, batch_size)
        for (row, change), offset in zip(snvs, offsets, strict=True):
            difference[row] = scores[:, _base(change, place), offset - low]
    return reference, difference


def _predict_windows(
    model: Network,
    references: np.ndarray,
    rebuilt: Sequence[tuple[Task, Change]],
    strands: Sequence[bool],
    precision: Literal["fp32", "bf16"],
) -> np.ndarray:
    """Predict the unchanged windows, then the rebuilt: (windows, targets), the mean over the strands."""
    # whole batches of predictions at a time, so that their results do not depend on where the cuts are
    at_a_time = max(_WINDOWS, _BASES_AT_A_TIME // references.shape[1] // _WINDOWS * _WINDOWS)
    found = []
    for start in range(0, len(references) + len(rebuilt), at_a_time):
        first = max(0, start - len(references))
        last = max(0, start + at_a_time - len(references))
        changed = [rebuild(task.around, task.first, change, task.place) for task, change in rebuilt[first:last]]
        some = np.concatenate([references[start : start + at_a_time], *([np.stack(changed)] if changed else [])])
        found.append(
            np.stack([predict(model, _turned(some, turn), precision=precision) for turn in strands]).mean(axis=0)
        )
    return np.concatenate(found)


def table_of(
    genes: pd.DataFrame,
    alleles: pd.DataFrame,
    targets: Sequence[str],
    reference: np.ndarray,
    difference: np.ndarray,
    places: Sequence[Place],
) -> pa.Table:
    """Put alleles and what was predicted of them into a table.

    Args:
        genes: of the data set.
        alleles: as in `Found`.
        targets: names.
        reference: predictions of the unchanged windows, shape (members, alleles, targets), target units.
        difference: of the changed windows to them, likewise.
        places: of all genes.

    Returns:
        Columns `chrom`, `pos`, `ref`, `alt`, `gene_id`, `tss_distance`, and per target `TARGET_ref`, `TARGET_alt`,
        `TARGET_difference`; of several members these are means, and `TARGET_difference_sd` the standard deviation.
    """
    rows = alleles["gene"].to_numpy()
    changes = zip(alleles["start"], alleles["end"], alleles["new"], strict=True)
    distances = [distance_to_tss(Change(*one), places[row]) for one, row in zip(changes, rows, strict=True)]
    columns: dict[str, pa.Array] = {
        "chrom": pa.array(genes["chrom"].to_numpy()[rows], pa.string()),
        "pos": pa.array(alleles["pos"].to_numpy(), pa.int64()),
        "ref": pa.array(alleles["ref"].to_numpy(), pa.string()),
        "alt": pa.array(alleles["alt"].to_numpy(), pa.string()),
        "gene_id": pa.array(genes["gene_id"].to_numpy()[rows], pa.string()),
        "tss_distance": pa.array(distances, pa.int64()),
    }
    means = (reference.mean(axis=0), (reference + difference).mean(axis=0), difference.mean(axis=0))
    for index, target in enumerate(targets):
        for name, values in zip(("ref", "alt", "difference"), means, strict=True):
            columns[f"{target}_{name}"] = pa.array(values[:, index], pa.float32())
        if len(difference) > 1:
            spread = difference[:, :, index].std(axis=0, ddof=1)
            columns[f"{target}_difference_sd"] = pa.array(spread, pa.float32())
    return pa.table(columns)


def _worthwhile(config: NetworkConfig, task: Task, snvs: Sequence[Change]) -> bool:
    if not isinstance(config, CNNConfig):
        return False  # each mutant is a whole pass
    length = len(task.tokens)
    offsets = [_offset(change, task.place) for change in snvs]
    span = max(offsets) + 1 - min(offsets)
    whole = _forward_operations(config, length)
    return _SLOWER * operations(config, length) * span / length + whole < whole * len(snvs)


def _forward_operations(config: CNNConfig, length: int) -> float:
    cells = float(length - config.outside(length))
    total, inputs = 0.0, len(BASES)
    for block, (outputs, kernel) in enumerate(zip(config.channels, config.kernel_sizes, strict=True)):
        total += 2 * cells * kernel * inputs * outputs
        inputs = outputs
        if block < len(config.pool_sizes):
            cells /= config.pool_sizes[block]
    return total * (2 if config.both_strands else 1)


def _scores(
    model: Network,
    tokens: np.ndarray,
    positions: tuple[int, int],
    strands: Sequence[bool],
    batch_size: int | None,
) -> np.ndarray:
    """Score a stretch of one window: (targets, 4, stretch)."""
    found = []
    for turn in strands:
        low, high = (len(tokens) - positions[1], len(tokens) - positions[0]) if turn else positions
        some = _turned(tokens[None], turn)
        scores = saturation_mutagenesis(model, some, batch_size=batch_size, positions=(low, high))[0]
        found.append(scores[:, ::-1, ::-1] if turn else scores)
    return np.stack(found).mean(axis=0)


def _turned(tokens: np.ndarray, turn: bool) -> np.ndarray:
    return np.ascontiguousarray(reverse_complement(tokens)) if turn else tokens


def _offset(change: Change, place: Place) -> int:
    """Return where a base of the chromosome stands in the window's sequence."""
    start, end = place.window
    return change.start - start if place.strand == "+" else end - 1 - change.start


def _base(change: Change, place: Place) -> int:
    base = BASES.index(change.new)
    return base if place.strand == "+" else len(BASES) - 1 - base


class _Bases:
    """The genome, read in stretches: a read from a compressed FASTA costs far more than a look at a record."""

    def __init__(self, genome: Genome) -> None:
        self.genome = genome
        self._block = lru_cache(maxsize=_BLOCKS)(self._read)

    def _read(self, chrom: str, block: int) -> str:
        return self.genome.fetch(chrom, block * _BLOCK, (block + 1) * _BLOCK)

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """As `Genome.fetch`."""
        first, last = start // _BLOCK, (end - 1) // _BLOCK
        if first != last or start < 0:
            return self.genome.fetch(chrom, start, end)
        return self._block(chrom, first)[start - first * _BLOCK : end - first * _BLOCK]


class _Spelling:
    """Finds the genome's name of a chromosome, whatever the VCF's spelling."""

    def __init__(self, genome: Genome) -> None:
        self.lengths = genome.lengths
        self.known: dict[str, str | None] = {}

    def __call__(self, chrom: str) -> str | None:
        if chrom not in self.known:
            self.known[chrom] = match_chromosomes([chrom], self.lengths).get(chrom)
        return self.known[chrom]


class _Windows:
    """Finds the windows that a change alters; all are of one length, so their starts suffice."""

    def __init__(
        self, promoters: Promoters, places: Sequence[Place], rows: Sequence[int], chrom_of: dict[str, str]
    ) -> None:
        self.places, self.length = places, promoters.length
        self.of_chrom: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            chrom = chrom_of[promoters.genes["chrom"].iloc[row]]
            self.of_chrom.setdefault(chrom, []).append((places[row].window[0], int(row)))
        for windows in self.of_chrom.values():
            windows.sort()
        self.starts = {chrom: [start for start, _ in windows] for chrom, windows in self.of_chrom.items()}

    def altered_by(self, chrom: str, change: Change) -> list[int]:
        """Return the rows of the genes."""
        starts = self.starts.get(chrom, [])
        near = slice(bisect_left(starts, change.start - self.length), bisect_right(starts, change.end))
        return [row for _, row in self.of_chrom.get(chrom, [])[near] if alters(change, self.places[row])]


def _reason_to_skip(record: Record, alt: str, chrom: str | None, bases: _Bases) -> str | None:
    if chrom is None:
        return "chromosome"
    if not record.alts or alt == ".":
        return "no_alt"
    if _SYMBOLIC.search(alt):
        return "symbolic"
    ref, alt = record.ref.upper(), alt.upper()
    if not _ACGT.fullmatch(ref) or not _ACGT.fullmatch(alt):
        return "non_acgt"
    if record.pos < 1 or bases.fetch(chrom, record.pos - 1, record.pos - 1 + len(ref)) != ref:
        return "ref_mismatch"
    return "same" if ref == alt else None


def _require_same_genome(
    bases: _Bases, promoters: Promoters, places: Sequence[Place], rows: Sequence[int], chrom_of: dict[str, str]
) -> None:
    genes = promoters.genes
    for row in rows:
        gene, chrom = genes["gene_id"].iloc[row], genes["chrom"].iloc[row]
        mend = "give the genome that jobs.prepare was given"
        if chrom not in chrom_of:
            raise InputError(f"{bases.genome.path}: has no chromosome {chrom}, where {gene} lies; {mend}")
        there = encode(bases.fetch(chrom_of[chrom], *places[row].window))
        if places[row].strand == "-":
            there = np.asarray(reverse_complement(there))
        if not np.array_equal(there, promoters.tokens[row]):
            raise InputError(f"{bases.genome.path}: has another promoter of {gene} than the data; {mend}")


def _require_sound(where: UPath) -> None:
    """Refuse what htslib takes for a VCF and then crashes on, or ends at without a word."""
    packed = storage.is_gzip(where)
    with where.open("rb") as file:
        head = file.read(5)
    if packed:
        with where.open("rb") as raw:
            try:
                head = gzip.GzipFile(fileobj=raw).read(5)  # type: ignore[arg-type] # a binary file
            except (OSError, EOFError) as error:
                raise InputError(f"{where}: the compressed data is damaged; fetch or make it again") from error
    if packed and storage.is_bgzip(where):
        storage.require_end_of_bgzip(where)  # cut between two blocks it would pass for a shorter file
    if head[:3] == b"BCF":
        return
    if head[:2] != b"##":
        raise InputError(
            f"{where}: is neither VCF nor BCF (it must begin with '##fileformat'); is it the right file?"
        )
    headed = False
    with storage.open_text(where) as lines:
        for number, line in enumerate(lines, start=1):
            if line.startswith("#"):
                headed = headed or line.startswith("#CHROM")
                continue
            if not line.strip():
                continue
            cells = line.split("\t", 8)
            if not headed:
                raise InputError(f"{where}: line {number} comes before any line '#CHROM'; write the header again")
            if len(cells) < 8 or not cells[1].isdecimal() or not cells[3]:
                raise InputError(
                    f"{where}: line {number} is no variant ({line.strip()[:40]!r}); it needs at least 8 columns, "
                    "split by tabs, and a position"
                )
    if not headed:
        raise InputError(f"{where}: has no line '#CHROM'; was it written to the end?")


@contextmanager
def _local(where: UPath) -> Iterator[Path]:
    if storage.is_local(where):
        yield Path(str(where))
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / where.name
        storage.copy_file(where, copy)
        yield copy
