"""What `model.yaml` and `split.tsv` of a model directory hold, and their checked reading."""

from __future__ import annotations

import difflib
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, NotRequired

import pandas as pd
from pydantic import Field
from typing_extensions import TypedDict

from promoter.errors import InputError, listed
from promoter.splits.config import SPLITS, By
from promoter.splits.split import assign, places
from promoter.storage.parsing import parse_yaml
from promoter.storage.records import require_seal
from promoter.storage.schema import checked, parse_csv, require_format

FORMAT = 1
DESCRIPTION = "model.yaml"
GENES = "split.tsv"
COPY_AGAIN = "copy the model directory again, or train again"
RANK = SPLITS.index  # how much a split says about a gene: the first outdoes the others


@dataclass(frozen=True)
class ModelInfo:
    """Describe a model: what `model.yaml` holds besides the architecture.

    Attributes:
        targets: names of the targets, in the order of the model's outputs.
        window: `upstream`, `downstream` and `length` in bases; the first two are None if unknown.
        standardisation: per target the `mean` and `sd` of the training set; the saved weights already return
            original units.
        transform: name of the transform of the expression values, as in `promoter.dataset.prepare`.
        split: `train`, `val`, `test` -> chromosomes, so that the model tells which genes were held out.
        split_of_gene: gene id -> (place, split), for genes that are not in the split of their chromosome; the
            place is what `promoter.splits.split.places` returns, the split None for a gene that was left out.
        data: `sha256` and number of `genes` of the training data; `split_by`, what the split never divides, and
            the `block_size` of blocks; `library`, which optional columns a library has.
        training: the training configuration and `best_epoch`.
        versions: software name -> version that trained the model.
        init: the model whose weights the training started from: `model` (its path), `sha256`, `targets` (those
            whose outputs were taken over), `held_out_genes_it_learned_from` (by set); empty for new weights.
    """

    targets: list[str]
    window: dict[str, int | None]
    standardisation: dict[str, list[float]] = field(default_factory=dict)
    transform: str | None = None
    split: dict[str, list[str]] = field(default_factory=dict)
    split_of_gene: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    init: dict[str, Any] = field(default_factory=dict)

    @property
    def split_of_chrom(self) -> dict[str, str]:
        """Map chromosomes to splits."""
        return {chrom: name for name, chroms in self.split.items() for chrom in chroms}

    @property
    def located(self) -> bool:
        """Tell whether the model was trained on windows of a genome, and not on a library of sequences."""
        return self.window.get("upstream") is not None

    @property
    def target_sds(self) -> list[float] | None:
        """Standard deviation of each target over the training set; None where it is not known of each."""
        sds = self.standardisation.get("sd", [])
        known = len(sds) == len(self.targets) and all(math.isfinite(sd) and sd > 0 for sd in sds)
        return list(sds) if known else None

    def outputs_of(self, targets: Sequence[str] | None) -> list[int] | None:
        """Return the numbers of the outputs of some targets, in the model's order; None for all of them.

        Args:
            targets: names of targets in any order; None for all.

        Raises:
            InputError: a name is not of the model, or comes twice.
        """
        if targets is None:
            return None
        if unknown := [name for name in targets if name not in self.targets]:
            near = difflib.get_close_matches(unknown[0], self.targets, n=3, cutoff=0.5)
            fix = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {listed(self.targets)}"
            raise InputError("is no target of the model", setting="targets", value=unknown[0], fix=fix)
        if twice := [name for index, name in enumerate(targets) if name in targets[:index]]:
            raise InputError("comes twice", setting="targets", value=twice[0], fix="name each target once")
        if not targets:
            raise InputError("names no target", setting="targets", value=[], fix="leave it out for all")
        outputs = [index for index, name in enumerate(self.targets) if name in targets]
        return None if len(outputs) == len(self.targets) else outputs

    def get_split(self, genes: pd.DataFrame) -> pd.Series:
        """Look up the split that each gene was in when the model was trained; None for a gene in no split.

        What a model of a library knows is looked up by its bases, as an id may mean another sequence elsewhere.

        Args:
            genes: genes of any data set: columns `gene_id`, `chrom`, and for a model of a library `sequence`.
        """
        where = genes["chrom"] if self.located else places(genes.assign(chrom=None))
        return self.split_at(genes["gene_id"], where)

    def split_at(self, gene_ids: pd.Series, where: pd.Series) -> pd.Series:
        """Look up splits as `get_split` does, given the place of each gene as `split_of_gene` has it."""
        if not self.located:
            of_place: dict[str, str | None] = {}
            for place, name in self.split_of_gene.values():
                both = (name, of_place.get(place))
                of_place[place] = min((one for one in both if one is not None), key=RANK, default=None)
            of_id = {(gene, place): name for gene, (place, name) in self.split_of_gene.items()}
            pairs = zip(gene_ids, where, strict=True)
            found = [of_id.get(pair, of_place.get(pair[1])) for pair in pairs]
            return pd.Series(found, index=gene_ids.index, dtype="object")
        split = assign(where, self.split_of_chrom).astype("object")
        if self.split_of_gene:
            listed = gene_ids.isin(self.split_of_gene.keys())
            named = [self.split_of_gene[gene][1] for gene in gene_ids[listed]]
            split[listed] = pd.Series(named, index=split.index[listed], dtype="object")
        return split.where(split.notna(), None)


