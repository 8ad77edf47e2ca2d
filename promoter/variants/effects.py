"""Predict what alleles do to the genes in whose windows they fall, and put the effects into a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from promoter.dataset.gene_names import with_names
from promoter.ism import saturation_mutagenesis
from promoter.ism.operations import operations
from promoter.models.build import Network, NetworkConfig
from promoter.models.cnn import CNNConfig
from promoter.sequence import BASES
from promoter.training import predict
from promoter.variants.windows import (
    GeneVariants,
    TrimmedVariant,
    TssWindow,
    apply_variant,
    distance_to_tss,
    offset_in_window,
)

_BATCH = 32  # windows of a batch of predictions
_MAX_BASES = 1 << 28  # bases of rebuilt windows in memory at a time
_ISM_SLOWDOWN = 2.0  # saturation mutagenesis runs at about half a forward pass's speed, operation by operation


def predict_alleles(
    model: Network,
    genes: Sequence[GeneVariants],
    *,
    targets: Sequence[int] | None = None,
    both_strands: bool = False,
    batch_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the effect of each allele on its gene.

    Single-base substitutions come from saturation mutagenesis of the positions between a gene's first and last,
    where that is cheaper than a forward pass for each; all others from forward passes of rebuilt windows.

    Args:
        model: network, on the device to compute on.
        genes: variants of each gene.
        targets: numbers of the model's outputs to predict, in the order of the result; None (default) for all.
        both_strands: if true, average with the prediction from the reverse complement of what the model sees;
            false by default.
        batch_size: mutants that saturation mutagenesis computes together; chosen automatically by default.
        precision: number format of forward passes: fp32 (default), or bf16, whose rounding, 1e-2 of a prediction,
            can hide small effects.

    Returns:
        Predictions of the unchanged window, and differences of the changed to them: float32, shape (alleles,
        targets) each, alleles in the order of the genes.
    """
    rebuilt: list[tuple[GeneVariants, TrimmedVariant]] = []
    rebuilt_rows = []  # (row of the allele, number of its gene) of each in `rebuilt`
    by_ism: dict[int, list[tuple[int, TrimmedVariant]]] = {}  # number of a gene -> its alleles that ISM scores
    allele = 0
    for number, gene in enumerate(genes):
        snvs = [variant for variant in gene.variants if variant.is_snv]
        use_ism = bool(snvs) and _ism_is_cheaper(model.config, gene, snvs)
        for variant in gene.variants:
            if use_ism and variant.is_snv:
                by_ism.setdefault(number, []).append((allele, variant))
            else:
                rebuilt.append((gene, variant))
                rebuilt_rows.append((allele, number))
            allele += 1
    references = np.stack([gene.tokens for gene in genes])
    predicted = _predict_windows(model, references, rebuilt, both_strands=both_strands, precision=precision)
    if targets is not None:
        predicted = predicted[:, list(targets)]
    reference = predicted[np.repeat(np.arange(len(genes)), [len(gene.variants) for gene in genes])]
    difference = np.empty_like(reference)
    if rebuilt_rows:
        alleles, numbers = np.array(rebuilt_rows).T
        difference[alleles] = predicted[len(genes) :] - predicted[numbers]
    for number, snvs in by_ism.items():
        window = genes[number].window
        offsets = [offset_in_window(variant, window) for _, variant in snvs]
        low, high = min(offsets), max(offsets) + 1
        scores = saturation_mutagenesis(
            model,
            references[[number]],
            positions=(low, high),
            targets=targets,
            batch_size=batch_size,
            both_strands=both_strands,
        )[0]
        for (row, variant), offset in zip(snvs, offsets, strict=True):
            difference[row] = scores[:, _base_on_gene(variant, window), offset - low]
    return reference, difference


