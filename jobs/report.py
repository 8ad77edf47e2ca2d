"""A page about a run: what was trained, how good it is, and which bases its predictions rest on."""

from __future__ import annotations

from contextlib import ExitStack

from jobs.cli.config_file import job_settings
from jobs.cli.console import console, plural, with_flags
from jobs.cli.outputs import own_file, own_folder
from jobs.cli.run import run
from promoter import storage
from promoter.errors import InputError


def report(
    model: str,
    out: str,
    scores: str | None = None,
    genes: list[str] | None = None,
    show: int = 3,
    target: str | None = None,
    motifs: str | None = None,
    search: str | None = None,
    compare: str | None = None,
    assembly: str | None = None,
    figures: str | None = None,
    trust_code: bool = False,
    overwrite: bool = False,
) -> None:
    """Write one HTML file about a run, which opens in any browser without a network.

    Args:
        model: model directory that promoter train or tune wrote, or the folder of a run with
            folds/, an ensemble; the files beside it are read too.
        out: HTML file to write.
        scores: folder that promoter ism wrote with this model; genes or sequences are then drawn base by base.
        genes: ids or names of genes or sequences to draw, beside those that are chosen.
        show: number of test genes or sequences to show for each of: highest, lowest and worst prediction.
        target: name of the target whose figures and scores to show; by default the first that has scores.
        motifs: folder that promoter motifs wrote.
        search: folder that promoter tune wrote.
        compare: folder of another run, such as one with --split.random, whose metrics are shown beside.
        assembly: name of the genome assembly at UCSC or Ensembl, such as hg38 or sacCer3, for links to their
            browsers.
        figures: folder to write each figure to, as SVG and PNG.
        trust_code: run the code that an external model brings; false by default: refuse it.
        overwrite: replace a page that promoter report did not write, and write figures beside other files.
    """
    settings = job_settings(report, locals())
    page_file = storage.resolve(out)
    if page_file.suffix not in (".html", ".htm"):
        raise InputError(f"--out {out}: must be a file that ends in .html")
    if page_file.is_dir():
        raise InputError(f"--out {out}: is a folder; name a file in it, such as {page_file / 'report.html'}")

    from promoter.checkpoint import serialize_models
    from promoter.ism.scores_format import find_manifest
    from promoter.report.build import build_report

    inputs = {network.source: network.checksum for network in serialize_models([model])}
    if scores is not None and (manifest := find_manifest(scores)):
        inputs[str(manifest)] = storage.sha256(manifest)
    with ExitStack() as stack:
        output = stack.enter_context(own_file("report", page_file, settings, inputs, overwrite=overwrite))
        drawn = figures and stack.enter_context(
            own_folder("report", figures, settings, inputs, paths=None, overwrite=overwrite)
        )
        page = build_report(
            model,
            scores=scores,
            genes=genes,
            show=show,
            target=target,
            motifs=motifs,
            search=search,
            compare=compare,
            assembly=assembly,
            trust_code=trust_code,
        )
        if drawn:
            drawn.begin()
            names = page.write_figures(drawn.path)
            drawn.finish([drawn.path / f"{name}.{kind}" for name in names for kind in ("svg", "png")])
            console.print(f"{len(names)} figures, each as SVG and PNG, in {drawn.path}")
        output.begin()
        storage.write_text(page_file, page.html)
        output.finish([page_file])
    for line in page.left_out:
        console.print(f"not in it: {with_flags(line)}", style="dim")
    size = len(page.html.encode()) / 1e6
    console.print(f"report with {plural(len(page.genes), page.noun)}, {size:.1f} MB, in {page_file}")


if __name__ == "__main__":
    run(report)
