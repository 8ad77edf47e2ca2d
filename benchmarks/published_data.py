"""The files of the published tables, their traps, and the rows on which a model and the authors are judged."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from benchmarks.published_sources import Files, place, read_genome, require

FOLDS = 5  # of the training data, to choose configurations by
ECOLI_THEIRS = {  # how the predictions of the authors' models are called here -> part of the file's name
    "published CNN, a classifier": "20191118_tss_scramble_peak_classification_hyperparam_tuned",
    "published MLP on 3- to 6-mers": "20191112_mlp_tss_3to6mer_scramble_peak",
    "published random forest": "20191111_rfr_tss_scramble_peak_floored",
}
NATIVE = "published transformer"
LEAF = "published CNN"
TRAINED_ON = ("Random", "Drift", "SSWM")  # the yeast libraries that Native is not
_SHARED = 20  # bases at the same positions that make two yeast sequences relatives; see `yeast_families`


@dataclass(frozen=True)
class Table:
    """The sequences of a table, and what they are judged by.

    Attributes:
        rows: columns `id`, `sequence`, `value`, `split` (train, val, test or None) and if known `group`; `active`
            where there are classes; and a column for each of `theirs`, NaN where it is not known.
        theirs: names of the authors' predictions.
        left_out: what was left out and why, a line each.
        ceiling: what is known of the best possible result.
    """

    rows: pd.DataFrame
    theirs: tuple[str, ...] = ()
    left_out: list[str] = field(default_factory=list)
    ceiling: str = "nothing is known: the files hold no replicates"


def read_ecoli(files: Files, fold: str | None = None) -> Table:
    """Read the promoter MPRA of E. coli (Urtecho et al.) with its published split by parts of the genome.

    Args:
        files: the files.
        fold: None (default) judges on the published test set; 1 to 5 on that fifth of the training sequences by
            their position in the genome.

    Returns:
        The table; the value is log2(max(expression, 0) + 0.1), since the background was subtracted.
    """
    part = "ecoli_mpra/tss_expression_model_format"
    everything = files.read(f"{part}.txt", ["sequence", "expression", "start", "end", "name", "label"])
    pair = ["sequence", "expression"]
    train = files.read(f"{part}_train_genome_split.txt", pair)
    test = files.read(f"{part}_test_genome_split.txt", pair)
    require(everything.groupby("sequence")["label"].nunique().max() == 1, "a sequence has two labels")
    active = everything.drop_duplicates("sequence").set_index("sequence")["label"].eq("active")
    require(bool(pd.concat([train, test])["sequence"].isin(active.index).all()), "sequences without a label")
    for name, file in ECOLI_THEIRS.items():
        predicted = files.read(f"ecoli_mpra/{file}_predictions.txt", ["predicted", "observed"])[: len(test)]
        observed = test["sequence"].map(active) if "classification" in file else test["expression"]
        test[name] = ours_in_their_order(predicted, observed.astype(float), name)
        if "classification" not in file:  # of expression, not of its logarithm
            test[name] = log_activity(test[name])
    in_both = set(train["sequence"]) & set(test["sequence"])
    controls, parted = everything["start"].eq("NA"), set(train["sequence"]) | set(test["sequence"])
    left_out = [
        f"{len(in_both)} sequences stand in both files: {train['sequence'].isin(in_both).sum()} rows left out of "
        f"training and {test['sequence'].isin(in_both).sum()} of the test, since the authors may have trained on "
        "them",
        f"{controls.sum()} controls of {everything['sequence'][controls].str.len().min()} to "
        f"{everything['sequence'][controls].str.len().max()} bases, without coordinates, and "
        f"{(~everything['sequence'].isin(parted) & ~controls).sum()} sequences more are in neither file",
    ]
    train = train[~train["sequence"].isin(in_both)]
    again = train["sequence"].duplicated()
    left_out.append(f"{again.sum()} rows of training that repeat a sequence and its value")
    rows = pd.concat(
        [train[~again].assign(split="train"), test[~test["sequence"].isin(in_both)].assign(split="test")],
        ignore_index=True,
    )
    rows.insert(0, "id", [f"tss{i}" for i in rows.index])
    rows["value"] = log_activity(rows.pop("expression"))
    rows["active"] = rows["sequence"].map(active)
    if fold is None:
        return Table(rows, tuple(ECOLI_THEIRS), left_out)
    return _ecoli_fold(rows.drop(columns=list(ECOLI_THEIRS)), read_genome(files), fold, left_out)


def log_activity(expression: pd.Series) -> pd.Series:
    """Return log2(x + 0.1) of the expression x, or of 0 where the background left less."""
    return pd.Series(np.log2(expression.clip(lower=0) + 0.1))


def ours_in_their_order(predicted: pd.DataFrame, observed: pd.Series, name: str) -> np.ndarray:
    """Return predictions that stand in the order of the test file, after checking that by the observed values."""
    same = len(predicted) == len(observed) and np.allclose(predicted["observed"], observed, rtol=1e-9, atol=1e-9)
    require(same, f"the observed values of {name} are not those of the test file in its order")
    return predicted["predicted"].to_numpy(np.float64)


def _ecoli_fold(rows: pd.DataFrame, genome: str, fold: str, left_out: list[str]) -> Table:
    """Judge on a fifth of the training sequences that lie side by side, and learn from what does not touch it."""
    rows = rows[rows["split"] == "train"].reset_index(drop=True)
    places = place(rows["sequence"].tolist(), genome)
    position = np.array([found[0][0] if len(found) == 1 else -1 for found in places])
    by_position = np.argsort(position, kind="stable")[(position < 0).sum() :]
    judged = np.sort(np.array_split(by_position, FOLDS)[int(fold) - 1])
    length = len(rows["sequence"][0])
    borders = np.sort(position[judged])
    nearest = np.searchsorted(borders, position)
    gaps = [np.abs(position - borders[np.clip(nearest - k, 0, len(borders) - 1)]) for k in (0, 1)]
    near = (np.minimum(*gaps) < length) & (position >= 0)
    split = np.full(len(rows), "train", object)
    split[near | (position < 0)] = None
    split[judged] = "test"
    left_out += [
        "the published test rows",
        f"{(position < 0).sum()} sequences of training at several places of the genome, or at none",
        f"{(near & ~np.isin(np.arange(len(rows)), judged)).sum()} that overlap those judged",
    ]
    return Table(rows.assign(split=split), (), left_out)


def read_plants(files: Files, fold: str | None = None) -> Table:
    """Read the core promoters of plants in leaf (Jores et al.): genes by the remainder of their name's CRC-32.

    Args:
        files: the files.
        fold: None (default) judges on the remainders 0 and 1; 1 to 5 on the remainder 3 to 7, and leaves 0 and 1
            out.
    """
    rows = files.read("plant_core/CNN_test_leaf.tsv")
    predicted = files.read("plant_core/CNN_test_leaf_pred.tsv")
    require(bool(rows["gene"].is_unique and rows["sequence"].is_unique), "genes or sequences that repeat")
    rows[LEAF], ambiguous = match_predictions(rows, predicted)
    remainder = rows["gene"].map(lambda gene: zlib.crc32(str(gene).encode()) % 10)
    sets = (
        {0: "test", 1: "test", 2: "val"} if fold is None else {0: None, 1: None, 2: "val", int(fold) + 2: "test"}
    )
    rows["split"] = [sets.get(number, "train") for number in remainder]
    rows = rows.rename(columns={"gene": "id", "enrichment": "value"})[["id", "sequence", "value", "split", LEAF]]
    left_out = ["the genes of the test"]
    if fold is None:
        left_out = [
            f"{ambiguous} rows, {(rows[LEAF].isna() & (rows['split'] == 'test')).sum()} of the test, have species "
            "and enrichment of another row, so which prediction is whose is not known"
        ]
    ceiling = "nothing is known: the files hold no replicates (the published predictions come from the same data)"
    return Table(
        rows if fold is None else rows.drop(columns=LEAF), (LEAF,) if fold is None else (), left_out, ceiling
    )


def match_predictions(rows: pd.DataFrame, predicted: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Find the prediction of each row by species and enrichment, for the two files have different orders.

    Args:
        rows: columns `sp` and `enrichment`.
        predicted: columns `sample.name`, `enrichment` and `prediction`.

    Returns:
        The predictions, NaN where several rows have one species and enrichment, and how many rows these are.
    """
    # the files were written with different numbers of digits
    keys, others = (
        table[species] + " " + table["enrichment"].map("{:.10g}".format)
        for table, species in ((rows, "sp"), (predicted, "sample.name"))
    )
    require(
        sorted(keys) == sorted(others), "the published predictions are not of the same species and enrichments"
    )
    unique = predicted.set_index(others)["prediction"][~others.duplicated(keep=False).to_numpy()]
    return keys.map(unique).to_numpy(np.float64), int(keys.duplicated(keep=False).sum())


