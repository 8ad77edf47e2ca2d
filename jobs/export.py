"""ISM scores as files for motif discovery and genome browsers."""

from __future__ import annotations

from jobs.cli.body import lazy_body
from jobs.cli.run import run


@lazy_body
def export(
    scores: str,
    out: str,
    formats: list[str] | None = None,
    genome: str | None = None,
    genes: list[str] | None = None,
    target: str | None = None,
) -> None:
    """Write scores for tf-modisco-lite, genome browsers, bedtools and chrombpnet's tools.

    Args:
        scores: folder that jobs.ism wrote.
        out: folder to write the files and config.yaml to.
        formats: one or more of modisco (ohe.npz and shap.npz, hypothetical contributions, 5'→3' along each gene),
            bigwig and bedgraph (actual contributions on the genome; where promoters overlap, those to the gene
            whose TSS is nearest), bed (regions of high |contribution|: 7-base windows above the 95% quantile of
            the gene, merged) and h5 (as chrombpnet writes it, forward strand); modisco,bigwig,bed by default.
        genome: FASTA, .fai or chrom.sizes with the lengths of the chromosomes, for bigwig and h5.
        genes: ids of the genes to export; all by default.
        target: name of the target to export; may be left out when there is only one.
    """


if __name__ == "__main__":
    run(export)
