"""Sequences as tokens and as one-hot tensors.

Tokens are uint8: A=0 C=1 G=2 T=3 (U counts as T), anything else 4 (N). Lower case equals upper case.

PyTorch is imported for tensors only, so that a command line is parsed without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

N_TOKEN = 4
BASES = "ACGT"
_LONG = 1 << 14  # bases from which encoding one at a time is no slower

_TOKEN_OF_BYTE = np.full(256, N_TOKEN, dtype=np.uint8)
for _token, _letters in enumerate(("Aa", "Cc", "Gg", "TtUu")):
    _TOKEN_OF_BYTE[[ord(_letter) for _letter in _letters]] = _token
_BYTE_OF_TOKEN = np.frombuffer(b"ACGTN", dtype=np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0, 4], dtype=np.uint8)


def encode(sequence: str | Sequence[str]) -> np.ndarray:
    """Turn a sequence, or a list of sequences of one length, into tokens.

    Args:
        sequence: letters; U is T, and those other than ACGTU and acgtu (N, IUPAC codes, gaps) become 4.

    Returns:
        uint8, shape (length,) for one sequence, (N, length) for a list.

    Raises:
        ValueError: the sequences of a list have several lengths; the message names the first odd one.
    """
    if isinstance(sequence, str):
        # "replace" makes one "?" of each letter outside ASCII, which keeps the length
        return _TOKEN_OF_BYTE[np.frombuffer(sequence.encode("ascii", "replace"), dtype=np.uint8)]
    if len(sequence) == 0:
        return np.zeros((0, 0), dtype=np.uint8)
    length = len(sequence[0])
    for row, one in enumerate(sequence):
        if len(one) != length:
            raise ValueError(f"sequence {row} has {len(one)} bases, sequence 0 has {length}: one length needed")
    if length < _LONG:
        return encode("".join(sequence)).reshape(len(sequence), length)
    tokens = np.empty((len(sequence), length), dtype=np.uint8)  # joined, they would be in memory thrice
    for row, one in enumerate(sequence):
        tokens[row] = encode(one)
    return tokens


def decode(tokens: np.ndarray) -> list[str]:
    """Turn tokens, shape (N, length), back into upper-case strings."""
    letters = np.ascontiguousarray(_BYTE_OF_TOKEN[np.minimum(tokens, N_TOKEN)])
    return [row.tobytes().decode("ascii") for row in letters]


def reverse_complement(sequence: str | np.ndarray | Tensor) -> str | np.ndarray | Tensor:
    """Return the reverse complement of a string, of tokens, or of a one-hot tensor.

    Args:
        sequence: a string; or integer tokens, numpy or torch, shape (..., length); or a floating-point
            one-hot tensor, numpy or torch, shape (..., 4, length).

    Returns:
        The same type and shape. A string comes back in upper case with N for other letters.
    """
    if isinstance(sequence, str):
        return decode(reverse_complement(encode(sequence))[None])[0]  # type: ignore[index] # tokens in, tokens out
    if isinstance(sequence, np.ndarray):
        if np.issubdtype(sequence.dtype, np.floating):
            return sequence[..., ::-1, ::-1].copy()
        return _COMPLEMENT[sequence][..., ::-1].astype(sequence.dtype)
    if sequence.is_floating_point():
        return sequence.flip(-1, -2)
    complement = sequence.new_tensor(_COMPLEMENT)
    return complement[sequence.long()].flip(-1)


def one_hot(tokens: np.ndarray | Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Turn tokens into one-hot, on the device of the tokens.

    Args:
        tokens: integers, shape (..., length).
        dtype: number type of the result; None (default) means float32.

    Returns:
        Shape (..., 4, length); N is four zeros.
    """
    import torch  # noqa: PLC0415 # see above

    tokens = torch.as_tensor(tokens)
    bases = torch.arange(len(BASES), dtype=tokens.dtype, device=tokens.device)
    return (tokens.unsqueeze(-2) == bases.unsqueeze(-1)).to(dtype or torch.float32)
