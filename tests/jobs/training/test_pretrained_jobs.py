"""Every job with pretrained networks: real classes, small, with random weights, from a folder as of the hub."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import ray
import torch
import yaml
from support import hub
from support.commands import exit_code, start
from support.processes import TIMEOUT, has_checkpoint, held, ray_workers, wait_until

pytest.importorskip("enformer_pytorch")
pytest.importorskip("borzoi_pytorch")

from jobs.export import export
from jobs.ism import ism
from jobs.predict import predict as predict_job
from jobs.prepare import prepare
from jobs.report import report
from jobs.train import train
from jobs.tune import tune
from jobs.variants import variants
from promoter.checkpoint import load_info, load_model
from promoter.dataset.promoters import read_promoters
from promoter.errors import InputError
from promoter.ism import load_scores, saturation_mutagenesis
from promoter.models.config import PretrainedConfig
from promoter.models.pretrained import PretrainedModel, build_model
from promoter.models.weights import fetch_trunk
from promoter.simulation.genome import simulate
from promoter.splits.config import SplitConfig
from promoter.training import TrainingConfig, predict

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CONTEXT = 512
SPLIT = SplitConfig(val=["chr3"], test=["chr4"])
TRAINING = TrainingConfig(epochs=3, batch_size=8, learning_rate=1e-3, reverse_complement=0.5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub.enformer(tmp_path_factory.mktemp("weights") / "small-enformer")


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("genome")
    simulate(folder, chromosomes=4, genes_per_chromosome=9, upstream=100)
    return folder


@pytest.fixture(scope="module")
def data(genome: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 genes, so that an epoch of a whole network takes a second."""
    out = tmp_path_factory.mktemp("data")
    prepare(
        str(out),
        genome=str(genome / "genome.fa"),
        genes=str(genome / "genes.bed"),
        expression=str(genome / "expression.tsv"),
        window="enformer",
        context=CONTEXT,
        max_n=1,
    )
    return out


