"""A small library of sequences, which lie on no genome, and a model of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from promoter import storage
from promoter.checkpoint import ModelInfo, save_model, serialize_model
from promoter.dataset.promoters import GENE_SCHEMA, Promoters, write_promoters
from promoter.evaluation.evaluate import evaluate
from promoter.evaluation.predictions import baselines_table, write_predictions
from promoter.ism import Scores, saturation_mutagenesis
from promoter.ism.store import GENE_COLUMNS, write_part
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import BASES
from promoter.splits.config import SPLITS
from promoter.storage.parts import part_path
from promoter.training import predict

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


def write_library_run(folder: Path, count: int = 60, first: int = 0) -> Promoters:
    """Write a run on a library in `run/`, scores of its sequences from base `first` on in `ism/`, and `motifs/`.

    Every third sequence is a test sequence. The motif is hit once, on bases 20 to 26 of the first test sequence.
    """
    promoters = write_library(folder / "data", count, group=["g"] * count, weight=[1.0, 2.0] * (count // 2))
    data = {"sha256": "d" * 64, "genes": count, "library": ["group", "weight"]}
    network = save_library_model(folder / "run" / "model", data=data, training={"best_epoch": 2})
    table = promoters.genes[["gene_id", "gene_name", "chrom"]].copy()
    table["split"] = [SPLITS[row % 3] for row in range(count)]
    table[TARGET] = promoters.targets[:, 0]
    table[f"{TARGET}_predicted"] = predict(network, promoters.tokens)[:, 0]
    write_predictions(folder / "run" / "predictions.parquet", table)
    baselines = {"mean": np.zeros((count, 1)), "kmers": 0.4 * promoters.targets + table[[f"{TARGET}_predicted"]]}
    baselines = {name: np.asarray(values, np.float32) for name, values in baselines.items()}
    write_predictions(folder / "run" / "baselines.parquet", baselines_table(table, [TARGET], baselines))
    metrics = evaluate(table, [TARGET], leaking=np.zeros(count, bool), baselines=baselines)
    unknown = dict.fromkeys(("pearson_ci95", "spearman_ci95", "mse_ci95"))
    metrics["test"][TARGET]["weighted"] = {"n": 20, "pearson": 0.123, "spearman": 0.234, "mse": 0.345, **unknown}
    storage.write_json(folder / "run" / "metrics.json", metrics)
    storage.write_yaml(folder / "run" / "config.yaml", {"split": {"by": "group", "random": False}})
    leaks = "gene_id,split,other_gene_id,other_split,fraction,strand,kind\ns2,test,s0,train,0.5,same,homologous\n"
    storage.write_text(folder / "run" / "leakage.csv", leaks)
    history = "epoch,train_mse,val_mse,val_pearson\n1,1.0,1.2,0.1\n2,0.5,0.9,0.4\n"
    storage.write_text(folder / "run" / "history.csv", history)
    values = saturation_mutagenesis(network, promoters.tokens)[..., first:]
    genes = promoters.genes[GENE_COLUMNS].assign(sequence=promoters.genes["sequence"].str[first:])
    predicted = table[[f"{TARGET}_predicted"]].to_numpy(np.float32)
    write_part(part_path(folder / "ism" / "scores", 0), Scores(genes, [TARGET], predicted, values), {})
    manifest = {
        "models": [serialize_model(folder / "run" / "model").checksum],
        "window": None,
        "positions": [first, LENGTH] if first else None,
        "complete": True,
        "parts": [{"file": "scores/part-00000.parquet"}],
    }
    storage.write_json(folder / "ism" / "manifest.json", manifest)
    storage.write_text(folder / "motifs" / "motifs.tsv", "motif\tconsensus\tseqlets\npattern_0\tACGTAC\t1\n")
    storage.write_text(folder / "motifs" / "instances.bed", "s2\t20\t26\tpattern_0|s2\t900\t-\t0.5\n")
    return promoters