def effects_to_table(
    genes: pd.DataFrame,
    alleles: pd.DataFrame,
    *,
    targets: Sequence[str],
    reference: np.ndarray,
    difference: np.ndarray,
    windows: Sequence[TssWindow],
) -> pa.Table:
    """Put alleles and their predicted effects into a table, one row per allele and gene.

    Args:
        genes: table of genes, with `chrom`, `gene_id` and, where it has names, `gene_name`.
        alleles: alleles, as in `WindowVariants.alleles`; their `gene` counts rows of `genes`.
        targets: names of the targets.
        reference: predictions of the unchanged windows, shape (members, alleles, targets), target units.
        difference: predictions of the changed windows minus `reference`, same shape.
        windows: window of each gene in `genes`.

    Returns:
        Columns `chrom`, `pos`, `ref`, `alt`, `gene_id`, `gene_name`, `tss_distance`, and per target `TARGET_ref`,
        `TARGET_alt`, `TARGET_difference`; of several members these are means, and `TARGET_difference_sd` the
        standard deviation. `chrom` and `tss_distance` are null where the sequences have no coordinates, `pos` and
        `ref` where `alt` is a complete sequence.
    """
    rows, genes = alleles["gene"].to_numpy(), with_names(genes)
    variants = map(TrimmedVariant, alleles["start"], alleles["end"], alleles["new"])
    located = genes["chrom"].notna().to_numpy()
    distances = [
        distance_to_tss(variant, windows[row]) if located[row] else None
        for variant, row in zip(variants, rows, strict=True)
    ]
    columns: dict[str, pa.Array] = {
        "chrom": pa.array(genes["chrom"].iloc[rows], pa.string(), from_pandas=True),
        "pos": pa.array(alleles["pos"], pa.int64(), from_pandas=True),
        "ref": pa.array(alleles["ref"], pa.string(), from_pandas=True),
        "alt": pa.array(alleles["alt"].to_numpy(), pa.string()),
        "gene_id": pa.array(genes["gene_id"].to_numpy()[rows], pa.string()),
        "gene_name": pa.array(genes["gene_name"].iloc[rows], pa.string(), from_pandas=True),
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


def _predict_windows(
    model: Network,
    references: np.ndarray,
    rebuilt: Sequence[tuple[GeneVariants, TrimmedVariant]],
    *,
    both_strands: bool,
    precision: Literal["fp32", "bf16"],
) -> np.ndarray:
    """Predict the unchanged windows, then the rebuilt: (windows, targets)."""
    # full batches of predictions at a time, so that results do not depend on how the windows are divided
    at_a_time = max(_BATCH, _MAX_BASES // references.shape[1] // _BATCH * _BATCH)
    predictions = []
    for start in range(0, len(references) + len(rebuilt), at_a_time):
        first = max(0, start - len(references))
        last = max(0, start + at_a_time - len(references))
        changed = [
            apply_variant(gene.context, gene.context_start, variant, gene.window)
            for gene, variant in rebuilt[first:last]
        ]
        windows = np.concatenate(
            [references[start : start + at_a_time], *([np.stack(changed)] if changed else [])]
        )
        predictions.append(predict(model, windows, precision=precision, both_strands=both_strands))
    return np.concatenate(predictions)


def _ism_is_cheaper(config: NetworkConfig, gene: GeneVariants, snvs: Sequence[TrimmedVariant]) -> bool:
    """Tell whether saturation mutagenesis of the SNVs' positions costs less than a forward pass for each SNV."""
    if (cnn := config.incremental) is None:
        return False  # each mutant needs a forward pass
    length = len(gene.tokens)
    offsets = [offset_in_window(variant, gene.window) for variant in snvs]
    span = max(offsets) + 1 - min(offsets)
    forward = _forward_operations(cnn, length)
    return _ISM_SLOWDOWN * operations(cnn, length) * span / length + forward < forward * len(snvs)


def _forward_operations(config: CNNConfig, length: int) -> float:
    cells = float(length - config.outside(length))
    total, inputs = 0.0, len(BASES)
    for block, (outputs, kernel) in enumerate(zip(config.channels, config.kernel_sizes, strict=True)):
        total += 2 * cells * kernel * inputs * outputs
        inputs = outputs
        if block < len(config.pool_sizes):
            cells /= config.pool_sizes[block]
    return total * (2 if config.both_strands else 1)


def _base_on_gene(variant: TrimmedVariant, window: TssWindow) -> int:
    """Return the index in `BASES` of an SNV's new base, read on the gene's strand."""
    base = BASES.index(variant.new)
    return base if window.strand == "+" else len(BASES) - 1 - base
