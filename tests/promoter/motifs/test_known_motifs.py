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
    assert match_motifs({}, jaspar_motifs("fungi")).empty


def test_wrong_input_of_known_motifs_is_named(write: Write) -> None:
    with pytest.raises(InputError, match="`taxon='yeast'`: choose among vertebrates"):
        jaspar_motifs("yeast")
    with pytest.raises(InputError, match=r"none\.meme: holds no MOTIF"):
        read_motifs(write("none.meme", "MEME version 4\n"))
    with pytest.raises(InputError, match=r"bad\.meme: is not a MEME file"):
        read_motifs(write("bad.meme", "MOTIF a\nletter-probability matrix: w= 1\nx y z w\n"))
