"""The page "Your model": its commands and its Python run as they stand there, on small data and random weights."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from support.commands import ROOT
from support.examples import EXAMPLES, load_example, randomise, scores_by_loop

from jobs.__main__ import main
from jobs.ray_runtime.capacity import Cluster
from promoter.dataset.promoters import read_promoters
from promoter.ism import load_scores
from promoter.models.external import ExternalModel
from promoter.simulation.genome import simulate

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PAGE = (ROOT / "docs" / "your-model.md").read_text()
# the networks are made smaller, so that the commands take seconds: file -> what stands there -> instead
SMALLER = {
    "deepstarr.py": {"(256, 7)": "(16, 7)"},
    "legnet.py": {"(256, 128, 128, 64, 64, 64, 64)": "(16, 16, 8)"},
    "bpnet_lite.py": {
        "LENGTH = 2114": "LENGTH = 300",
        "filters: int = 64, layers: int = 8": "filters: int = 8, layers: int = 2",
        "filters: int = 512, layers: int = 8, *, bias_filters: int = 128, bias_layers: int = 4": (
            "filters: int = 8, layers: int = 2, *, bias_filters: int = 4, bias_layers: int = 1"
        ),
    },
}
WINDOW = "--upstream 1057 --downstream 1057", "--upstream 150 --downstream 150"


def blocks(heading: str, language: str) -> list[str]:
    """Return the blocks of code in a section of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def run_commands(heading: str) -> None:
    """Run each command of a section in this process."""
    (block,) = [block for block in blocks(heading, "bash") if block.startswith("promoter")]
    for line in block.replace(*WINDOW).replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        assert program == "promoter"
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0, line


@pytest.fixture
def here(ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with copies of the examples, smaller, and leave imports as they were."""
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        for old, new in SMALLER[path.name].items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / path.name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = finders
    for name in SMALLER:
        sys.modules.pop(name.removesuffix(".py"), None)


def example(here: Path, name: str) -> ExternalModel:
    """Return the network of the small copy, with random weights."""
    network = load_example(name, here).network()
    randomise(network)
    return network


def require_exact(folder: str, network: ExternalModel, data: str) -> None:
    """Compare the scores of the first row with a float64 loop."""
    scores = load_scores(folder)
    promoters = read_promoters(data)
    (row,) = np.flatnonzero(promoters.genes["gene_id"] == scores.genes["gene_id"].iloc[0])
    expected = scores_by_loop(network, promoters.tokens[row])
    if (narrower := scores.scores.shape[-1]) < expected.shape[-1]:
        middle = expected.shape[-1] // 2
        expected = expected[..., middle - narrower // 2 : middle + narrower // 2]
    for found_AL, expected_AL in zip(scores.scores[0], expected, strict=True):
        np.testing.assert_allclose(found_AL, expected_AL, rtol=0, atol=1e-4 * np.abs(expected_AL).max())


def random_sequences(count: int, length: int) -> list[str]:
    drawn = np.random.default_rng(0).choice(list("ACGT"), (count, length))
    return ["".join(letters) for letters in drawn]


def test_the_commands_for_deepstarr_run(here: Path) -> None:
    network = example(here, "deepstarr")
    torch.save(network.module.state_dict(), "deepstarr.pt")
    save, draw = blocks("DeepSTARR", "python")
    exec(save, {})  # noqa: S102 # of our own page
    values = np.random.default_rng(1).normal(size=(6, 2))
    table = pd.DataFrame({"id": list("abcdef"), "sequence": random_sequences(6, 249)})
    table[["Dev", "Hk"]] = values
    table.to_csv("enhancers.tsv", sep="\t", index=False)
    run_commands("DeepSTARR")
    require_exact("ism", network, "enhancers")
    exec(draw, {})  # noqa: S102 # of our own page
    plt.close("all")
    for made in ("predictions.metrics.json", "tracks/ohe.npz", "report.html", "logo.png", "motifs/motifs.tsv"):
        assert (here / made).stat().st_size > 0, made


def test_the_commands_for_legnet_run(here: Path) -> None:
    network = example(here, "legnet")
    weights = {f"model.{name}": tensor for name, tensor in network.module.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 3}, "legnet.ckpt")
    (save,) = blocks("LegNet", "python")
    exec(save, {})  # noqa: S102 # of our own page
    table = pd.DataFrame({"sequence": random_sequences(12, 110), "Measured Expression": np.arange(12.0)})
    table.to_csv("Native_complex.csv.gz")
    run_commands("LegNet")
    require_exact("yeast-ism", network, "yeast")
    assert (here / "yeast-report.html").stat().st_size > 0


def write_keras(path: str, network: Any, prefix: str) -> None:
    """Write a BPNet as the official ChromBPNet does."""
    of_heads = f"{prefix}bpnet_" if prefix else ""
    names = {"iconv": f"{prefix}bpnet_1st_conv", "fconv": f"{of_heads}prof_out_precrop"}
    names["linear"] = f"{of_heads}logcount_predictions"
    names |= {f"rconvs.{layer}": f"{prefix}bpnet_{layer + 1}conv" for layer in range(network.n_layers)}
    with h5py.File(path, "w") as file:
        for ours, theirs in names.items():
            weight = network.state_dict()[f"{ours}.weight"]
            group = file.create_group(f"model_weights/{theirs}/{theirs}")
            group["kernel:0"] = weight.permute(*reversed(range(weight.ndim))).numpy()
            group["bias:0"] = network.state_dict()[f"{ours}.bias"].numpy()


def write_variant(path: str, genes: str, genome: str) -> None:
    """Write a VCF with one variant at the start of the first gene."""
    chrom, start, *_ = Path(genes).read_text().split("\t")
    (record, *_) = [text for text in Path(genome).read_text().split(">") if text.startswith(chrom)]
    ref = record.partition("\n")[2].replace("\n", "")[int(start)]
    line = f"{chrom}\t{int(start) + 1}\tv\t{ref}\t{'A' if ref != 'A' else 'C'}\t.\t.\t.\n"
    Path(path).write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + line)


def test_the_commands_for_bpnet_run(here: Path) -> None:
    module = load_example("bpnet_lite", here)
    bpnet, chrombpnet = module.bpnet(), module.chrombpnet()
    for number, network in enumerate((bpnet, chrombpnet)):
        randomise(network, number)
    torch.save(bpnet.module.model, "bpnet.torch")
    write_keras("bias.h5", chrombpnet.module.bias, "")
    write_keras("chrombpnet_nobias.h5", chrombpnet.module.accessibility, "wo_bias_")
    (save,) = blocks("BPNet and ChromBPNet", "python")
    exec(save, {})  # noqa: S102 # of our own page
    files = simulate(here / "simulated", chromosomes=1, genes_per_chromosome=5, upstream=400)
    shutil.copy(str(files.genome), "genome.fa")
    shutil.copy(str(files.genes), "peaks.bed")
    counts = pd.read_csv(str(files.expression), sep="\t", index_col=0)
    (2**counts).round().to_csv("counts.tsv", sep="\t")
    write_variant("variants.vcf", "peaks.bed", "genome.fa")
    run_commands("BPNet and ChromBPNet")
    both = module.bpnet_profile()
    both.module.load_state_dict(bpnet.module.state_dict())
    require_exact("peaks-ism", both, "peaks")
    require_exact("open-ism", chrombpnet, "peaks")
    assert (here / "peaks-report.html").stat().st_size > 0
