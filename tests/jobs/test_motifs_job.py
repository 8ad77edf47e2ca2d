"""`jobs.motifs` from the command line, on the scores of a trained network."""

from __future__ import annotations

from pathlib import Path

import h5py
import pandas as pd
import pytest
from support.commands import outcome

from jobs.ism import ism
from jobs.motifs import motifs


@pytest.mark.ray
def test_the_motifs_job_writes_every_file_and_refuses_other_settings(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ism(str(run / "model"), str(data), str(tmp_path / "ism"))
    out = tmp_path / "out"
    words = ("--scores", tmp_path / "ism", "--out", out, "--taxon")
    capsys.readouterr()
    code, printed, error = outcome(capsys, motifs, *words, "none")
    assert (code, error) == (0, "")
    table = (
        pd.read_csv(out / "motifs.tsv", sep="\t") if (out / "motifs.tsv").stat().st_size > 1 else pd.DataFrame()
    )
    assert ("no motifs:" in printed) == table.empty
    assert {"motifs.meme", "instances.bed", "motifs.h5", "config.yaml"} <= {one.name for one in out.iterdir()}
    with h5py.File(out / "motifs.h5") as file:
        assert sum(len(group) for group in file.values() if isinstance(group, h5py.Group)) >= len(table)
    assert (out / "logos").is_dir() == (not table.empty)
    for name in table.get("motif", []):
        assert (out / "logos" / f"{name}.svg").stat().st_size > 1000
    code, _, error = outcome(capsys, motifs, *words, "fungi")
    assert code == 2
    assert "holds another run (different: taxon none, not fungi)" in error
    few = (*words[:3], tmp_path / "few", "--taxon", "none", "--genes", "chr4_g0003,chr4_g0004")
    code, printed, error = outcome(capsys, motifs, *few)
    assert (code, error) == (0, "")
    assert "no motifs: too few regions of these 2 genes stand out" in printed
