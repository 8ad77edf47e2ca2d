"""The files of a run, of its scores, motifs and search, as the jobs write them, for tests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from promoter import storage
from promoter.checkpoint import ModelInfo, save_model, serialize_model
from promoter.evaluation.evaluate import evaluate
from promoter.evaluation.predictions import baselines_table, write_predictions
from promoter.ism import Scores
from promoter.ism.store import write_part
from promoter.labels import bed_field
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.storage.parts import part_path

LENGTH = 2000
EVIL = "<script>alert(1)</script>"
MOTIF = "AGGGGTTA"
_SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="20"><path d="M0 0h60v20H0z" fill="#07a"/></svg>'


@dataclass(frozen=True)
class RunFiles:
    """Where they are."""

    run: Path
    model: Path
    scores: Path
    motifs: Path
    search: Path
    ids: list[str]  # with scores
    implanted: dict[str, str]  # gene -> the word that its motif hit lies on
    data_sha256: str


def write_run(
    folder: Path,
    genes: int,
    scored: int,
    seed: int = 0,
    *,
    target: str = "salt",
    names: Sequence[str] = (EVIL,),
    run: str = "run",
) -> RunFiles:
    """Write a run on `genes` genes with one target, scores of `scored` test genes, motifs and a search.

    The first test genes have these names; the folder of the run is `run`.
    """
    rng = np.random.default_rng(seed)
    run_dir = folder / run
    torch.manual_seed(seed)
    network = PromoterCNN(CNNConfig(channels=(8,), kernel_sizes=(7,), pool_sizes=(), hidden=8), length=LENGTH)
    split = {"train": ["chr1", "chr2"], "val": ["chr3"], "test": ["chr4"]}
    info = ModelInfo(
        [target],
        {"upstream": LENGTH, "downstream": 0, "length": LENGTH},
        transform="log2p1",
        split=split,
        data={"sha256": "d" * 64, "genes": genes},
        training={"epochs": 5, "best_epoch": 4},
        versions={"promoter": "0.1.0"},
    )
    save_model(run_dir / "model", network, info)

    chrom = np.array(["chr1", "chr2", "chr3", "chr4"], dtype=object)[np.arange(genes) % 4]
    ids = np.array([f"gene{i:05d}" for i in range(genes)], dtype=object)
    ids[3 : 3 + 4 * len(names) : 4] = names  # on chr4, the first test genes
    observed = rng.normal(size=genes).astype(np.float32)
    predicted = (0.7 * observed + rng.normal(0, 0.5, genes)).astype(np.float32)
    table = pd.DataFrame({"gene_id": ids, "chrom": chrom})
    table["split"] = info.get_split(table)
    table[target], table[f"{target}_predicted"] = observed, predicted
    write_predictions(run_dir / "predictions.parquet", table)
    plain = {
        "mean": np.zeros((genes, 1)),
        "kmers_by_distance": (0.4 * observed + rng.normal(0, 0.5, genes))[:, None],
    }
    write_predictions(run_dir / "baselines.parquet", baselines_table(table, [target], plain))
    leaks = pd.DataFrame(
        [(names[0], "test", "gene00000", "train", 0.5, "same", "overlapping")],
        columns=["gene_id", "split", "other_gene_id", "other_split", "fraction", "strand", "kind"],
    )
    storage.write_text(run_dir / "leakage.csv", leaks.to_csv(index=False))
    storage.write_json(
        run_dir / "metrics.json", evaluate(table, [target], leaking=ids == names[0], baselines=plain)
    )
    epochs = np.arange(1, 6)
    history = pd.DataFrame(
        {"epoch": epochs, "train_mse": 1 / epochs, "val_mse": 1.2 / epochs, "val_pearson": 0.7 - 0.3 / epochs}
    )
    storage.write_text(run_dir / "history.csv", history.to_csv(index=False))
    storage.write_yaml(
        run_dir / "config.yaml", {"split": {"random": False, "by": "chromosome", "homology": "report"}}
    )

    named = table[table["split"] == "test"]["gene_id"].head(scored).tolist()
    implanted = _write_scores(folder, serialize_model(run_dir / "model").checksum, named, rng, target)
    _write_search(folder / "search")
    return RunFiles(
        run_dir,
        run_dir / "model",
        folder / "ism",
        folder / "motifs",
        folder / "search",
        named,
        implanted,
        "d" * 64,
    )


def _write_scores(
    folder: Path, model: str, named: list[str], rng: np.random.Generator, target: str
) -> dict[str, str]:
    """Write scores in which the implanted word has the largest effect, and its instances on both strands."""
    n = len(named)
    tokens = rng.integers(0, 4, (n, LENGTH))
    values = rng.normal(0, 0.02, (n, 1, 4, LENGTH)).astype(np.float32)
    rows, lines, implanted = [], [], {}
    for row, gene in enumerate(named):
        at = int(rng.integers(100, LENGTH - 100))
        tokens[row, at : at + len(MOTIF)] = ["ACGT".index(letter) for letter in MOTIF]
        values[row, 0, :, at : at + len(MOTIF)] -= 0.5
        start, strand = 5_000 * row + 1_000, "+-"[row % 2]
        end = start + LENGTH
        first = start + at if strand == "+" else end - at - len(MOTIF)
        lines.append(f"chr4\t{first}\t{first + len(MOTIF)}\tpattern_0|{bed_field(gene)}\t900\t{strand}\t0.5\n")
        rows.append((gene, "chr4", start, end, strand, "".join("ACGT"[token] for token in tokens[row])))
        implanted[gene] = MOTIF
    np.put_along_axis(values[:, 0], tokens[:, None], 0, axis=1)  # of the base that is there
    genes = pd.DataFrame(rows, columns=["gene_id", "chrom", "start", "end", "strand", "sequence"])
    scores = Scores(genes, [target], rng.normal(size=(n, 1)).astype(np.float32), values)
    write_part(part_path(folder / "ism" / "scores", 0), scores, {"model": model})
    manifest = {
        "models": [model],
        "window": {"upstream": LENGTH, "downstream": 0},
        "complete": True,
        "parts": [{"file": "scores/part-00000.parquet", "genes": n}],
    }
    storage.write_json(folder / "ism" / "manifest.json", manifest)
    motifs = pd.DataFrame(
        [
            ("pattern_0", MOTIF, n, 4.0, f"MSN2 {EVIL}", 1e-4, "MSN2"),
            ("pattern_1", "ACGTAC", 20, -1.0, "", 0.2, "GAL4"),
        ],
        columns=["motif", "consensus", "seqlets", "contribution", "resembles", "q", "match_name"],
    )
    storage.write_text(folder / "motifs" / "motifs.tsv", motifs.to_csv(sep="\t", index=False))
    storage.write_text(folder / "motifs" / "instances.bed", "".join(lines))
    storage.write_text(folder / "motifs" / "logos" / "pattern_0.svg", _SVG)
    return implanted


def _write_search(folder: Path) -> None:
    trials = pd.DataFrame(
        {"trial": [1, 2], "status": "finished", "score": [0.5, 0.4], "reason": "", "model.crop": ["null", "500"]}
    )
    storage.write_text(folder / "trials.csv", trials.to_csv(index=False))
    storage.write_text(folder / "importance.csv", "setting,importance\nmodel.crop,0.9\n")
    storage.write_text(folder / "figures" / "search_progress.svg", _SVG)
    storage.write_text(folder / "figures" / "score_by_setting.svg", _SVG)
