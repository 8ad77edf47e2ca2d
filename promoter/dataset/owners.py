"""Find the gene that a line of GTF or GFF3 belongs to.

Each line has an owner: a gene line its gene, a transcript line its transcript, an exon, CDS or UTR line the
transcript that it is part of. A transcript names its gene as parent. Children may come before their parents, so
that genes are looked up once all lines are read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

from promoter.dataset.gff import Line, attribute_value, is_gene, is_transcript, without_prefix

# Attributes that hold the gene id, on gene lines and on others; tables of bacteria are made with locus_tag
_GENE_ID = ("gene_id", "locus_tag", "ID", "gene", "Name", "name")
_PART_ID = ("gene_id", "geneID", "locus_tag", "gene", "ID", "Name", "name")
_PART_ID_BESIDE_PARENT = ("gene_id", "geneID", "locus_tag", "gene")  # where the parent has no line of its own
_GENE_NAME = ("gene_name", "Name", "gene", "gene_symbol", "symbol")
_PART_GENE_NAME = ("gene_name", "gene", "gene_symbol", "symbol")  # Name is the transcript's
_BIOTYPE = ("gene_biotype", "gene_type", "biotype")
_PART_BIOTYPE = ("gene_biotype", "gene_type")  # biotype is the transcript's


@dataclass(slots=True, eq=False)
class _Node:
    """Hold what lines say of a gene, or of a transcript."""

    parent: str | None = None
    gene_id: str | None = None
    source: str = ""  # attribute that holds the id
    given: str | None = None  # value of the attribute that was asked for
    name: str | None = None
    biotype: str | None = None


class Gene(NamedTuple):
    """Name a gene.

    Attributes:
        gene_id: id of the gene.
        source: attribute that the id was taken from.
        name: symbol; None where unknown or the same as the id.
        biotype: biotype; None where unknown.
    """

    gene_id: str
    source: str
    name: str | None
    biotype: str | None


class Owners:
    """Hold what the lines of an annotation say of genes and transcripts; see the module.

    Args:
        attribute: attribute that holds the gene id; None for the usual ones.

    Attributes:
        transcript_is_gene: number of GTF lines on which the two have one id, and on which they have two.
    """

    def __init__(self, attribute: str | None) -> None:
        self.attribute = attribute
        self.transcript_is_gene: Counter[bool] = Counter()
        self._nodes: dict[str, _Node] = {}
        self._given: dict[str, str] = {}  # owner -> value of `attribute` on the lines that are genes
        self._hints: dict[str, tuple[str, str]] = {}  # owner -> id and its source, used if its parent has no line
        self._transcripts: dict[str, list[str]] = defaultdict(list)  # spelling of a transcript's id -> owners
        self._genes: dict[str, Gene] = {}

    def add_name(self, name: str, source: str) -> None:
        """Add a gene of which no more than the id is known."""
        self._nodes.setdefault(name, _Node(gene_id=name, source=source))

    def add_transcript(self, owner: str, parent: str) -> None:
        """Add a transcript of a gene."""
        self._nodes[owner] = _Node(parent=parent)

    def prefer(self, owner: str, given: str) -> None:
        """Take a value of the attribute asked for from a line of an owner, before those of its parents."""
        self._given.setdefault(owner, given)

    def transcript_genes(self) -> dict[str, str]:
        """Return transcript id -> gene id, for each spelling of a transcript's id that one gene has."""
        genes = {
            name: {self.gene_of(owner).gene_id for owner in owners} for name, owners in self._transcripts.items()
        }
        return {name: ids.pop() for name, ids in genes.items() if len(ids) == 1}

    def gene_of(self, owner: str) -> Gene:
        """Look up the gene of an owner."""
        if owner not in self._genes:
            self._genes[owner] = self._look_up(owner)
        return self._genes[owner]

    def add(self, line: Line, given: str | None, *, gtf: bool) -> list[str]:
        """Return the owners of a line, several for an exon of several transcripts; keep what it says of them."""
        attributes = line.attributes
        own_id, source = _first(attributes, _GENE_ID if is_gene(line.kind) else _PART_ID)
        if not own_id and given:
            own_id, source = given, self.attribute or ""
        if is_gene(line.kind):
            key = own_id if gtf else attributes.get("ID") or own_id
            self._describe(key, attributes, own_id, source=source, given=given, gene_line=True)
            return [key] if key else []
        if gtf:
            return self._gtf_owners(attributes, own_id, source)
        parents = [unquote(parent) for parent in attributes.get("Parent", "").split(",") if parent]
        hint = _first(attributes, _PART_ID_BESIDE_PARENT)
        own_key = attributes.get("ID") or own_id
        owners = [own_key] if own_key and (is_transcript(line.kind) or not parents) else parents
        for owner in owners:
            if owner not in parents:
                self._describe(owner, attributes, own_id, source=source)
                self._nodes[owner].parent = parents[0] if parents else None
                if is_transcript(line.kind):
                    self._name_transcript(owner, attributes)
            if parents and hint[0]:
                self._hints.setdefault(owner, (hint[0], hint[1]))
        return owners

    def _gtf_owners(self, attributes: dict[str, str], own_id: str | None, source: str) -> list[str]:
        transcript = attributes.get("transcript_id")
        gene_id = own_id or transcript
        if not gene_id:
            return []
        self._describe(gene_id, attributes, gene_id, source=source or "transcript_id")
        if not transcript:
            return [gene_id]
        self.transcript_is_gene[transcript == gene_id] += 1
        owner = f"{gene_id}\t{transcript}"  # NCBI's unknown_transcript_1 is one of many genes
        if owner not in self._nodes:
            self._nodes[owner] = _Node(parent=gene_id)
            self._name_transcript(owner, attributes)
        return [owner]

    def _describe(
        self,
        key: str | None,
        attributes: dict[str, str],
        own_id: str | None,
        *,
        source: str,
        given: str | None = None,
        gene_line: bool = False,
    ) -> None:
        if not key:
            return
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = _Node()
        if node.gene_id is None or gene_line:
            node.gene_id, node.source = own_id, source
        node.given = node.given or given
        if node.name is None:
            ids = {own_id, given, without_prefix(attributes.get("ID", ""))}
            names = (attributes.get(name) for name in (_GENE_NAME if gene_line else _PART_GENE_NAME))
            node.name = next((name for name in names if name and name not in ids), None)
        if node.biotype is None:
            node.biotype = _first(attributes, _BIOTYPE if gene_line else _PART_BIOTYPE)[0]

    def _name_transcript(self, owner: str, attributes: dict[str, str]) -> None:
        raw = attributes.get("ID", "")
        version = attributes.get("transcript_version") or attributes.get("version")
        for name in filter(None, {attributes.get("transcript_id"), raw, without_prefix(raw)}):
            self._transcripts[name].append(owner)
            if version:  # Ensembl's FASTA files of transcripts have it in their ids
                self._transcripts[f"{name}.{version}"].append(owner)

    def _look_up(self, owner: str) -> Gene:
        chain: dict[str, _Node] = {}
        key: str | None = owner
        while key is not None and key not in chain and key in self._nodes:
            chain[key] = self._nodes[key]
            key = chain[key].parent
        nodes = list(chain.values())[::-1]  # the gene first
        if nodes and (key is None or key in chain):
            gene_id, source = nodes[0].gene_id or owner, nodes[0].source
        else:  # the parent has no line
            gene_id, source = self._hints.get(owner) or (without_prefix(key or owner), "Parent")
        given = self._given.get(owner) or next((node.given for node in nodes if node.given), None)
        if given:
            gene_id, source = given, self.attribute or ""
        name = next((node.name for node in nodes if node.name and node.name != gene_id), None)
        return Gene(gene_id, source, name, next((node.biotype for node in nodes if node.biotype), None))


def _first(attributes: dict[str, str], names: Iterable[str]) -> tuple[str | None, str]:
    """Return the first attribute that there is, and its name."""
    for name in names:
        value = attribute_value(attributes, name) if name in attributes else None
        if value and value != ".":
            changed = value != attributes[name]
            return value, f"{name} without its prefix" if changed else name
    return None, ""
