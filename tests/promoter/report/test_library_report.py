"""The report of a library: of sequences, which have neither chromosomes nor a TSS."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.libraries import TARGET, write_library_run
from support.reports import write_run

from promoter.errors import InputError
from promoter.ism import load_scores
from promoter.report.build import Report, build_report

FIRST = 4  # of the bases that are scored


@pytest.fixture(scope="module", params=[0, FIRST])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Report]:
    folder, first = tmp_path_factory.mktemp("library"), request.param
    write_library_run(folder, first=first)
    page = build_report(folder / "run" / "model", scores=folder / "ism", genes=["s2"], motifs=folder / "motifs")
    return folder, first, page


def visible(html: str) -> str:
    """Return the words that a reader sees or hears."""
    body = re.sub(r"<(script|style).*?</\1>", "", html.split("<title>")[1], flags=re.S)
    labels = " ".join(re.findall(r'(?:aria-label|alt|title)="([^"]*)"', body))
    return " ".join((re.sub(r"<[^>]*>", " ", body) + " " + labels).split())


def test_the_page_speaks_of_sequences(case: tuple[Path, int, Report]) -> None:
    _, _, page = case
    words = visible(page.html)
    assert page.noun == "sequence"
    assert not re.search(r"\bgenes?\b|chromosom|TSS|promoter(?! 0| \d|\b\.)|genome", words.split("Written by")[0])
    assert f"{TARGET} from sequence" in words
    assert "Pearson r, test sequences" in words
    assert "Sequences, base by base" in words


def test_what_lies_on_a_genome_is_neither_there_nor_missed(case: tuple[Path, int, Report]) -> None:
    _, _, page = case
    assert "error_by_chromosome" not in page.html
    assert page.left_out == ["Search: look for a better configuration with tune, give its folder as `search`"]
    charts = dict(re.findall(r'data-chart="(\w+)">(.*?)</script>', page.html))
    chart = json.loads(charts["predicted_against_observed"])
    assert set(chart["data"]["genes"]) == {"gene", "split", "observed", "predicted"}
    assert '"title":"sequence"' in charts["predicted_against_observed"]
    assert "chrom" not in charts["predicted_against_observed"]


def test_the_split_the_groups_and_the_weights_are_told(case: tuple[Path, int, Report]) -> None:
    words = visible(case[2].html)
    assert "the groups of the table, none of them divided" in words
    assert "group (sequences that are never parted); weight (multiplies a sequence's loss)" in words.replace(
        "&#39;", "'"
    )
    assert re.search(rf"test, weighted {TARGET} 20 0\.123 0\.234 0\.345", words)
    assert "each sequence counts as much as its weight" in words


def test_positions_count_from_the_first_base_of_the_sequence(case: tuple[Path, int, Report]) -> None:
    folder, first, page = case
    scores = load_scores(folder / "ism", ["s2"])
    sequence = scores.genes["sequence"][0]
    source = re.search(r'id="gene-data-1">(.*?)</script>', page.html)
    assert source
    data = json.loads(source[1])
    assert (data["sequence"], data["place"], data["upstream"]) == (sequence, None, -first)
    assert data["hits"] == [{"motif": "pattern_0", "start": 20 - first, "end": 26 - first, "strand": "opposite"}]
    words = visible(page.html)
    assert f"pattern_0 20–26 opposite {sequence[20 - first : 26 - first]}" in words
    at, change = re.findall(r"change of the prediction (\d+) (\w→\w)", words)[0]
    values = abs(scores.scores[0, 0])
    best = values.max(axis=0).argmax()
    assert (int(at), change[0]) == (best + first, sequence[best])
    assert re.search(rf"\n?>\s*{first} {sequence}\n", page.html)


def test_figures_count_as_the_page_does(case: tuple[Path, int, Report], tmp_path: Path) -> None:
    _, _, page = case
    names = page.write_figures(tmp_path)
    assert "sequence_s2" in names
    svg = (tmp_path / "sequence_s2.svg").read_text()
    assert "position in the sequence" in svg
    assert "TSS" not in svg


def test_an_assembly_of_sequences_is_refused(tmp_path: Path) -> None:
    write_library_run(tmp_path, count=12)
    for scores in (tmp_path / "ism", None):
        with pytest.raises(InputError, match="`assembly='hg38'`: the sequences have no coordinates; leave it out"):
            build_report(tmp_path / "run" / "model", scores=scores, assembly="hg38")


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"by": "column"}, "as the table&#39;s column split says"),
        ({"by": "family"}, "groups of similar sequences"),
        ({"by": "random"}, "random sequences (sequences like held-out ones are in the training set"),
        ({"by": "chromosome", "random": True}, "random sequences ("),
        ({"by": None}, "the groups of the table, none of them divided"),  # the table has groups
    ],
)
def test_each_split_of_a_library_is_described(tmp_path: Path, split: dict[str, object], words: str) -> None:
    write_library_run(tmp_path, count=12)
    (tmp_path / "run" / "config.yaml").write_text(json.dumps({"split": split}))
    assert words in build_report(tmp_path / "run" / "model").html


def test_blocks_of_a_genome_are_described(tmp_path: Path) -> None:
    files = write_run(tmp_path, genes=40, scored=2)
    (files.run / "config.yaml").write_text(json.dumps({"split": {"by": "block", "block_size": 100_000}}))
    assert "regions of 100,000 bases" in build_report(files.model).html