class _Window(TypedDict):
    upstream: int | None
    downstream: int | None
    length: int | None


class _Split(TypedDict, total=False):
    train: list[str]
    val: list[str]
    test: list[str]


class _Data(TypedDict, total=False):
    sha256: str
    genes: int
    library: list[Literal["split", "group", "weight"]]
    split_by: By
    block_size: int


class _Training(TypedDict, total=False):
    best_epoch: int
    seed: int


class _Init(TypedDict):
    model: str
    sha256: str
    targets: list[str]
    held_out_genes_it_learned_from: dict[str, int]


class Description(TypedDict):
    """The entries of `model.yaml`; what earlier versions did not write may be missing."""

    architecture: dict[str, Any]
    targets: Annotated[list[str], Field(min_length=1)]
    window: _Window
    weights_sha256: str
    genes_sha256: NotRequired[str]
    standardisation: NotRequired[dict[str, list[float]]]
    transform: NotRequired[str | None]
    split: NotRequired[_Split]
    data: NotRequired[_Data]
    training: NotRequired[_Training]
    versions: NotRequired[dict[str, str]]
    init: NotRequired[_Init]


def read_description(content: bytes, genes: bytes, source: str) -> tuple[Description, ModelInfo]:
    """Read `model.yaml` and `split.tsv`.

    Args:
        content: content of `model.yaml`.
        genes: content of `split.tsv`; empty if there is no such file.
        source: path of the model directory, for messages.

    Raises:
        InputError: one of them is damaged, or of another format version.
    """
    where = f"{source}: {DESCRIPTION}"
    entries = checked(parse_yaml(content, where, COPY_AGAIN), dict[str, Any], where, COPY_AGAIN)
    require_format(entries, FORMAT, "model", source=source, fix="train again")
    require_seal(entries, where, COPY_AGAIN)
    description = checked(entries, Description, where, COPY_AGAIN)
    of_info = {entry.name for entry in fields(ModelInfo)} & entries.keys() - {"split_of_gene"}
    info = ModelInfo(**{name: entries[name] for name in of_info})  # with settings that `Description` does not name
    return description, replace(info, split_of_gene=_genes_from_bytes(genes, info.located, f"{source}: {GENES}"))


def describe_info(info: ModelInfo) -> dict[str, Any]:
    """Return the entries of `model.yaml` that a description of a model makes."""
    entries = to_plain(asdict(replace(info, split_of_gene={})))
    del entries["split_of_gene"]
    if not info.init:
        del entries["init"]
    return entries


def genes_to_bytes(info: ModelInfo) -> bytes:
    """Return the content of `split.tsv`; empty where the chromosomes say it all."""
    if not info.split_of_gene:
        return b""
    rows = [(gene, place, split) for gene, (place, split) in info.split_of_gene.items()]
    table = pd.DataFrame(rows, columns=["gene_id", _place_column(info.located), "split"])
    return table.to_csv(sep="\t", index=False).encode()


def _place_column(located: bool) -> str:
    return "chrom" if located else "sequence_checksum"


def _genes_from_bytes(content: bytes, located: bool, source: str) -> dict[str, tuple[str, str | None]]:
    if not content:
        return {}
    columns = ["gene_id", _place_column(located), "split"]
    with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8") as file:
        table = parse_csv(file, source, COPY_AGAIN, text=columns, sep="\t")[columns]
    if wrong := sorted(set(table["split"]) - {*SPLITS, ""}):
        raise InputError(f"{source}: {wrong[0]!r} is not one of the sets {', '.join(SPLITS)}; {COPY_AGAIN}")
    return {gene: (place, split or None) for gene, place, split in table.itertuples(index=False, name=None)}


def to_plain(value: Any) -> Any:
    """Convert tuples to lists, since safe YAML has no tuples."""
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value