@pytest.fixture(scope="module")
def head_run(ray_cluster: object, data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("head")
    config = PretrainedConfig("enformer", str(weights), tss_bins=2)
    train(str(data), str(out), SPLIT, config, replace(TRAINING, epochs=30), workers=2)
    return out


def test_prepare_for_enformer_centres_the_window_on_the_tss(data: Path):
    promoters = read_promoters(data)
    assert promoters.metadata["window"] == {"upstream": CONTEXT // 2, "downstream": CONTEXT // 2}
    plus = promoters.genes[promoters.genes["strand"] == "+"]
    assert (plus["tss"] - plus["start"] == CONTEXT // 2).all()
    assert yaml.safe_load((data / "config.yaml").read_text())["upstream"] == CONTEXT // 2


def test_a_head_is_trained_on_embeddings_that_are_kept(head_run: Path, data: Path, weights: Path):
    info = load_info(head_run / "model")
    model = load_model(head_run / "model")
    assert isinstance(model, PretrainedModel)
    parts = sorted((head_run / "embeddings").glob("*/part-*.parquet"))
    promoters = read_promoters(data)
    table = pd.concat([pq.read_table(path).to_pandas() for path in parts])
    assert table["gene_id"].tolist() == promoters.genes["gene_id"].tolist()
    tokens = torch.tensor(promoters.tokens.astype(np.int64))
    given = torch.nn.functional.one_hot(tokens.clamp(max=3), 4).float() * (tokens < 4)[..., None]
    with torch.no_grad():
        forward = model.embed(given.transpose(1, 2))
        turned = model.embed(given.transpose(1, 2).flip(1, 2))
    # another number of sequences in a pass rounds otherwise
    np.testing.assert_allclose(np.stack(table["embedding"].tolist()), forward, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        np.stack(table["embedding_reverse_complement"].tolist()), turned, rtol=1e-4, atol=1e-5
    )
    written = pd.read_parquet(head_run / "predictions.parquet")["expression_predicted"]
    np.testing.assert_allclose(written, predict(model, promoters.tokens)[:, 0], rtol=1e-4, atol=1e-4)
    assert info.window == {"upstream": CONTEXT // 2, "downstream": CONTEXT // 2, "length": CONTEXT}
    trunk = yaml.safe_load((head_run / "model" / "model.yaml").read_text())["architecture"]["trunk"]
    file = weights / "pytorch_model.bin"
    sha = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]  # noqa: S607 # an oracle
    assert (trunk["source"], trunk["sha256"], trunk["revision"]) == (str(weights), sha, None)
    metrics = json.loads((head_run / "metrics.json").read_text())
    assert "embeddings" in metrics["test"]["expression"]["baselines"]


def test_a_frozen_trunk_is_not_changed_by_training(head_run: Path, weights: Path):
    model = load_model(head_run / "model")
    assert isinstance(model, PretrainedModel)
    fresh = build_model(model.config, CONTEXT, fetch_trunk(PretrainedConfig("enformer", str(weights))))
    left, came = model.trunk.state_dict(), fresh.trunk.state_dict()
    assert left.keys() == came.keys()
    assert any("running_var" in name for name in left)
    assert all(torch.equal(left[name], came[name]) for name in left)


@pytest.mark.parametrize("adapt", ["lora", "full"])
def test_the_trunk_is_trained_by_two_workers(
    ray_cluster: object, data: Path, weights: Path, tmp_path: Path, adapt: str
):
    config = PretrainedConfig("enformer", str(weights), adapt=adapt, tss_bins=2, dropout=0.0)  # type: ignore[arg-type]
    train(str(data), str(tmp_path), SPLIT, config, replace(TRAINING, epochs=1), workers=2, baselines=False)
    model = load_model(tmp_path / "model")
    assert isinstance(model, PretrainedModel)
    fresh = build_model(model.config, CONTEXT, fetch_trunk(PretrainedConfig("enformer", str(weights))))
    left, came = model.trunk.state_dict(), fresh.trunk.state_dict()
    assert left.keys() == came.keys()  # those of lora are in the weights beside which they stood
    changed = {name for name in left if not torch.equal(left[name], came[name])}
    norms = {name for name in left if "running_" in name or "num_batches" in name}
    assert not changed & norms
    attention = {
        name for name in left if name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.weight"))
    }
    if adapt == "lora":
        assert changed == attention
    else:
        trained = {name for name, _ in model.trunk.named_parameters()}
        assert attention < changed <= trained
        assert len(changed) > 0.9 * len(trained)
    written = pd.read_parquet(tmp_path / "predictions.parquet")["expression_predicted"]
    promoters = read_promoters(data)
    np.testing.assert_allclose(written, predict(model, promoters.tokens)[:, 0], rtol=1e-4, atol=1e-4)


def test_predict_ism_and_report_take_a_pretrained_network(
    head_run: Path, data: Path, genome: Path, tmp_path: Path
):
    predict_job(str(head_run / "model"), str(data), str(tmp_path / "predictions.parquet"))
    again = pd.read_parquet(tmp_path / "predictions.parquet")["expression_predicted"]
    first = pd.read_parquet(head_run / "predictions.parquet")["expression_predicted"]
    np.testing.assert_allclose(again, first, rtol=1e-4, atol=1e-4)

    promoters = read_promoters(data)
    genes = promoters.genes
    ids = [genes["gene_id"][genes["strand"] == strand].iloc[0] for strand in "+-"]
    ism(str(head_run / "model"), str(data), str(tmp_path / "ism"), genes=ids, positions=[-20, 10])
    scores = load_scores(tmp_path / "ism", ids)
    model = load_model(head_run / "model")
    rows = [genes["gene_id"].tolist().index(one) for one in ids]
    middle = CONTEXT // 2
    expected = saturation_mutagenesis(model, promoters.tokens[rows], positions=(middle - 20, middle + 10))
    np.testing.assert_allclose(scores.scores, expected, rtol=1e-3, atol=1e-5)
    by_hand = promoters.tokens[rows[:1]].copy()
    by_hand[0, middle - 20] = (by_hand[0, middle - 20] + 1) % 4
    change = predict(model, by_hand) - predict(model, promoters.tokens[rows[:1]])
    np.testing.assert_allclose(scores.scores[0, :, by_hand[0, middle - 20], 0], change[0], rtol=1e-3, atol=1e-5)
    for row, gene in enumerate(scores.genes.itertuples()):
        tss = genes["tss"].iloc[rows[row]]
        assert (gene.start, gene.end) == ((tss - 20, tss + 10) if gene.strand == "+" else (tss - 9, tss + 21))
        assert gene.sequence == genes["sequence"].iloc[rows[row]][middle - 20 : middle + 10]
    manifest = json.loads((tmp_path / "ism" / "manifest.json").read_text())
    assert manifest["positions"] == [-20, 10]
    assert manifest["window"] == {"upstream": 20, "downstream": 10}
    with pytest.raises(InputError, match="another run"):
        ism(str(head_run / "model"), str(data), str(tmp_path / "ism"), genes=ids)

    export(str(tmp_path / "ism"), str(tmp_path / "tracks"), genome=str(genome / "genome.fa"), formats=["bedgraph"])
    report(str(head_run / "model"), str(tmp_path / "report.html"), scores=str(tmp_path / "ism"))
    page = (tmp_path / "report.html").read_text()
    assert ids[0] in page


def test_ism_longer_than_max_hours_is_refused(head_run: Path, data: Path, tmp_path: Path):
    with pytest.raises(
        InputError, match=r"--max_hours 1e-07: 55,332 forward passes .* ms on \d+ workers? will take"
    ):
        ism(str(head_run / "model"), str(data), str(tmp_path / "ism"), max_hours=1e-7)
    assert not (tmp_path / "ism" / "manifest.json").exists()


def test_variants_of_a_pretrained_network_are_differences_of_predictions(
    head_run: Path, data: Path, genome: Path, tmp_path: Path
):
    promoters = read_promoters(data)
    gene = promoters.genes[promoters.genes["strand"] == "+"].iloc[0]
    row = int(gene.name)  # type: ignore[arg-type]
    offset = CONTEXT // 2 - 5
    ref = gene["sequence"][offset]
    alt = "A" if ref != "A" else "C"
    header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "v.vcf").write_text(
        f"{header}{gene['chrom']}\t{gene['start'] + offset + 1}\t.\t{ref}\t{alt}\t.\t.\t.\n"
    )
    variants(
        str(tmp_path / "v.vcf"),
        str(head_run / "model"),
        str(data),
        str(tmp_path / "out"),
        genome=str(genome / "genome.fa"),
        genes=[gene["gene_id"]],
    )
    table = pd.read_parquet(tmp_path / "out" / "variants.parquet")
    changed = promoters.tokens[[row]].copy()
    changed[0, offset] = "ACGT".index(alt)
    model = load_model(head_run / "model")
    expected = predict(model, changed) - predict(model, promoters.tokens[[row]])
    assert table["tss_distance"].tolist() == [-5]
    np.testing.assert_allclose(table["expression_difference"], expected[0], rtol=1e-3, atol=1e-5)


def test_a_search_tunes_the_head_of_a_pretrained_network(
    ray_cluster: object, data: Path, weights: Path, tmp_path: Path
):
    config = PretrainedConfig("enformer", str(weights), tss_bins=2)
    space = {"training.learning_rate": {"choices": [1e-3, 1e-2]}, "model.head": {"choices": ["linear", "mlp"]}}
    tune(str(data), str(tmp_path), trials=2, folds=3, space=space, split=SplitConfig(test=["chr4"]), model=config,
         training=TRAINING, keep_folds=True, workers=0,
         metric="mse")  # fmt: skip # nine genes a chromosome have no r
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 2
    best = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert best["model"]["name"] == "enformer"
    model = load_model(tmp_path / "model")
    assert model.config.head == best["model"]["head"]  # type: ignore[union-attr]
    assert len(list((tmp_path / "folds").iterdir())) == 3
    assert predict(load_model(tmp_path / "folds" / "fold_1"), read_promoters(data).tokens[:2]).shape == (2, 1)


def test_embeddings_of_another_run_are_reused(head_run: Path, data: Path, weights: Path, tmp_path: Path):
    kept = sorted((head_run / "embeddings").glob("*/part-*.parquet"))
    written = [path.stat().st_mtime_ns for path in kept]
    config = PretrainedConfig("enformer", str(weights), tss_bins=2, head="mlp")
    recipe = replace(TRAINING, epochs=1)
    train(
        str(data),
        str(tmp_path),
        SPLIT,
        config,
        recipe,
        embeddings=str(head_run / "embeddings"),
        seeds=2,
        workers=0,
    )
    assert sorted((head_run / "embeddings").glob("*/part-*.parquet")) == kept
    assert [path.stat().st_mtime_ns for path in kept] == written
    assert not list(tmp_path.rglob("part-*.parquet"))
    assert isinstance(load_model(tmp_path / "folds" / "fold_1_seed_2" / "model"), PretrainedModel)


def test_a_search_trains_borzoi_with_lora(ray_cluster: object, genome: Path, tmp_path: Path):
    folder = hub.borzoi(tmp_path / "borzoi")
    files = {name: str(genome / file) for name, file in
             (("genome", "genome.fa"), ("genes", "genes.bed"), ("expression", "expression.tsv"))}  # fmt: skip
    prepare(str(tmp_path / "data"), window="borzoi", context=256, **files)  # type: ignore[arg-type] # text
    config = PretrainedConfig("borzoi", str(folder), adapt="lora", lora_rank=2)
    tune(str(tmp_path / "data"), str(tmp_path / "search"), trials=1, folds=1, split=SPLIT, model=config,
         space={"training.learning_rate": {"choices": [1e-3]}},
         training=replace(TRAINING, epochs=1, reverse_complement=0), metric="mse", workers=0)  # fmt: skip
    model = load_model(tmp_path / "search" / "model")
    assert isinstance(model, PretrainedModel)
    fresh = build_model(model.config, 256, fetch_trunk(config)).trunk.state_dict()
    changed = {name for name, value in model.trunk.state_dict().items() if not torch.equal(value, fresh[name])}
    assert {name.rsplit(".", 2)[-2] for name in changed} == {"to_q", "to_k", "to_v", "to_out"}
    written = pd.read_parquet(tmp_path / "search" / "predictions.parquet")["expression_predicted"]
    tokens = read_promoters(tmp_path / "data").tokens
    np.testing.assert_allclose(written[:4], predict(model, tokens[:4])[:, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--model.name", "enformer", "--model.channels", "8,8"],
            "--model.channels 8,8: is a setting of promoter_cnn",
        ),
        (
            ["--model.adapt", "lora"],
            "--model.adapt lora: is a setting of enformer and borzoi, not of promoter_cnn",
        ),
        (["--model.name", "gpt"], "--model.name gpt: must be promoter_cnn, enformer, borzoi or external"),
        (["--model.name", "borzoi", "--model.tss_bins", "0"], "--model.tss_bins 0: must be at least 1"),
    ],
)
def test_flags_of_another_network_are_refused(
    flags: list[str], words: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert exit_code(train, "--data", data, "--out", tmp_path / "out", *flags) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_data_of_another_window_are_refused_with_the_command_that_makes_them(
    genome: Path, weights: Path, tmp_path: Path
):
    files = {name: str(genome / file) for name, file in
             (("genome", "genome.fa"), ("genes", "genes.bed"), ("expression", "expression.tsv"))}  # fmt: skip
    prepare(str(tmp_path / "data"), upstream=500, max_n=1, **files)  # type: ignore[arg-type] # text
    with pytest.raises(InputError, match=r"prepare the data with .*`window='enformer'` `context=512`"):
        train(str(tmp_path / "data"), str(tmp_path / "out"), SPLIT, PretrainedConfig("enformer", str(weights)))
    with pytest.raises(
        InputError, match=r"`context=500`: enformer takes up to 196,608 bases, in steps of 256; give 512"
    ):
        prepare(str(tmp_path / "other"), window="enformer", context=500, **files)  # type: ignore[arg-type] # text
    with pytest.raises(InputError, match="takes the place of --upstream"):
        prepare(str(tmp_path / "other"), window="enformer", upstream=500, **files)  # type: ignore[arg-type] # text


def test_an_interrupted_lora_training_resumes_to_the_same_result(
    ray_cluster: object, data: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = PretrainedConfig("enformer", str(weights), adapt="lora", tss_bins=2)
    recipe = replace(TRAINING, epochs=6, early_stopping=None)
    flags = [
        *("--data", str(data), "--out", str(tmp_path / "stopped"), "--split.val", "chr3", "--split.test", "chr4"),
        *("--model.name", "enformer", "--model.weights", str(weights), "--model.adapt", "lora"),
        *("--model.tss_bins", "2", "--training.batch_size", "8", "--baselines", "false"),
        *("--training.epochs", "6", "--training.early_stopping", "null"),
    ]
    driver = start("train", flags, ray.get_runtime_context().gcs_address)
    # Ray Train keeps an epoch's checkpoint a moment after its line is printed
    wait_until(lambda: has_checkpoint(tmp_path / "stopped"), while_runs=driver)
    with held(lambda: ray_workers("RayTrainWorker"), driver):
        driver.terminate()
        driver.communicate(timeout=TIMEOUT)
    for name in ("stopped", "whole"):
        train(str(data), str(tmp_path / name), SPLIT, config, recipe, baselines=False)
    printed = capsys.readouterr().out
    assert re.search(r"resuming after epoch [1-5]\n", printed), printed
    tables = (pd.read_parquet(tmp_path / name / "predictions.parquet") for name in ("stopped", "whole"))
    stopped, whole = (table["expression_predicted"] for table in tables)
    np.testing.assert_allclose(stopped, whole, rtol=1e-4, atol=1e-4)
    # the best epoch may lie before the interruption: what came after shows only in the history
    stopped, whole = (pd.read_csv(tmp_path / name / "history.csv") for name in ("stopped", "whole"))
    assert stopped["epoch"].tolist() == whole["epoch"].tolist() == list(range(1, 7))
    for loss in ("train_mse", "val_mse"):
        np.testing.assert_allclose(stopped[loss], whole[loss], rtol=1e-4)
