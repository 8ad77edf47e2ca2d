"""Names may hold anything: they are kept, shown escaped, and never break a page, a figure or a BED file."""

from __future__ import annotations

import html
import io
import json
import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import LENGTH, write_run

from jobs.cli.console import _SafeConsole, new_table
from promoter.dataset.gene_names import bed_names
from promoter.labels import bed_field, shown, shown_lines
from promoter.motifs.discovery import place_on_genome
from promoter.plots import logo, new_figure, write_figure
from promoter.report.build import build_report
from promoter.report.genes import read_hits

CONTROL = ["\x1b[31mred", "nul\0", "\x01", "\x7f", "\x85", "\u202eevil", "\u2028line", "\ufffe", "\ufeff", "\r\n"]
HOSTILE = [
    *CONTROL,
    'qu"o',
    "tab\there",
    "new\nline",
    "sp ace",
    "50%",
    "$x_$y$",
    "<b>&",
    "a|b",
    "#1",
    "NA",
    "\xa0",
]
ANY_TEXT = st.text(st.characters(), max_size=30)  # surrogates as well


def parsed(xml: str) -> ET.Element:
    return ET.fromstring(xml.encode())  # noqa: S314 # our own


def test_no_code_point_breaks_xml_or_utf8_once_it_is_shown() -> None:
    letters = [*range(0x3000), *range(0xD700, 0x10000), *range(0x10000, 0x110000, 997), *range(0xE0000, 0xE0100)]
    for letter in map(chr, letters):
        text = shown(letter)
        assert parsed(f"<a>{escape(text)}</a>").text == text
        assert "\x1b" not in text


@given(ANY_TEXT)
def test_what_can_be_seen_stays_and_the_rest_is_escaped_as_in_gff3(text: str) -> None:
    assert shown(text) == shown(shown(text))
    assert text == shown(text) or any(not letter.isprintable() for letter in text)
    assert shown_lines(f"{text}\n\t").endswith("\n\t")
    if "%" not in text:
        assert unquote(shown(text), errors="surrogatepass") == text


def test_letters_of_other_scripts_and_spaces_are_shown_as_they_are() -> None:
    for text in ("πρωτεΐνη", "热休克 蛋白", "a\xa0b", "é", "🧬", "[x]{y}"):
        assert shown(text) == text


@given(ANY_TEXT)
def test_a_name_is_one_field_of_bed_and_reads_back(text: str) -> None:
    field = bed_field(text)
    assert unquote(field, errors="surrogatepass") == text
    assert field.split() == ([field] if text else [])
    assert not set(field) & set('"\t\n\r\0\x1b')


@pytest.mark.parametrize("located", [True, False])
def test_the_report_reads_back_every_instance_that_motifs_writes(located: bool, tmp_path: Path) -> None:
    ids = [f"{name}{row}" for row, name in enumerate(HOSTILE)]
    genes = pd.DataFrame({"gene_id": ids, "gene_name": HOSTILE, "sequence": "ACGT" * 5})
    genes["chrom"], genes["strand"] = (HOSTILE, "+") if located else (None, None)
    genes["start"], genes["end"] = 100, 120
    instances = pd.DataFrame(
        {"motif": "pattern_0", "gene_id": ids, "offset": 3, "width": 4, "orientation": "+", "contribution": 1.0}
    )
    placed = place_on_genome(instances, genes)
    (tmp_path / "instances.bed").write_text(placed.to_csv(sep="\t", header=False, index=False))
    lines = (tmp_path / "instances.bed").read_text().splitlines()
    assert {len(line.split("\t")) for line in lines} == {len(line.split()) for line in lines} == {7}
    hits = read_hits(tmp_path, genes)
    assert sorted(hits["gene"]) == sorted(ids)
    chrom_of = dict(zip(ids, HOSTILE if located else ids, strict=True))
    for hit in hits.to_dict("records"):
        assert unquote(str(hit["chrom"])) == chrom_of[hit["gene"]]


def test_names_of_genes_in_bed_are_id_and_name() -> None:
    genes = pd.DataFrame({"gene_id": ["a b", "c"], "gene_name": ['x"y', None]})
    assert bed_names(genes) == ["a%20b|x%22y", "c"]


@pytest.mark.parametrize("terminal", [True, False])
def test_no_escape_sequence_of_a_name_reaches_the_terminal(terminal: bool) -> None:
    written = io.StringIO()
    console = _SafeConsole(
        file=written, force_terminal=terminal, color_system=None, highlight=False, markup=False, width=200
    )
    table = new_table("gene", *CONTROL, right=set())
    for name in CONTROL:
        console.print(f"gene {name}: done")
        table.add_row(name, *CONTROL)
    console.print(table)
    text = written.getvalue()
    assert [letter for letter in text if not letter.isprintable() and letter != "\n"] == []
    assert "%1B[31mred" in text


def test_a_figure_with_any_names_is_drawn_as_they_are_read(tmp_path: Path) -> None:
    for name in ("\x1b\0\x01\u202e\ufffe\ud800", "$x_$y$\n<b>"):
        figure = new_figure(6, 3)
        logo(np.eye(4)[:, [0, 1, 2]], start=5, tss=6, chrom=name, axes=figure.subplots())
        write_figure(tmp_path, "logo", figure)
        parsed((tmp_path / "logo.svg").read_text())
        assert (tmp_path / "logo.png").stat().st_size > 0


def test_a_report_of_any_names_is_written_with_its_figures(tmp_path: Path) -> None:
    target = "\x1b[31mred\0 $a_$b <i>\u202e \"'` \\x1b \\u0001 {{x}}"
    folder = os.fsdecode(b"run \x1b[1m\xff\x01")
    files = write_run(tmp_path, genes=100, scored=len(HOSTILE), target=target, names=HOSTILE, run=folder)
    report = build_report(
        files.model, scores=files.scores, genes=files.ids[:2], show=0, motifs=files.motifs, search=files.search,
        compare=files.run,
    )  # fmt: skip
    page = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", report.html, flags=re.DOTALL)
    page.encode()
    assert [letter for letter in page if not letter.isprintable() and letter not in "\n\xa0"] == []
    assert html.escape(shown(target)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    for text in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        assert set("\x1b\0\u202e").isdisjoint(json.dumps(json.loads(text), ensure_ascii=False))
    data = [json.loads(text) for text in re.findall(r'id="gene-data-\d+">(.*?)</script>', page, re.DOTALL)]
    assert all(gene["hits"] for gene in data)
    assert all(len(gene["sequence"]) == LENGTH for gene in data)
    names = report.write_figures(tmp_path / "figures")
    for name in names:
        parsed((tmp_path / "figures" / f"{name}.svg").read_text())
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 0
    assert len(names) >= 5
