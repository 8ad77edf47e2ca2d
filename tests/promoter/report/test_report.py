"""The report of a run whose files are written here: what it says, leaves out and escapes, and how large it is."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.reports import EVIL, LENGTH, RunFiles, write_run

from promoter.errors import InputError
from promoter.evaluation.evaluate import evaluate
from promoter.evaluation.learning_curve import learning_curve
from promoter.evaluation.predictions import read_predictions, write_predictions
from promoter.ism import actual_contributions, load_scores
from promoter.report import charts
from promoter.report.build import build_report
from promoter.report.genes import choose_genes, read_hits
from promoter.sequence import encode


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    return write_run(tmp_path_factory.mktemp("made"), genes=20_000, scored=12)


@pytest.fixture(scope="module")
def html(files: RunFiles) -> str:
    report = build_report(
        files.model, scores=files.scores, genes=files.ids, show=0, motifs=files.motifs, search=files.search,
        compare=files.run, assembly="sacCer3",
    )  # fmt: skip
    assert report.left_out == []
    return report.html


class Page(HTMLParser):
    """Collects elements, and the text of scripts and of everything else."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.open_script: dict[str, str | None] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open_script = dict(attrs) if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self.open_script = None

    def handle_data(self, data: str) -> None:
        if self.open_script is not None:
            self.scripts.append((self.open_script, data))
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _embedded(page: Page, gene: str) -> dict[str, Any]:
    found = [json.loads(text) for attrs, text in page.scripts if str(attrs.get("id", "")).startswith("gene-data")]
    return next(one for one in found if one["id"] == gene)


def _unpacked(packed: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["values"]), "<i2") * packed["factor"]


def test_twelve_genes_of_2_kb_and_a_scatter_of_20_000_are_under_10_mb(html: str) -> None:
    assert html.count('class="viewer"') == 12
    points = next(
        json.loads(text)
        for attrs, text in Page(html).scripts
        if attrs.get("data-chart") == "predicted_against_observed"
    )
    assert len(points["data"]["genes"]["gene"]) == 20_000
    assert points["renderer"] == "canvas"
    assert len(html.encode()) < 10_000_000


