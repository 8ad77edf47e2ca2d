"""Known motifs: JASPAR's, a MEME file's, and Tomtom's comparison with them."""

from __future__ import annotations

import numpy as np
import pytest
from support.files import Write

from promoter.errors import InputError
from promoter.motifs.known import as_meme, jaspar_motifs, match_motifs, read_motifs
from promoter.sequence import encode, one_hot, reverse_complement


def test_motifs_are_named_on_either_strand() -> None:
    fungi = jaspar_motifs("fungi")
    known = {one.name: one for one in fungi}
    words = {name: one_hot(encode(word)).numpy() for name, word in (("a", "AAGGGG"), ("b", "CCCCTT"))}
    words["itself"] = known["REB1"].frequencies_AL
    words["turned"] = np.ascontiguousarray(reverse_complement(known["REB1"].frequencies_AL))
    found = match_motifs(words, fungi)
    assert found.index.tolist() == ["a", "b", "itself", "turned"]
    assert found["match_name"].tolist()[2:] == ["REB1", "REB1"]
    assert found["match_id"]["itself"] == known["REB1"].matrix_id
    assert found["p"]["a"] == pytest.approx(found["p"]["b"], rel=0.1)  # columns of the targets differ by strand
    assert (found["q"] >= found["p"]).all()
    assert found["q"]["itself"] < 1e-3


def test_a_motif_has_a_name_only_where_q_is_at_most_5_percent() -> None:
    """Of random motifs few have a name; a known one has it, as seen in thirty sites."""
    fungi, rng = jaspar_motifs("fungi"), np.random.default_rng(0)
    random = {str(number): rng.dirichlet([0.15] * 4, size=8).T for number in range(200)}
    found = match_motifs(random, fungi)
    assert (found["match_name"] != "").all()
    assert ((found["resembles"] != "") == (found["q"] <= 0.05)).all()
    assert 0 < (found["resembles"] != "").mean() < 0.1
    named = found[found["q"] <= 0.05]
    assert named["resembles"].tolist() == named["match_name"].tolist()
    sites = {
        known.name: np.stack([rng.multinomial(30, column) for column in known.frequencies_AL.T], 1) / 30
        for known in fungi
        if known.frequencies_AL.shape[1] >= 8
    }
    assert (match_motifs(sites, fungi)["resembles"] == list(sites)).mean() > 0.9


def test_motifs_in_meme_text_are_read_back(write: Write) -> None:
    motifs = {one.matrix_id: one.frequencies_AL for one in jaspar_motifs("urochordates")}
    assert len(motifs) > 10
    read = read_motifs(write("motifs.meme", as_meme(motifs)))
    assert [one.matrix_id for one in read] == list(motifs)
    for one in read:
        np.testing.assert_allclose(one.frequencies_AL, motifs[one.matrix_id], atol=2e-6)  # six digits


def test_motifs_have_no_names_without_known_ones() -> None:
    motifs = {"a": np.full((4, 6), 0.25)}
    assert match_motifs(motifs, jaspar_motifs("none"))["match_id"].tolist() == [""]
    assert match_motifs(motifs, jaspar_motifs("none"))["resembles"].tolist() == [""]
    assert match_motifs({}, jaspar_motifs("fungi")).empty


def test_wrong_input_of_known_motifs_is_named(write: Write) -> None:
    with pytest.raises(InputError, match="`taxon='yeast'`: choose among vertebrates"):
        jaspar_motifs("yeast")
    with pytest.raises(InputError, match=r"none\.meme: holds no MOTIF"):
        read_motifs(write("none.meme", "MEME version 4\n"))


HEADER = (
    "MEME version 4\n\nALPHABET= ACGT\n\nMOTIF x y\nletter-probability matrix: alength= 4 w= 2 nsites= 20 E= 0\n"
)
ROWS = "0.25 0.25 0.25 0.25\n0 0 0 1\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (HEADER + "nan 1 1 0\n0 0 0 1\n", r"line 7: 'nan 1 1 0' of MOTIF x y is not four probabilities"),
        (HEADER + "0 0 0 1\n-1 1 1 0\n", r"line 8: '-1 1 1 0' of MOTIF x y is not four probabilities"),
        (HEADER + "0 0 0 0\n0 0 0 1\n", r"line 7: '0 0 0 0' of MOTIF x y is not four probabilities"),
        (HEADER + "8 2 10 0\n0 0 0 1\n", r"line 7: '8 2 10 0' of MOTIF x y is not four probabilities"),
        (HEADER + "inf 0 0 0\n0 0 0 1\n", r"line 7: 'inf 0 0 0' of MOTIF x y is not four probabilities"),
        (HEADER + "0.5 0.5 0\n0 0 0 1\n", r"line 7: '0.5 0.5 0' of MOTIF x y is not four numbers"),
        (HEADER + "a b c d\n0 0 0 1\n", r"line 7: 'a b c d' of MOTIF x y is not four numbers"),
        (HEADER + "0 0 0 1\n", r"line 6: the matrix of MOTIF x y ends early"),
        (HEADER.replace("w= 2", "w= 0") + ROWS, r"line 6: the matrix of MOTIF x y ends early"),
        (HEADER + ROWS + "\n" + HEADER + ROWS, r"line 14: MOTIF x y occurs twice"),
        (HEADER + ROWS + "MOTIF z\n", r"line 9: MOTIF z has no letter-probability matrix"),
        ("MOTIF z\n" + HEADER + ROWS, r"line 1: MOTIF z has no letter-probability matrix"),
        (HEADER.replace("ACGT", "ACDEFGHIKLMNPQRSTVWY") + ROWS, r"line 3: the alphabet ACDEF.* is not DNA"),
        (
            HEADER.replace("ALPHABET= ACGT", 'ALPHABET "P" PROTEIN-LIKE') + ROWS,
            r"line 3: the alphabet .* is not DNA",
        ),
    ],
)
def test_a_MEME_file_of_no_probabilities_or_doubled_motifs_is_refused_with_the_line(
    write: Write, content: str, problem: str
) -> None:
    with pytest.raises(InputError, match=rf"bad\.meme: {problem}.*; "):
        read_motifs(write("bad.meme", content))


@pytest.mark.parametrize(
    "alphabet", ["ALPHABET= ACGT", 'ALPHABET "DNA" DNA-LIKE', "", "ALPHABET= ACGU", 'ALPHABET "RNA" RNA-LIKE']
)
def test_motifs_of_DNA_and_RNA_are_read_with_or_without_a_width(
    write: Write, alphabet: str, recwarn: pytest.WarningsRecorder
) -> None:
    content = (HEADER + ROWS).replace("ALPHABET= ACGT", alphabet)
    for text in (content, content.replace("w= 2", "") + "\nURL http://x\n"):
        (motif,) = read_motifs(write("good.meme", text))
        assert (motif.matrix_id, motif.name) == ("x", "y")
        np.testing.assert_array_equal(motif.frequencies_AL.T, [[0.25] * 4, [0, 0, 0, 1]])
    notes = {str(warning.message).rpartition(": ")[2] for warning in recwarn}
    assert notes == ({"the motifs are of RNA; U is read as T"} if "U" in alphabet or "RNA" in alphabet else set())
