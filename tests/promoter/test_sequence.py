from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from promoter.sequence import decode, encode, one_hot, reverse_complement

ANY_TEXT = st.text(max_size=60)
DNA = st.text("ACGTN", max_size=60)


def test_each_base_has_its_token_in_either_case() -> None:
    assert encode("ACGTNacgtn").tolist() == [0, 1, 2, 3, 4] * 2
    assert encode("Uu").tolist() == [3, 3]
    assert encode("").shape == (0,)
    assert encode("ACGT").dtype == np.uint8


@pytest.mark.parametrize("letter", "RYKMSWBDHVryn-.*? é𝒳\ud800")
def test_any_letter_but_ACGTU_is_one_N(letter: str) -> None:
    assert encode(f"A{letter}C").tolist() == [0, 4, 1]


@given(ANY_TEXT)
def test_encode_keeps_the_length_of_any_text(text: str) -> None:
    expected = "".join("T" if c in "Uu" else c.upper() if c in "ACGTacgt" else "N" for c in text)
    assert decode(encode(text)[None]) == [expected]


def test_a_list_of_sequences_is_encoded_row_by_row() -> None:
    assert encode(["ACG", "tNé"]).tolist() == [[0, 1, 2], [3, 4, 4]]
    assert encode([]).shape == (0, 0)


def test_sequences_of_several_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="sequence 2 has 1 bases, sequence 0 has 2"):
        encode(["AC", "GT", "A"])
    with pytest.raises(ValueError, match="sequence 1 has 3 bases"):  # though the sum would fit
        encode(["AC", "GTA", "A"])


def test_reverse_complement_equals_one_written_by_hand() -> None:
    assert reverse_complement("AACGTNr") == "NNACGTT"


@given(DNA)
def test_reverse_complement_is_its_own_inverse(sequence: str) -> None:
    assert reverse_complement(reverse_complement(sequence)) == sequence


@given(DNA)
def test_reverse_complement_is_the_same_in_every_form(sequence: str) -> None:
    expected: Any = encode(str(reverse_complement(sequence)))
    tokens = encode(sequence)
    x_CL = one_hot(tokens)
    for dtype in (np.uint8, np.int64):
        result: Any = reverse_complement(tokens.astype(dtype))
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)
    for dtype in (torch.uint8, torch.int64):
        result = reverse_complement(torch.tensor(tokens, dtype=dtype))
        assert result.dtype == dtype
        np.testing.assert_array_equal(result.numpy(), expected)
    np.testing.assert_array_equal(np.asarray(reverse_complement(x_CL)), one_hot(expected))
    np.testing.assert_array_equal(np.asarray(reverse_complement(x_CL.numpy())), one_hot(expected))


def test_reverse_complement_leaves_the_axis_of_sequences_alone() -> None:
    tokens = encode(["AACG", "TTTN"])
    result: Any = reverse_complement(tokens)
    assert decode(result) == ["CGTT", "NAAA"]
    x_BCL = one_hot(tokens)
    assert torch.equal(torch.as_tensor(reverse_complement(x_BCL)), one_hot(result))


@pytest.mark.parametrize("shape", [(5,), (2, 5), (3, 2, 5), (0, 5)])
def test_one_hot_puts_the_bases_before_the_positions(shape: tuple[int, ...]) -> None:
    assert one_hot(np.zeros(shape, np.uint8)).shape == (*shape[:-1], 4, shape[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_one_hot_has_a_one_per_base_and_four_zeros_for_N(dtype: torch.dtype) -> None:
    x_CL = one_hot(encode("ACGTN"), dtype)
    assert x_CL.dtype == dtype
    assert x_CL.tolist() == np.eye(4, 5).tolist()


@given(DNA)
def test_one_hot_of_torch_and_numpy_tokens_agree(sequence: str) -> None:
    tokens = encode(sequence)
    assert torch.equal(one_hot(tokens), one_hot(torch.tensor(tokens)))
    assert one_hot(tokens).sum().item() == sum(base != "N" for base in sequence)


def test_long_sequences_are_encoded_as_short_ones_are() -> None:
    letters = ["ACGTN" * 4000, "TTACG" * 4000]
    whole = encode(letters)
    assert whole.shape == (2, 20_000)
    assert whole.dtype == np.uint8
    for row, one in enumerate(letters):
        assert np.array_equal(whole[row], np.concatenate([encode(one[i : i + 5]) for i in range(0, 20_000, 5)]))