def read_yeast_mpra(files: Files, fold: str | None = None) -> Table:
    """Read the yeast MPRA (Vaishnav et al.): learn from Random, Drift and SSWM, and test on Native.

    Args:
        files: the files.
        fold: None (default) judges on Native; 1 to 5 on a fifth of the families of the other three; the name of
            one of the three on this library, so that, as in the test, another kind of sequences is judged than
            learned.
    """
    names = {"Measured Expression": "value", "Predicted Expression": NATIVE}
    parts = [
        files.read(f"yeast_mpra/{library}_complex.csv")
        .rename(columns=names)
        .assign(library=library)[["library", "sequence", *names.values()]]
        for library in ("Native", *TRAINED_ON)
    ]
    rows = pd.concat(parts, ignore_index=True)
    rows.insert(0, "id", rows["library"] + "_" + rows.groupby("library").cumcount().astype(str))
    bare = rows["sequence"].str.strip("N")
    copies = rows.assign(bare=bare).duplicated(["library", "bare", "value"])
    elsewhere = bare.duplicated() & ~copies
    padded = rows["sequence"].str.contains("N").groupby(rows["library"]).sum()
    left_out = [
        f"{copies.sum()} rows that repeat a sequence and its value: "
        + ", ".join(f"{n} of {name}" for name, n in rows[copies]["library"].value_counts().items()),
        f"{elsewhere.sum()} that stand in an earlier library with another value",
        "N as padding, which stays: " + ", ".join(f"{n} of {name}" for name, n in padded.items() if n),
    ]
    rows = rows[~copies & ~elsewhere].reset_index(drop=True)
    rows["group"] = yeast_families(rows["sequence"])
    native = rows["library"] == "Native"
    relatives = ~native & rows["group"].isin(rows["group"][native])
    left_out.append(f"{relatives.sum()} training sequences that are variants of a native one")
    rows = rows[~relatives].reset_index(drop=True)
    rows["split"] = rows["library"].map(lambda name: "test" if name == "Native" else "train")
    if fold is not None:
        rows = rows[rows["library"] != "Native"].drop(columns=NATIVE).reset_index(drop=True)
        left_out.append("Native, the test")
        if fold in TRAINED_ON:
            judged = rows["library"] == fold
            related = ~judged & rows["group"].isin(rows["group"][judged])
            left_out.append(f"{related.sum()} variants of {fold} in the other libraries")
            rows["split"] = [
                "test" if own else None if other else "train" for own, other in zip(judged, related, strict=True)
            ]
        else:
            order = np.random.default_rng(0).permutation(rows["group"].unique())
            judged = rows["group"].isin(np.array_split(order, FOLDS)[int(fold) - 1])
            rows["split"] = np.where(judged, "test", "train")
    ceiling = "nothing is known: the files hold no replicates of a sequence within an experiment"
    return Table(rows.drop(columns="library"), (NATIVE,) if fold is None else (), left_out, ceiling)


def yeast_families(sequences: pd.Series) -> np.ndarray:
    """Number families: sequences that share 20 bases at the same positions between the flanks, chains included.

    Evolved and native sequences are variants without insertions. Families by the number of differences, up to 15
    or 30 of the 80 bases, are the same.

    Args:
        sequences: sequences of 110 bases, with flanks of 17 and 13 bases; words with an N are not shared.
    """
    n, rows, firsts = len(sequences), [], []
    for start in range(17, 98 - _SHARED):
        words = sequences.str[start : start + _SHARED]
        code = pd.factorize(words.where(~words.str.contains("N")))[0]
        known = np.flatnonzero(code >= 0)
        rows.append(known)
        firsts.append(pd.Series(known).groupby(code[known]).transform("first").to_numpy())
    edges = (np.concatenate(rows), np.concatenate(firsts))
    return connected_components(coo_matrix((np.ones(len(edges[0]), bool), edges), (n, n)), directed=False)[1]
