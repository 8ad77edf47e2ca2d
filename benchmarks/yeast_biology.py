"""What is known of the promoters of yeast, in the scores of a model of its salt response or its levels.

    python benchmarks/yeast_biology.py ISM_FOLDER TATA_BOXES.bed [--target osmo_salt]

ISM_FOLDER: what `jobs.ism` wrote. The stress element AGGGG (Martinez-Pastor et al.
1996) raises the response, GATGAG (PAC) and AAAATTTT (RRPE; both Hughes et al. 2000) lower it: they drive the
ribosome's biogenesis, which salt shuts down. TATA boxes: Rhee and Pugh 2012.
"""

from __future__ import annotations

import argparse

import pandas as pd

from promoter.ism import load_scores
from promoter.motifs.elements import site_contributions, word_contributions

WORDS = ["AGGGG", "GATGAG", "AAAATTTT", "AAGGG", "ACGCGT", "GACTC"]  # three known, three to compare with


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("scores")
    parser.add_argument("tata_boxes")
    parser.add_argument("--target", help="one of the model's; its first when left out")
    arguments = parser.parse_args()
    scores = load_scores(arguments.scores)
    target = scores.targets.index(arguments.target) if arguments.target else 0
    print(word_contributions(scores, WORDS, target).to_string(index=False, float_format="{:+.4f}".format))
    columns = ["chrom", "start", "end", "gene_id", "score", "strand"]
    boxes = pd.read_csv(arguments.tata_boxes, sep="\t", names=columns)
    contrast = site_contributions(scores, boxes, target)
    print(
        f"{contrast['sites']} TATA boxes: mean |contribution| {contrast['ratio']:.2f} × that of other genes "
        f"at the same positions, larger with probability {contrast['auroc']:.2f} "
        f"[{contrast['low']:.2f}, {contrast['high']:.2f}]"
    )


if __name__ == "__main__":
    main()
