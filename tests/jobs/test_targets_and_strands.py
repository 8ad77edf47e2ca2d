"""`--targets` and `--both_strands` of the jobs, against forward passes of windows edited and turned by hand."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.commands import exit_code, outcome

from jobs.export import export
from jobs.ism import ism
from jobs.predict import predict
from jobs.report import report
from jobs.variants import variants
from promoter.checkpoint import load_info, load_model, save_model
from promoter.dataset.genome import Genome
from promoter.dataset.promoters import read_promoters
from promoter.ism import load_scores
from promoter.ism.store import load_contents
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.sequence import one_hot
from promoter.storage.records import read_record, write_record

pytestmark = pytest.mark.ray
TARGETS = ["expression", "leaf", "root"]
SDS = [1.0, 1e-3, 1e3]  # in raw units the root would always come first, in SDs the leaf does
GENES = ["chr4_g0003", "chr1_g0050"]


def save(
    folder: Path, run: Path, seed: int, *, reverse_complement: float = 0.5, both_strands: bool = False
) -> Path:
    torch.manual_seed(seed)
    config = CNNConfig((8, 8), (7, 3), (4,), hidden=8, n_targets=3, crop=90, both_strands=both_strands)
    model = PromoterCNN(config, 100).eval()
    with torch.no_grad():
        model.head[0].get_parameter("bias").fill_(1)
        model.output_layer().weight.mul_(torch.tensor([[1.0], [10.0], [100.0]]))
    info = load_info(run / "model")
    save_model(
        folder,
        model,
        replace(
            info,
            targets=TARGETS,
            standardisation={"mean": [0.0] * 3, "sd": SDS},
            training={**info.training, "reverse_complement": reverse_complement},
        ),
    )
    return folder


@pytest.fixture(scope="module")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"), run, 1)


@pytest.fixture(scope="module")
def other(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("other"), run, 2)


def by_hand(folder: Path, sequences: list[str], *, both: bool) -> np.ndarray:
    """Predict strings, alone or as means with the other strand of the 90 bases that the network sees."""
    network, values = load_model(folder), []
    for turned in (False, True)[: 1 + both]:
        strands = [
            one[-90:][::-1].translate(str.maketrans("ACGT", "TGCA")) if turned else one for one in sequences
        ]
        tokens = np.array([["ACGTN".index(letter) for letter in strand] for strand in strands], np.uint8)
        with torch.no_grad():
            values.append(network(one_hot(tokens)).numpy())
    return np.mean(values, axis=0)


def scores_by_hand(folder: Path, sequence: str, *, both: bool) -> np.ndarray:
    mutants = [sequence[:at] + base + sequence[at + 1 :] for base in "ACGT" for at in range(len(sequence))]
    predicted = by_hand(folder, [sequence, *mutants], both=both)
    return (predicted[1:] - predicted[0]).T.reshape(3, 4, len(sequence))


@pytest.mark.parametrize("both", [False, True])
def test_ism_scores_and_stores_only_the_targets_asked_for_on_the_strands_asked_for(
    model: Path, other: Path, data: Path, tmp_path: Path, both: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", model, "--ensemble", other, "--data", data, "--out", tmp_path, "--genes", *GENES]
    flags += ["--targets", "root,expression", "--both_strands", str(both).lower()]
    code, said, _ = outcome(capsys, ism, *flags)
    assert code == 0
    assert ("one strand" in said) == (not both)  # which is said, since the model was trained on both
    found = load_scores(tmp_path)
    assert found.targets == ["expression", "root"]  # in the model's order
    assert found.scores_sd is not None
    members = [
        np.stack([scores_by_hand(folder, one, both=both)[[0, 2]] for one in found.genes["sequence"]])
        for folder in (model, other)
    ]
    tolerance = 1e-6 * 100  # float32's rounding of predictions of some 100
    np.testing.assert_allclose(found.scores, np.mean(members, axis=0), atol=tolerance)
    np.testing.assert_allclose(found.scores_sd, np.std(members, axis=0, ddof=1), atol=tolerance)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["targets"] == ["expression", "root"]
    assert bool(manifest["both_strands"]) == load_contents(tmp_path).both_strands == both
    names = pd.read_parquet(next((tmp_path / "scores").iterdir())).columns
    assert not any(name.startswith("leaf") for name in names)
    for different in ("--targets=leaf", "--targets=expression", f"--both_strands={str(not both).lower()}"):
        words = [
            *flags[: flags.index("--targets")],
            "--targets",
            "root,expression",
            "--both_strands",
            both,
            different,
        ]
        assert exit_code(ism, *map(str, words)) == 2
        assert "another run (different: " in capsys.readouterr().err
    assert exit_code(ism, *flags) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("expresion", "--targets expresion: is no target of the model; did you mean 'expression'?"),
        ("xylem,leaf", "--targets xylem: is no target of the model; it has expression, leaf, root"),
        ("leaf,root,leaf", "--targets leaf: comes twice"),
        ("[]", "--targets []: names no target"),
    ],
)
def test_targets_that_the_model_lacks_or_that_come_twice_are_refused(
    model: Path, data: Path, tmp_path: Path, targets: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", model, "--data", data, "--out", tmp_path / "out", "--targets", targets]
    vcf = ["--variants", data / "genome" / "none.vcf", "--genome", data / "genome" / "genome.fa"]
    for job, more in ((ism, []), (variants, vcf)):
        assert exit_code(job, *flags, *more) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_the_strongest_changes_are_ranked_in_sds_and_shown_in_target_units(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = outcome(
        capsys, ism, "--model", model, "--data", data, "--out", tmp_path, "--genes", ",".join(GENES)
    )
    assert code == 0
    scores = load_scores(tmp_path).scores
    lines = [line.split() for line in said.splitlines() if line.split()[:1] and line.split()[0] in GENES]
    assert {line[-1] for line in lines} == {"leaf"}
    assert {abs(float(line[3])) for line in lines} == {float(f"{np.abs(one[1]).max():.3g}") for one in scores}
    assert [abs(float(line[4])) for line in lines] == sorted((abs(float(line[4])) for line in lines), reverse=True)


@pytest.mark.parametrize(("targets", "shown"), [("leaf,root", "leaf"), ("root", "root")])
def test_a_store_of_some_targets_is_exported_and_reported(
    model: Path, data: Path, tmp_path: Path, targets: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", model, "--data", data, "--out", tmp_path / "ism", "--genes", *GENES, "--targets", targets]
    assert exit_code(ism, *flags, "--both_strands", "true") == 0
    capsys.readouterr()
    out = tmp_path / "report.html"
    assert exit_code(report, "--model", model, "--scores", tmp_path / "ism", "--out", out) == 0, (
        capsys.readouterr()
    )
    page = out.read_text()
    assert f"{shown}" in page
    assert "mean over both strands" in " ".join(page.split())
    capsys.readouterr()
    words = ["--scores", tmp_path / "ism", "--formats", "modisco", "--target", shown, "--out", tmp_path / "x"]
    assert exit_code(export, *words) == 0
    words[words.index(shown)] = "expression"
    assert exit_code(export, *words, "--overwrite", "true") == 2
    assert "is not in the scores" in capsys.readouterr().err


def test_predictions_and_their_metrics_are_of_the_strands_asked_for(
    model: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    promoters = read_promoters(data)
    sequences, mses = promoters.genes["sequence"].tolist(), []
    for both in (False, True):
        out = tmp_path / f"{both}.parquet"
        flags = ["--model", model, "--data", data, "--out", out, "--ensemble", other, "--both_strands", both]
        assert exit_code(predict, *map(str, flags)) == 0
        table = pd.read_parquet(out)
        members = np.stack([by_hand(folder, sequences, both=both) for folder in (model, other)])
        columns = [f"{target}_predicted" for target in TARGETS]
        np.testing.assert_allclose(table[columns], members.mean(axis=0), rtol=1e-5, atol=1e-4)
        metrics = json.loads(out.with_suffix(".metrics.json").read_text())
        test = (promoters.genes["chrom"] == "chr4").to_numpy()
        mse = np.mean((members.mean(axis=0)[test, 0] - promoters.targets[test, 0]) ** 2)
        mses.append(metrics["test"]["expression"]["mse"])
        np.testing.assert_allclose(mses[-1], mse, rtol=1e-4)
    assert mses[0] != mses[1]


def test_variants_are_predicted_for_the_targets_asked_for_alone(model: Path, data: Path, tmp_path: Path) -> None:
    genome = Genome(data / "genome" / "genome.fa")
    promoters = read_promoters(data)
    lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for row in np.flatnonzero(promoters.genes["gene_id"].isin(GENES)):
        gene = promoters.genes.iloc[row]
        for at in (gene["start"] + 30, gene["start"] + 60):
            base = genome.fetch(gene["chrom"], at, at + 1).upper()
            lines.append(f"{gene['chrom']}\t{at + 1}\t.\t{base}\t{'A' if base != 'A' else 'C'}\t.\t.\t.")
    with gzip.open(tmp_path / "v.vcf.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    tables = []
    for name, targets in (("all", None), ("some", ["root", "leaf"])):
        variants(
            str(tmp_path / "v.vcf.gz"),
            str(model),
            str(data),
            str(tmp_path / name),
            str(data / "genome" / "genome.fa"),
            genes=GENES,
            targets=targets,
            both_strands=True,
        )
        tables.append(pd.read_parquet(tmp_path / name / "variants.parquet"))
    whole, some = tables
    values = [f"{target}_{kind}" for target in ("leaf", "root") for kind in ("ref", "alt", "difference")]
    assert some.columns.tolist() == [*whole.columns[:7], *values]
    assert set(some["gene_id"]) == set(GENES)
    np.testing.assert_allclose(some[values], whole[values], rtol=1e-5, atol=1e-4)
    by_gene = promoters.genes.set_index("gene_id")["sequence"]
    expected = by_hand(model, by_gene[some["gene_id"]].tolist(), both=True)[:, 1:]
    np.testing.assert_allclose(some[["leaf_ref", "root_ref"]], expected, rtol=1e-5, atol=1e-4)
    text = pd.read_csv(tmp_path / "some" / "variants.tsv.gz", sep="\t")
    assert text.columns.tolist() == some.columns.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reverse_complement": 0.0}, "warning: .*: was trained without reverse complements.*--both_strands true"),
        ({"both_strands": True, "reverse_complement": 0.0}, "note: --both_strands true changes nothing"),
    ],
)
def test_strands_that_the_model_did_not_learn_are_doubted_and_those_it_reads_itself_named(
    run: Path,
    data: Path,
    tmp_path: Path,
    options: dict[str, float],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = save(tmp_path / "model", run, 3, **options)  # type: ignore[arg-type] # as the cases have them
    flags = ["--model", folder, "--data", data, "--both_strands", "true"]
    code, said, _ = outcome(capsys, ism, *flags, "--out", tmp_path / "ism", "--genes", "chr4_g0003")
    assert code == 0
    assert re.search(message, said), said
    code, said, _ = outcome(capsys, predict, *flags, "--out", tmp_path / "p.parquet")
    assert code == 0
    assert re.search(message, said), said


def test_an_ism_run_of_a_version_without_these_settings_is_resumed(
    model: Path, data: Path, tmp_path: Path
) -> None:
    ism(str(model), str(data), str(tmp_path), genes=GENES, genes_per_task=1)
    config = tmp_path / "config.yaml"
    record = read_record(config)
    assert record is not None
    old = {name: value for name, value in record.settings.items() if name not in {"targets", "both_strands"}}
    assert len(old) == len(record.settings) - 2
    write_record(config, replace(record, settings=old))
    part = tmp_path / "scores" / "part-00001.parquet"
    whole, kept = part.read_bytes(), (tmp_path / "scores" / "part-00000.parquet").stat().st_mtime_ns
    part.unlink()
    ism(str(model), str(data), str(tmp_path), genes=GENES, genes_per_task=1)
    assert part.read_bytes() == whole
    assert (tmp_path / "scores" / "part-00000.parquet").stat().st_mtime_ns == kept