def test_the_report_loads_nothing_from_elsewhere(html: str) -> None:
    page = Page(html)
    for tag, attrs in page.elements:
        assert tag not in ("iframe", "object", "embed", "base"), tag
        assert (
            tag == "a" or not attrs.get("href", "data:,") or str(attrs.get("href", "data:,")).startswith("data:")
        )
        assert str(attrs.get("src", "data:")).startswith("data:"), attrs
        assert not [name for name in attrs if name.startswith("on")]
    policy = next(attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'; script-src 'sha256-")


def test_names_from_files_stay_text_in_a_report(html: str) -> None:
    page = Page(html)
    assert EVIL in page.text
    assert EVIL not in html  # neither in the page's text nor in its data
    assert _embedded(page, EVIL)["id"] == EVIL
    assert len([1 for tag, _ in page.elements if tag == "script"]) == 2 + 12 + 5  # ours, genes, charts


def test_the_packed_contributions_are_those_of_the_library(html: str, files: RunFiles) -> None:
    page, scores = Page(html), load_scores(files.scores, files.ids)
    actual = actual_contributions(scores.scores, encode(scores.genes["sequence"].tolist()))[:, 0].sum(axis=1)
    for row, gene in enumerate(files.ids):
        data = _embedded(page, gene)
        for packed, wanted in (
            (data["contribution"], actual[row]),
            (data["scores"], scores.scores[row, 0].ravel()),
        ):
            np.testing.assert_allclose(_unpacked(packed), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
        assert data["sequence"] == scores.genes["sequence"][row]
        assert data["upstream"] == LENGTH


def test_motifs_show_q_and_a_name_only_where_they_have_one(html: str) -> None:
    table = html[html.index('<table class="motifs">') :]
    table = table[: table.index("</table>")]
    rows = [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    ]
    assert rows[0] == ["motif", "resembles", "q", "consensus", "seqlets", "contribution", "logo"]
    assert rows[1][0] == "pattern_0"
    assert rows[1][1].startswith("MSN2")
    assert rows[1][2] == "1.0e\N{MINUS SIGN}04"
    assert rows[2][:3] == ["pattern_1", "", "0.200"]
    assert "GAL4" not in html


def test_a_learning_curve_is_a_figure_a_table_and_a_sentence(files: RunFiles, html: str) -> None:
    assert 'id="sizes"' not in html  # this run has none
    target = "salt"
    table = read_predictions(files.run / "predictions.parquet", [target])[["gene_id", "split", target]]
    rng = np.random.default_rng(7)
    points = []
    for sequences, noise in ((100, 3.0), (1000, 1.0)):
        values = table[target] + noise * rng.normal(size=len(table))
        others = {f"{target}_predicted_by_mean": 1.0, f"{target}_predicted_by_kmers": table[target] * 0.1}
        points.append((sequences, table.assign(**{f"{target}_predicted": values}, **others)))
    path = files.run / "learning_curve.csv"
    learning_curve(points, [target]).to_csv(path, index=False)
    try:
        page = Page(build_report(files.model, target=target).html)
    finally:
        path.unlink()
    assert "from 100 to 1,000 training genes: it had not levelled off" in page.text
    assert " 1,000 " in page.text[page.text.index("Pearson r with 95% intervals") :]
    data = next(
        json.loads(text)
        for attributes, text in page.scripts
        if attributes.get("data-chart") == "r_by_training_size"
    )
    assert data["data"]["curve"]["model"] == ["network", "kmers"] * 2  # without the mean, which has no r
    assert data["data"]["curve"]["sequences"] == [100, 100, 1000, 1000]
    assert "by the number of training genes" in data["spec"]["description"]


def test_motif_hits_lie_on_the_sequence_that_the_genome_has_there(html: str, files: RunFiles) -> None:
    page = Page(html)
    strands = set()
    for gene in files.ids:
        data = _embedded(page, gene)
        for hit in data["hits"]:
            assert data["sequence"][hit["start"] : hit["end"]] == files.implanted[gene]
            assert hit["strand"] == "same"
            strands.add(data["place"]["strand"])
    assert strands == {"+", "-"}


def test_the_report_says_what_the_run_files_say(html: str, files: RunFiles) -> None:
    text = Page(html).text
    for expected in (
        "2,000 bases upstream of the TSS", "whole chromosomes", files.data_sha256, "chr1, chr2",
        "kmers by distance", "pattern_0", "MSN2", "overlapping", "Which settings mattered", "2 trials finished",
        "UCSC genome browser",
    ):  # fmt: skip
        assert expected in text, expected
    metrics = json.loads((files.run / "metrics.json").read_text())["test"]["salt"]
    low, high = metrics["pearson_ci95"]
    assert f"{metrics['pearson']:.3f} [{low:.2f}, {high:.2f}]" in text


def test_report_sections_without_files_are_left_out_and_it_says_how_to_make_them(
    files: RunFiles, tmp_path: Path
) -> None:
    alone = tmp_path / "copied"
    alone.mkdir()
    for path in files.model.iterdir():
        (alone / path.name).write_bytes(path.read_bytes())
    report = build_report(alone)
    text = Page(report.html).text
    assert report.genes == []
    for job in ("train", "ism", "motifs", "tune"):
        assert any(job in line for line in report.left_out), job
        assert job in text
    for heading in ("Learning curves", "Leakage", "Beside baselines", "Error by chromosome"):
        assert f">{heading}</h" not in report.html


def observed_where(files: RunFiles, known: np.ndarray) -> pd.DataFrame:
    """Leave observed values of a run's predictions where `known`, and return the table."""
    table = read_predictions(files.run / "predictions.parquet")
    table["salt"] = table["salt"].where(known)
    write_predictions(files.run / "predictions.parquet", table)
    return table


def test_a_report_draws_the_genes_that_have_a_value(tmp_path: Path) -> None:
    files = write_run(tmp_path, genes=200, scored=3)
    table = observed_where(files, np.random.default_rng(0).random(200) < 0.5)
    report = build_report(files.model, scores=files.scores, show=2)
    data = charts.predicted_against_observed(table, "salt").data["genes"]
    errors = charts.chromosome_errors(table, "salt")
    assert len(data) == table["salt"].notna().sum() == errors["genes"].sum() < 200
    assert data["observed"].notna().all()
    for row in errors.to_dict("records"):
        known = table[(table["chrom"] == row["chrom"]) & table["salt"].notna()]
        assert row["genes"] == len(known)
        assert row["rmse"] == pytest.approx(np.sqrt(((known["salt_predicted"] - known["salt"]) ** 2).mean()))
    assert ">Error by chromosome</h3>" in report.html
    assert report.write_figures(tmp_path / "figures")


def test_a_target_without_an_observed_test_gene_has_no_errors_and_the_report_says_so(tmp_path: Path) -> None:
    files = write_run(tmp_path, genes=200, scored=3)
    splits = read_predictions(files.run / "predictions.parquet")["split"]
    table = observed_where(files, (splits != "test").to_numpy())
    nothing = {name: np.zeros((200, 1)) for name in ("mean", "kmers")}
    metrics = evaluate(table, ["salt"], leaking=np.arange(200) == 3, baselines=nothing)
    (files.run / "metrics.json").write_text(json.dumps(metrics, allow_nan=False))
    report = build_report(files.model, scores=files.scores, show=2)
    assert ">Predicted and observed</h2>" in report.html
    assert "largest errors" not in report.html
    assert "largest error" not in report.html  # among the genes drawn
    assert report.write_figures(tmp_path / "figures")
    table["split"] = np.where(np.arange(200) < 100, "train", "test")  # a split that divides chromosomes
    table["salt"] = table["salt"].where(table["split"] != "test")
    write_predictions(files.run / "predictions.parquet", table)
    divided = build_report(files.model)
    assert ">Error by chromosome</h3>" not in divided.html
    assert "Error by chromosome: no test gene has an observed value of salt" in divided.left_out
    table["split"] = None  # genes that no model has seen
    write_predictions(files.run / "predictions.parquet", table)
    assert ">Predicted and observed</h2>" not in build_report(files.model).html


def test_wrong_input_of_a_report_is_named(files: RunFiles, tmp_path: Path) -> None:
    for settings, message in (
        ({"target": "liver"}, "`target='liver'`: is not of the model; there are salt"),
        (
            {"genes": ["nobody"], "scores": files.scores},
            "has no scores of nobody; score them with ism (`genes`)",
        ),
        ({"genes": ["nobody"]}, "`genes`: their logos need `scores`"),
        ({"motifs": tmp_path}, "motifs.tsv: no such table of motifs"),
        ({"search": tmp_path}, "trials.csv: no such table of trials"),
        ({"compare": tmp_path}, "metrics.json: no such JSON file"),
        ({"assembly": "a b"}, "`assembly='a b'`: must be a name"),
        ({"show": -1}, "`show=-1`: must be at least 0"),
    ):
        with pytest.raises(InputError, match=re.escape(message)) as raised:
            build_report(files.model, **settings)  # type: ignore[arg-type] # each has the type of its setting
        assert "\n" not in str(raised.value)


def test_a_report_refuses_scores_of_another_model(files: RunFiles, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = write_run(tmp_path, genes=60, scored=2, seed=1)
    with pytest.raises(InputError, match="holds scores of another model"):
        build_report(other.model, scores=files.scores)


def test_an_ensemble_is_reported_as_one(tmp_path: Path) -> None:
    members = [write_run(tmp_path / f"seed_{seed}", genes=80, scored=3, seed=seed) for seed in range(2)]
    run = tmp_path / "together"
    for number, member in enumerate(members, start=1):
        shutil.copytree(member.run, run / "folds" / f"fold_1_seed_{number}")
    for name in ("metrics.json", "leakage.csv"):
        shutil.copy(members[0].run / name, run / name)
    table = read_predictions(members[0].run / "predictions.parquet")
    table.insert(3, "fold", 1)
    predicted = table["salt_predicted"]
    table = table.assign(salt_predicted_sd=0.1, salt_low=predicted - 1, salt_high=predicted + 1)
    write_predictions(run / "predictions.parquet", table)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["salt"]["interval_coverage"] = 0.9375
    (run / "metrics.json").write_text(json.dumps(metrics))
    report = build_report(run, scores=members[1].scores, show=1)
    page = Page(report.html)
    assert "2, an ensemble" in page.text
    assert "fold_1_seed_2" in page.text
    assert "93.8% of the test genes lie within their 95% interval" in page.text
    charts = {str(attrs["data-chart"]): json.loads(text) for attrs, text in page.scripts if "data-chart" in attrs}
    genes = charts["predicted_against_observed"]["data"]["genes"]
    np.testing.assert_allclose(np.subtract(genes["high"], genes["low"]), 2, atol=2e-3)
    assert set(charts["learning_curve_mse"]["data"]["epochs"]["network"]) == {"fold_1_seed_1", "fold_1_seed_2"}
    assert [low is None for low in charts["beside_plain_models"]["data"]["models"]["low"]] == [False, False]
    assert metrics["test"]["salt"]["verdict"] in page.text


def test_genes_of_a_report_are_chosen_from_those_held_out() -> None:
    known = pd.DataFrame(
        {"predicted": [9, 1, 2, 3, 8.0], "observed": [9, 1, np.nan, 7, 8.0], "split": ["train", *["test"] * 4]},
        index=list("abcde"),
    )
    assert choose_genes(known, ["a"], 1) == {
        "a": "named", "e": "highest prediction", "b": "lowest prediction", "d": "largest error"
    }  # fmt: skip
    assert choose_genes(known, [], 0) == {}
    assert list(choose_genes(known.assign(split=None), [], 1)) == ["a", "b", "d"]  # none was held out
    assert choose_genes(known.assign(predicted=np.nan), [], 2) == dict.fromkeys("bc", "first in the scores")


def test_figures_of_a_report_are_written_as_svg_and_png(tmp_path: Path) -> None:
    files = write_run(tmp_path / "run", genes=60, scored=2)
    report = build_report(files.model, scores=files.scores, show=1)
    names = report.write_figures(tmp_path / "figures")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("svg", "png")
    }
    assert {"predicted_against_observed", "learning_curve_mse", "gene__script_alert_1_script_"} <= set(names)
    for name in names:
        assert (tmp_path / "figures" / f"{name}.svg").read_text().count("<path") > 5
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000


def test_a_gene_is_shown_with_the_prediction_of_networks_that_held_it_out(files: RunFiles, html: str) -> None:
    """The scores' own predictions, in these files of no relation to the run's, may be of all folds' networks."""
    held_out = read_predictions(files.run / "predictions.parquet").set_index("gene_id")["salt_predicted"]
    shown = [float(one.replace("\N{MINUS SIGN}", "-")) for one in re.findall(r"<p>Predicted ([^\s,]+),?\s", html)]
    np.testing.assert_allclose(shown, held_out[files.ids], atol=0.006)


def test_motif_hits_are_found_for_gene_names_with_special_characters(tmp_path: Path) -> None:
    lines = ["HG002#1#chr1\t5\t9\tpattern_0|g#2\t900\t+\t0.5", "NA\t5\t9\tpattern_0|NA\t900\t-\t0.5"]
    (tmp_path / "instances.bed").write_text("\n".join(lines) + "\n")
    hits = read_hits(tmp_path, pd.DataFrame({"gene_id": ["g#2", "NA"]}))
    assert hits[["chrom", "gene", "motif"]].to_numpy().tolist() == [
        ["HG002#1#chr1", "g#2", "pattern_0"],
        ["NA", "NA", "pattern_0"],
    ]
