"""`jobs.export` from the command line, on the scores of a trained network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyBigWig
import pytest
import yaml
from support.commands import ROOT, outcome

from jobs.export import export
from jobs.ism import ism
from promoter.dataset.promoters import read_promoters
from promoter.ism import actual_contributions, load_scores
from promoter.sequence import encode


@pytest.fixture(scope="module")
def scored(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ism")
    ism(str(run / "model"), str(data), str(out), split="test", genes_per_task=20)
    return out


@pytest.mark.ray
def test_the_exported_track_holds_the_contributions_of_the_scores(
    scored: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genome = data / "genome" / "genome.fa"
    code, out, err = outcome(capsys, export, "--scores", scored, "--genome", genome, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "note:" not in out  # the scores say where the TSS is
    assert f"motifs: modisco motifs -s {tmp_path}/out/ohe.npz" in out
    scores = load_scores(scored)
    actual = actual_contributions(scores.scores, encode(scores.genes["sequence"].tolist()))[:, 0].sum(axis=1)
    tss = read_promoters(data).genes.set_index("gene_id")["tss"]
    best: dict[int, tuple[int, float]] = {}
    for gene, values in zip(scores.genes.to_dict("records"), actual, strict=True):
        for position, letter in enumerate(gene["sequence"]):
            at = gene["start"] + position if gene["strand"] == "+" else gene["end"] - 1 - position
            distance = abs(at - int(tss[gene["gene_id"]]))
            if letter != "N" and distance < best.get(at, (10**9, 0.0))[0]:
                best[at] = distance, float(values[position])
    with pyBigWig.open(str(tmp_path / "out" / "contributions.bw")) as file:
        found = file.values("chr4", 0, file.chroms("chr4"), numpy=True)
    assert set(np.flatnonzero(~np.isnan(found))) == set(best)
    np.testing.assert_allclose(found[sorted(best)], [best[at][1] for at in sorted(best)], rtol=1e-6, atol=1e-8)
    regions = pd.read_csv(tmp_path / "out" / "regions.bed", sep="\t", header=None)
    assert set(regions[3]) <= set(scores.genes["gene_id"])


@pytest.mark.ray
def test_the_export_job_writes_its_config_and_mixes_in_no_other_settings(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scores", scored, "--out", tmp_path, "--formats"]
    assert outcome(capsys, export, *words, "bed,bedgraph")[0] == 0
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["formats"] == ["bed", "bedgraph"]
    assert str(scored / "manifest.json") in config["provenance"]["inputs"]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert outcome(capsys, export, "--config", tmp_path / "config.yaml")[0] == 0  # as it was; the same again
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    code, _, err = outcome(capsys, export, *words, "bed", "--genes", "chr4_g0003")
    assert code == 2
    assert "holds another run (different: formats, genes); choose another output" in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.ray
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--formats", "modisco"], ""),
        ([], "--formats bigwig: needs the chromosomes' lengths; give --genome"),
        (["--formats", "bigWig"], "--formats bigWig: choose among modisco, bigwig"),
        (["--genome", "{tmp}/none.fa"], "none.fa: no such genome; check the path"),
        (["--formats", "bed", "--target", "liver"], "--target liver: is not in the scores; there are expression"),
        (["--formats", "bed", "--genes", "nobody"], "has no scores of nobody"),
        (["--formats", "bed", "--scores", "{tmp}"], "holds no part-*.parquet; make them with ism"),
    ],
)
def test_wrong_input_of_the_export_job_is_one_line(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    given = ["--scores", scored, "--out", tmp_path / "out", *(word.format(tmp=tmp_path) for word in words)]
    code, _, err = outcome(capsys, export, *given)
    assert code == (2 if message else 0)
    assert message in err
    assert err.count("\n") == (1 if message else 0)
    assert (tmp_path / "out").exists() == (not message)


def test_the_export_job_imports_no_ray() -> None:
    code = "import sys, jobs.export; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
