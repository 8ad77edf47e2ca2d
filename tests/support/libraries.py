"""A small library of sequences, which lie on no genome, and a model of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from promoter.checkpoint import ModelInfo, save_model
from promoter.dataset.promoters import GENE_SCHEMA, Promoters, write_promoters
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import BASES

LENGTH = 40
TARGET = "activity"
CNN = CNNConfig(channels=(6,), kernel_sizes=(5,), pool_sizes=(), hidden=6)


def library_of(sequences: dict[str, str], *, align: str | None = None, **columns: Sequence[Any]) -> Promoters:
    """Return the data set of these sequences, by id, with random values of one target.

    Args:
        sequences: id -> sequence, all of one length.
        align: side that the table's sequences were aligned by with N; None for a table whose lengths agree.
        columns: any of `split`, `group` and `weight`.
    """
    n = len(sequences)
    genes = pd.DataFrame({"gene_id": list(sequences), "sequence": list(sequences.values())})
    for field in GENE_SCHEMA:
        if field.name not in genes:
            kind = "Int64" if field.name in {"tss", "start", "end"} else "object"
            genes[field.name] = pd.Series([None] * n, dtype=kind)
    genes = genes[GENE_SCHEMA.names].assign(**columns)
    values = np.random.default_rng(n).normal(size=(n, 1)).astype(np.float32)
    metadata = {"window": None} | ({"align": align} if align else {})
    return Promoters(genes, values, [TARGET], metadata)


def random_sequences(count: int, length: int = LENGTH, seed: int = 0) -> dict[str, str]:
    """Draw sequences; their ids are `s0`, `s1` and so on."""
    drawn = np.random.default_rng(seed).choice(list(BASES), (count, length))
    return {f"s{row}": "".join(letters) for row, letters in enumerate(drawn)}


def write_library(folder: Path, count: int = 24, **columns: Sequence[Any]) -> Promoters:
    """Write the data set of random sequences."""
    promoters = library_of(random_sequences(count), align=None, **columns)
    write_promoters(folder, promoters)
    return promoters


def save_library_model(folder: Path, length: int = LENGTH, seed: int = 0, **info: Any) -> PromoterCNN:
    """Write a model of a library with random weights, and return it."""
    torch.manual_seed(seed)
    network = PromoterCNN(CNN, length=length).eval()
    window = {"upstream": None, "downstream": None, "length": length}
    save_model(folder, network, ModelInfo([TARGET], window, **info))
    return network
