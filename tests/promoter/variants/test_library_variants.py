"""Variants of a library's sequences: the table, and effects against strings that are edited one by one."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.files import Write
from support.libraries import CNN, library_of, random_sequences

from promoter.dataset.promoters import Promoters
from promoter.errors import InputError, InputNote, InputWarning
from promoter.models.cnn import PromoterCNN
from promoter.sequence import encode
from promoter.training import predict
from promoter.variants import find_sequence_alleles, group_by_sequence, predict_alleles, read_sequence_variants
from promoter.variants.effects import effects_to_table

LENGTH = 40
SEQUENCES = random_sequences(6, LENGTH)


def network() -> PromoterCNN:
    torch.manual_seed(1)
    return PromoterCNN(CNN, length=LENGTH).eval()


def random_table(sequences: dict[str, str], seed: int = 0) -> pd.DataFrame:
    """Draw substitutions of one and several bases, insertions and deletions, to the very ends of each sequence."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, sequence in sequences.items():
        bases = sequence.strip("N")
        for _ in range(25):
            at, size = int(rng.integers(len(bases))), int(rng.integers(1, 6))
            ref = bases[at : at + size]
            alt = "".join(rng.choice(list("ACGT"), int(rng.integers(1, 6))))
            if alt != ref:
                rows.append((name, at + 1, ref, alt))
        rows += [(name, 1, bases[0], "TT" + bases[0]), (name, len(bases), bases[-1], bases[-1] + "GG")]
        rows += [(name, at + 1, bases[at], "C") for at in range(len(bases)) if bases[at] != "C"]  # enough for ISM
    return pd.DataFrame(rows, columns=["id", "position", "ref", "alt"]).drop_duplicates(ignore_index=True)


def edited(sequence: str, position: int, ref: str, alt: str, align: str | None) -> str:
    """Edit the bases between the N by hand; the end that the library is aligned by stays in place."""
    if align == "right":
        mirrored = edited(
            sequence[::-1], len(sequence.lstrip("N")) - position - len(ref) + 2, ref[::-1], alt[::-1], "left"
        )
        return mirrored[::-1]
    bases = list(sequence.rstrip("N") if align else sequence)
    assert "".join(bases[position - 1 : position - 1 + len(ref)]) == ref
    bases[position - 1 : position - 1 + len(ref)] = list(alt)
    while len(bases) < len(sequence):
        bases.append("N")
    return "".join(bases[: len(sequence)])


def effects(source: Path, promoters: Promoters, *, both_strands: bool = False) -> pd.DataFrame:
    found = find_sequence_alleles(source, promoters, rows=range(len(promoters)))
    grouped = group_by_sequence(found.alleles, promoters)
    reference, difference = predict_alleles(network(), grouped, both_strands=both_strands)
    windows = [gene.window for gene in grouped]
    numbers = {row: number for number, row in enumerate(found.alleles["gene"].unique())}
    return effects_to_table(
        promoters.genes.iloc[list(numbers)],
        found.alleles.assign(gene=found.alleles["gene"].map(numbers)),
        targets=["t"],
        reference=reference[None],
        difference=difference[None],
        windows=windows,
    ).to_pandas()


@pytest.mark.filterwarnings("ignore:.*longer than the window:promoter.errors.InputNote")
@pytest.mark.parametrize("align", [None, "left", "right"])
@pytest.mark.parametrize("complete", [False, True])
def test_effects_are_those_of_strings_edited_one_by_one(tmp_path: Path, align: str | None, complete: bool) -> None:
    cut = {"left": slice(0, 33), "right": slice(7, None), None: slice(None)}[align]
    pad = {"left": str.ljust, "right": str.rjust, None: lambda one, *_: one}[align]
    sequences = {name: pad(one[cut], LENGTH, "N") for name, one in SEQUENCES.items()}
    promoters = library_of(sequences, align=align)
    table = random_table(sequences)
    pairs = [
        (sequences[name], edited(sequences[name], position, ref, alt, align))
        for name, position, ref, alt in zip(*(table[column] for column in table), strict=True)
    ]
    table["reference"], table["changed"] = zip(*pairs, strict=True)
    table = table[table["reference"] != table["changed"]].drop_duplicates(["id", "changed"])
    assert len(table) > 150
    model = network()
    table["effect"] = [
        float(predict(model, encode([after]))[0, 0] - predict(model, encode([before]))[0, 0])
        for before, after in zip(table["reference"], table["changed"], strict=True)
    ]
    if complete:
        table["alternative"] = table["changed"] if align is None else table["changed"].str.strip("N")
        table = table.drop_duplicates(["id", "alternative"])
    keys = ["alternative"] if complete else ["position", "ref", "alt"]
    table.sample(frac=1, random_state=0)[["id", *keys]].to_csv(tmp_path / "v.csv", index=False)
    found = effects(tmp_path / "v.csv", promoters)
    assert len(found) == len(table)
    found = found.rename(
        columns={"gene_id": "id", "pos": "position", **({"alt": "alternative"} if complete else {})}
    )
    joined = table.merge(found, on=["id", *keys], validate="1:1")
    assert len(joined) == len(table)
    np.testing.assert_allclose(joined["t_difference"], joined["effect"], atol=2e-6)
    assert found[["chrom", "tss_distance", *(["position", "ref"] if complete else [])]].isna().all(axis=None)


