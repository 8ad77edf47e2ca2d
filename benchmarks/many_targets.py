"""Peak memory of a task of `promoter ism` by targets, members of the ensemble, and genes.

    python benchmarks/many_targets.py [--targets 1 54] [--members 1 5] [--genes 50 150] [--length 2000]

Each line is a process of its own that scores a part: "a task" as `promoter ism` does, some genes at a time and
the members one after another (`jobs.inference.scoring.score_genes`); "all at once" with the scores of all members
for all genes of the part in memory, as before that. The peak is that of the process above what it took with
PyTorch and the networks loaded. The network is small: the memory of scores does not depend on it.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fresh_process import measured

from jobs.inference import scoring
from jobs.ray_runtime.part_files import PartTask
from promoter.checkpoint import ModelInfo, SerializedModel, deserialize_model, save_model, serialize_model
from promoter.ism import Scores, saturation_mutagenesis
from promoter.ism.store import write_part
from promoter.models.build import Network
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import decode
from promoter.training import predict

ALL_AT_ONCE_BYTES = 4 << 30  # of all members' scores, past which "all at once" is left out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 54])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--genes", type=int, nargs="+", default=[50, 150])
    parser.add_argument("--length", type=int, default=2000)
    options = parser.parse_args()
    print("targets  members  genes  at a time  promised MB  a task MB       s  all at once MB       s")
    for targets, members, genes in itertools.product(options.targets, options.members, options.genes):
        case = (targets, members, genes, options.length)
        of_gene = scoring.ScoredBytes.of(targets, options.length, members=members)
        at_a_time = min(genes, of_gene.genes_at_a_time)
        _, _, (seconds, grown) = measured(step, "task", *case)
        whole = "" if genes * members * of_gene.stored > ALL_AT_ONCE_BYTES else measured(step, "at once", *case)[2]
        beside = f"{whole[1] / 1e6:14.0f}  {whole[0]:6.1f}" if whole else f"{'left out':>14}"
        promised = at_a_time * of_gene.in_memory / 1e6
        print(
            f"{targets:7}  {members:7}  {genes:5}  {at_a_time:9}  {promised:11.0f}  {grown / 1e6:9.0f}  "
            f"{seconds:6.1f}  {beside}",
            flush=True,
        )


def step(how: str, *case: int) -> tuple[float, Any]:
    """Score a part in this process; return the seconds and by how many bytes it has grown."""
    targets, members, genes, length = case
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        models = [_model(Path(folder) / f"{member}", targets, length) for member in range(members)]
        networks = {model: deserialize_model(model)[0] for model in models}
        tokens = np.random.default_rng(0).integers(0, 4, (genes, length), dtype=np.uint8)
        for network in networks.values():
            saturation_mutagenesis(network, tokens[:1], positions=(0, 8))  # what is loaded and checked once
        path = str(Path(folder) / "part-00000.parquet")
        before, began = _peak(), time.perf_counter()
        score = _as_a_task if how == "task" else _all_at_once
        score(path, networks, tokens, [f"target {index}" for index in range(targets)])
        seconds = time.perf_counter() - began
        return seconds, (seconds, _peak() - before)


def _as_a_task(
    path: str, networks: dict[SerializedModel, Network], tokens: np.ndarray, targets: list[str]
) -> None:
    scoring.loaded_model = networks.__getitem__  # this is no task of Ray's
    genes = _genes(tokens)
    part = PartTask(path, genes["gene_id"].tolist(), {"precision": None, "dtype": "float32"}, None)
    options = {"outputs": None, "sds": None, "region": None, "both_strands": False}
    scoring.score_genes(part, *networks, genes=genes, tokens=tokens, targets=targets, **options)


def _all_at_once(
    path: str, networks: dict[SerializedModel, Network], tokens: np.ndarray, targets: list[str]
) -> None:
    predictions = np.stack([predict(network, tokens) for network in networks.values()])
    scores = np.stack([saturation_mutagenesis(network, tokens) for network in networks.values()])
    spread = [None, None]
    if len(networks) > 1:
        spread = [values.std(axis=0, ddof=1) for values in (predictions, scores)]
    means = (predictions.mean(axis=0), scores.mean(axis=0))
    write_part(path, Scores(_genes(tokens), targets, *means, *spread), {})


def _genes(tokens: np.ndarray) -> pd.DataFrame:
    ids = [f"g{row}" for row in range(len(tokens))]
    columns = {"gene_id": ids, "gene_name": None, "chrom": "I", "start": 0, "end": tokens.shape[1], "strand": "+"}
    return pd.DataFrame({**columns, "sequence": decode(tokens)})


def _model(folder: Path, targets: int, length: int) -> SerializedModel:
    torch.manual_seed(int(folder.name))
    model = PromoterCNN(CNNConfig((16, 8), (7, 3), (8,), hidden=16, n_targets=targets), length)
    window: dict[str, int | None] = {"upstream": length, "downstream": 0, "length": length}
    save_model(folder, model, ModelInfo([f"target {index}" for index in range(targets)], window))
    return serialize_model(folder)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


if __name__ == "__main__":
    main()
