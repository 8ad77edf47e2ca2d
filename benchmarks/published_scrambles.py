"""What scrambling a block of an E. coli promoter does: as measured, and as networks predict it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.published_sources import Files, place, read_genome, require
from promoter.checkpoint import load_model
from promoter.ism import actual_contributions, saturation_mutagenesis
from promoter.sequence import encode
from promoter.training import predict

SHUFFLES = 20  # of each block; the mean of their predictions counts
_BLOCK = re.compile(r"(?P<construct>[^,]+,\d+,[+-])_scrambled(?P<first>\d+)-(?P<end>\d+)(_flipped)?(?:,|$)")
_APART = 150  # bases between sites of different groups: the length of a construct
SHUFFLED, LINEAR = "mean of 20 shuffles, log2", "mean of 20 shuffles, back from log2"
ISM, STRENGTH, POSITION = "minus the sum of ISM", "minus the predicted activity of the construct", "position alone"
WAYS = [SHUFFLED, LINEAR, ISM, STRENGTH, POSITION]


def read_scrambles(files: Files, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Read the blocks of E. coli promoters whose scrambling was measured.

    Args:
        files: the files.
        rows: columns `sequence` and `split` of `published_data.read_ecoli`.

    Returns:
        A row a block: `site` (number of the measured effect that it is part of), `effect` (above 0 where
        scrambling raised the expression), `group` (sites closer than a construct's length), `sequence` of its
        construct, `first` and `end` (positions of the block in it), `held_out` and `learned` (whether all
        constructs of the site are held out, or in the training set). And what was left out.
    """
    sites = files.read("ecoli_mpra/scramble_merged_sites.txt")
    blocks = parse_blocks(sites)
    columns = ["sequence", "expression", "start", "end", "construct", "label"]
    everything = files.read("ecoli_mpra/tss_expression_model_format.txt", columns)
    blocks["sequence"] = blocks["construct"].map(construct_sequences(everything, blocks, read_genome(files)))
    constructs = blocks.drop_duplicates("construct")
    unknown = int(constructs["sequence"].isna().sum())
    known = blocks["sequence"].notna().groupby(blocks["site"]).transform("all")
    for column, split in (("held_out", "test"), ("learned", "train")):
        inside = blocks["sequence"].isin(rows["sequence"][rows["split"] == split])
        blocks[column] = inside.groupby(blocks["site"]).transform("all")
    n_known, n_judged = (blocks["site"][which].nunique() for which in (known, known & blocks["held_out"]))
    left_out = [
        f"{len(sites) - n_known} of {len(sites):,} sites with one of the {unknown} constructs (of "
        f"{len(constructs):,}) whose sequence is not in the file, or not beyond doubt, and {n_known - n_judged:,} "
        "with a construct that is not held out",
    ]
    blocks["effect"] = sites["mean_group_diff"].to_numpy(np.float64)[blocks["site"]]
    start = sites["scramble_start_pos"].sort_values(kind="stable")
    blocks["group"] = blocks["site"].map((start.diff() > _APART).cumsum())
    return blocks[known].reset_index(drop=True), left_out


def parse_blocks(sites: pd.DataFrame) -> pd.DataFrame:
    """Return construct and positions of each block by whose scrambling the sites were measured.

    Args:
        sites: columns `scrambles`, names such as `TSS_1_a,190,+_scrambled40-50` with commas between them, and
            `num_scrambles`, their number.
    """
    found = []
    for site, (text, number) in enumerate(zip(sites["scrambles"], sites["num_scrambles"], strict=True)):
        matches = list(_BLOCK.finditer(text))
        complete = "".join(match[0] for match in matches) == text
        require(complete and len(matches) == number, f"the scrambles of site {site + 1} cannot be read")
        found += [(site, match["construct"], int(match["first"]), int(match["end"])) for match in matches]
    return pd.DataFrame(found, columns=["site", "construct", "first", "end"])


def construct_sequences(everything: pd.DataFrame, blocks: pd.DataFrame, genome: str) -> pd.Series:
    """Return the sequence of each construct, without those where the file leaves a doubt.

    Of promoters that face each other, with one window, the file gives each name the sequences of both, or that of
    the other strand.

    Args:
        everything: columns `construct` and `sequence`.
        blocks: column `construct`, whose last letter is the strand.
        genome: sequence of the genome.
    """
    names = everything[everything["construct"].isin(blocks["construct"])]
    names = names.drop_duplicates(["construct", "sequence"])
    names = names[~names["construct"].duplicated(keep=False)]
    places = place(names["sequence"].tolist(), genome)
    strands = [{strand for _, strand in found} for found in places]
    fits = [name[-1] in strand for name, strand in zip(names["construct"], strands, strict=True)]
    return names[fits].set_index("construct")["sequence"]


def predict_effects(run: Path, blocks: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Predict the effects of scrambling held-out blocks, each site the mean over its blocks.

    Args:
        run: folder of a training, with one model or several.
        blocks: blocks as `read_scrambles` returns them.
        seed: random seed of the shuffles (default 0).

    Returns:
        A row a held-out site: `effect`, `group`, and a column for each way to predict it.
    """
    judged = blocks[blocks["held_out"]].reset_index(drop=True)
    construct, texts = pd.factorize(judged["sequence"])
    tokens = encode([str(text) for text in texts])
    shuffled = shuffle_blocks(tokens[construct], judged, seed)
    models = [load_model(folder) for folder in sorted(run.glob("folds/*/model")) or [run / "model"]]
    before, after = (
        np.stack([predict(model, some)[:, 0] for model in models]).astype(np.float64).mean(axis=0)
        for some in (tokens, shuffled)
    )
    before, after = before[construct], after.reshape(len(judged), SHUFFLES)
    scores = np.mean([saturation_mutagenesis(model, tokens) for model in models], axis=0)
    contributions = actual_contributions(scores, tokens)[:, 0].sum(axis=1)[construct]
    inside = is_inside(judged, tokens.shape[1])
    judged[SHUFFLED] = after.mean(axis=1) - before
    judged[LINEAR] = (2**after).mean(axis=1) - 2**before
    judged[ISM] = -(contributions * inside).sum(axis=1)
    judged[STRENGTH] = -before
    learned = blocks[blocks["learned"]]
    judged[POSITION] = judged["first"].map(learned.groupby("first")["effect"].median())
    return judged.groupby("site")[["effect", "group", *WAYS]].mean().reset_index()


def is_inside(blocks: pd.DataFrame, length: int) -> np.ndarray:
    """Return which bases of its construct each block holds: bool, shape (blocks, length)."""
    positions = np.arange(length)
    first, end = (blocks[name].to_numpy()[:, None] for name in ("first", "end"))
    return (positions >= first) & (positions < end)


def shuffle_blocks(tokens: np.ndarray, blocks: pd.DataFrame, seed: int) -> np.ndarray:
    """Shuffle the bases of each block `SHUFFLES` times: tokens of (blocks x shuffles, length)."""
    rng = np.random.default_rng(seed)
    shuffled = np.repeat(tokens, SHUFFLES, axis=0)
    for row, (first, end) in enumerate(zip(blocks["first"], blocks["end"], strict=True)):
        rows = slice(row * SHUFFLES, (row + 1) * SHUFFLES)
        shuffled[rows, first:end] = rng.permuted(shuffled[rows, first:end], axis=1)
    return shuffled