@pytest.mark.filterwarnings("ignore:.*longer than the window:promoter.errors.InputNote")
def test_both_strands_are_averaged(tmp_path: Path) -> None:
    promoters = library_of(SEQUENCES)
    table = random_table(SEQUENCES).head(20)
    table.to_csv(tmp_path / "v.tsv", sep="\t", index=False)
    one, both = (effects(tmp_path / "v.tsv", promoters, both_strands=choice) for choice in (False, True))
    mirror = str.maketrans("ACGT", "TGCA")
    row = both.iloc[0]
    before = SEQUENCES[row["gene_id"]]
    after = edited(before, row["pos"], row["ref"], row["alt"], None)
    turned = [text.translate(mirror)[::-1] for text in (before, after)]
    reverse = np.subtract(*predict(network(), encode(turned))[::-1, 0])
    np.testing.assert_allclose(row["t_difference"], (one.iloc[0]["t_difference"] + reverse) / 2, atol=1e-6)


def test_a_center_library_moves_either_side(write: Write) -> None:
    """With an odd number of N the additional one stands behind the sequence, as `prepare` has it."""
    promoters = library_of({"a": "NNACGTAANN", "b": "NNACGTANNN"}, align="center")
    changed = ["a,ACGTAA", "a,ACGT", "a,ACG", "a,TACGTAAT", "b,TCGTA", "b,ACGT", "b,ACGTAAT"]
    path = write("v.csv", "\n".join(["id,alternative", *changed]))
    found = find_sequence_alleles(path, promoters, rows=[0, 1])
    windows = {row.alt: _window(promoters, row) for row in found.alleles.itertuples() if row.gene == 0}
    assert windows == {"ACGT": "NNNACGTNNN", "ACG": "NNNACGNNNN", "TACGTAAT": "NTACGTAATN"}
    windows = {row.alt: _window(promoters, row) for row in found.alleles.itertuples() if row.gene == 1}
    assert windows == {"TCGTA": "NNTCGTANNN", "ACGT": "NNNACGTNNN", "ACGTAAT": "NACGTAATNN"}
    assert found.counts["same"] == 1


def _window(promoters: Promoters, row) -> str:
    sequence = promoters.genes["sequence"][row.gene]
    return sequence[: row.start] + row.new + sequence[row.end :]


LIBRARY = library_of({"a": "acgtaCGTAC", "b": "TTTTTTTTTT", "c": "ACGUACRTAC"})
CASES = [
    ("a,1,A,C", None),
    ("a,1,a,c", "duplicate"),  # lower case is upper case
    ("a,4,U,a", None),  # U is T
    ("c,4,T,A", None),
    ("c,7,R,A", "non_acgt"),
    ("a,1,A,R", "non_acgt"),
    ("a,1,A,-", "non_acgt"),
    ("nobody,1,A,C", "unknown_id"),
    (",1,A,C", "unknown_id"),
    ("b,3,A,C", "ref_mismatch"),
    ("b,10,TT,C", "ref_mismatch"),  # the second T is past the end
    ("b,11,T,C", "past_end"),
    ("b,3,T,T", "same"),
    ("b,3,T,.", "no_alt"),
    ("b,3,T,", "no_alt"),
    ("b,3,T,<DEL>", "symbolic"),
    ("b,3,T,*", "symbolic"),
    ("b,10,T,TA", "outside_window"),  # what is put behind the last base is cut off
    ('b,5,T,"A,C"', None),  # two alleles
]


def test_each_allele_is_used_or_skipped_for_its_reason(write: Write) -> None:
    path = write("v.csv", "\n".join(["id,position,ref,alt", *(line for line, _ in CASES)]) + "\n")
    skipped = []
    found = find_sequence_alleles(
        path, LIBRARY, rows=[0, 1, 2], skip=lambda variant, alt, reason: skipped.append(reason)
    )
    expected = [reason for _, reason in CASES if reason]
    assert skipped == expected
    assert {name: found.counts[name] for name in set(expected)} == {
        name: expected.count(name) for name in expected
    }
    assert (found.counts["variants"], found.counts["alleles"]) == (len(CASES), len(CASES) + 1 - 2)
    assert found.counts["in_windows"] == found.counts["rows"] == len(found.alleles) == 5
    assert found.alleles["ref"].tolist() == ["A", "T", "T", "T", "T"]


