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
    model_weights: list[str] | None = None,
    trust_code: bool = False,
    scores: str | None = None,
    attributions: list[str] | None = None,
    genes: list[str] | None = None,
    show: int = 3,
    target: str | None = None,
    motifs: str | None = None,
    search: str | None = None,
    compare: str | None = None,
    assembly: str | None = None,
    figures: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write one HTML file about a run, which opens in any browser without a network.

    Args:
        model: model directory that promoter train or tune wrote, or the folder of a run with
            folds/, an ensemble; the files beside it are read too. Or external:package.module:function, a function
            that returns any PyTorch network (docs/your-model.md).
        out: HTML file to write.
        model_weights: weights of an external model in the format of safetensors; several make an ensemble. By
            default those with which its function returns it.
        trust_code: run the code that an external model brings; false by default: refuse it.
        scores: folder that promoter ism or attribute wrote with this model; genes or sequences are then drawn base
            by base.
        attributions: folders that promoter attribute wrote with this model; their agreement with the scores is
            shown.
        genes: ids or names of genes or sequences to draw, beside those that are chosen.
        show: number of test genes or sequences to show for each of: highest, lowest and worst prediction.
        target: name of the target whose figures and scores to show; by default the first that has scores.
        motifs: folder that promoter motifs wrote.
        search: folder that promoter tune wrote.
        compare: folder of another run, such as one with --split.random, whose metrics are shown beside.
        assembly: name of the genome assembly at UCSC or Ensembl, such as hg38 or sacCer3, for links to their
            browsers.
        figures: folder to write each figure to, as SVG and PNG.
        overwrite: replace a page that promoter report did not write, and write figures beside other files.
    """
    settings = job_settings(report, locals())
    page_file = storage.resolve(out)
    if page_file.suffix not in (".html", ".htm"):
        raise InputError(f"--out {out}: must be a file that ends in .html")
    if page_file.is_dir():
        raise InputError(f"--out {out}: is a folder; name a file in it, such as {page_file / 'report.html'}")

    from promoter.ism.scores_format import find_manifest
    from promoter.model_argument import open_models
    from promoter.report.build import build_report

    members = open_models([model], weights=model_weights, trust_code=trust_code)
    inputs = {network.source: network.checksum for network in members}
    for folder in [*([scores] if scores else []), *(attributions or [])]:
        if manifest := find_manifest(folder):
            inputs[str(manifest)] = storage.sha256(manifest)
    with ExitStack() as stack:
        output = stack.enter_context(own_file("report", page_file, settings, inputs, overwrite=overwrite))
        drawn = figures and stack.enter_context(
            own_folder("report", figures, settings, inputs, paths=None, overwrite=overwrite)
        )
        page = build_report(
            model,
            members,
            scores=scores,
            attributions=attributions or (),
            genes=genes,
            show=show,
            target=target,
            motifs=motifs,
            search=search,
            compare=compare,
            assembly=assembly,
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