def test_complete_sequences_are_read_as_the_library_is(write: Write) -> None:
    lines = [
        "a,acgtacgtaa",
        "a,ACGTACGTAC",
        "c,ACGTACATAC",
        "c,ACGTACNTAC",
        "a,ACGT-CGTAC",
        "a,",
        "b,TTTTTTTTTTTT",
    ]
    found = find_sequence_alleles(write("v.csv", "\n".join(["id,alternative", *lines])), LIBRARY, rows=[0, 1, 2])
    assert found.alleles[["gene", "start", "end", "new"]].to_numpy().tolist() == [[0, 9, 10, "A"], [2, 6, 7, "A"]]
    assert found.counts["same"] == 2  # N is what R is
    assert (found.counts["non_acgt"], found.counts["no_alt"], found.counts["outside_window"]) == (1, 1, 1)


def test_alleles_that_outgrow_the_window_are_announced(write: Write) -> None:
    path = write("v.csv", "id,position,ref,alt\na,2,C,CAA\na,3,GT,G\n")
    with pytest.warns(
        InputNote, match="1 changed sequence longer than the window, 10 bases: what is past its end"
    ):
        find_sequence_alleles(path, LIBRARY, rows=[0])


def test_sequences_that_were_not_chosen_count_as_outside(write: Write) -> None:
    path = write("v.csv", "id,position,ref,alt\na,1,A,C\nb,1,T,C\n")
    found = find_sequence_alleles(path, LIBRARY, rows=[1])
    assert (found.counts["outside"], found.alleles["gene"].tolist()) == (1, [1])
    with pytest.warns(InputWarning, match="none of 2 alleles is of the sequences that were chosen"):
        find_sequence_alleles(path, LIBRARY, rows=[2])


@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz", "parquet", "txt"])
def test_tables_of_any_kind_are_read_alike(tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame(
        {"ref": ["A", "t"], "note": ["NA", ""], "ID": ["NA", "7"], "Position": [1, 12], "ALT": ["c", "u"]}
    )
    path = tmp_path / f"v.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind.endswith("gz"):
        path.write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    else:
        table.to_csv(path, index=False, sep={"tsv": "\t", "csv": ","}.get(kind, ";"))
    assert [tuple(one) for one in read_sequence_variants(path)] == [("NA", 1, "A", ["C"]), ("7", 12, "T", ["T"])]


def test_positions_that_were_floats_are_read(write: Write) -> None:
    assert [
        one.position for one in read_sequence_variants(write("v.csv", "id,position,ref,alt\na,3.0,A,C\n"))
    ] == [3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,position,ref,alt\na,0,A,C\n",
            "line 2 has the position '0'; positions are whole numbers, and the first",
        ),
        ("id,position,ref,alt\na,1,A,C\na,x,A,C\n", "line 3 has the position 'x'"),
        ("id,position,ref,alt\na,1.5,A,C\n", "line 2 has the position '1.5'"),
        ("id,position,ref,alt\na,,A,C\n", "line 2 has the position ''"),
        (
            "id,position,ref\na,1,A\n",
            "has the columns id, position, ref; name the columns of one kind: id, position",
        ),
        ("name,alternative\na,ACGT\n", "has the columns name, alternative"),
        ("id,position,ref,alt,alternative\na,1,A,C,ACGT\n", "name the columns of one kind"),
        ("id,gene_id,alternative\na,b,ACGT\n", "name the columns of one kind"),
        ("id,alternative\n", "holds no variants"),
        (
            "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n",
            "is a VCF, but the sequences of the data have no coord",
        ),
        (
            "id,position,ref,alt\nx,1,A,C\n",
            "no allele can be used (1: the data has no such sequence); the data has ids",
        ),
        ("id,position,ref,alt\nb,1,A,C\n", "is not what the sequence has there); do positions count from 1"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        find_sequence_alleles(write("v.csv", text), LIBRARY, rows=[0, 1, 2])
    assert message in str(refused.value)


def test_most_refs_that_differ_are_doubted(write: Write) -> None:
    path = write("v.csv", "id,position,ref,alt\nb,1,T,C\nb,1,A,C\nb,2,A,C\n")
    with pytest.warns(
        InputWarning, match="REF of 2 of 3 alleles is not what the sequence has; do positions count"
    ):
        find_sequence_alleles(path, LIBRARY, rows=[1])
