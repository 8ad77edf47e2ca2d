"""Configure which genes are held out. Imports no NumPy, pandas or PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from promoter.errors import InputError
from promoter.limits import require_limits

SPLITS = ("train", "val", "test")  # from most to least influence on the model
By = Literal["chromosome", "family", "block", "group", "column", "random"]
BLOCK_SIZE = 100_000
MIN_FOLDS = 3  # one to test on, one to choose the epoch by, one to learn from


@dataclass(frozen=True)
class SplitConfig:
    """Configure which genes are held out for validation and test.

    Args:
        val: chromosomes of the validation set; by default chosen to hold `val_fraction` of the genes.
        test: chromosomes of the test set; by default chosen to hold `test_fraction` of the genes.
        val_fraction: share of all genes to validate on, used only if `val` is not given (default 0.1).
        test_fraction: share of all genes to test on, used only if `test` is not given (default 0.1).
        by: what is never divided between sets: chromosome; family, genes with homologous or overlapping promoters
            (neighbours of one operon may still lie on both sides); block, a region of a chromosome, which keeps
            neighbours together; group, the library's column of that name; random, nothing; or column, the sets
            that the library's column split gives. By default chromosome; for a library column, else group, else
            family.
        block_size: number of bases of a block (default 100,000); genes within a window's length of a border to
            held-out genes are left out of training.
        homology: what to do about held-out genes with homologs in the training set: report counts them (default),
            drop removes their homologs from training, move puts them into the training set too.
        random: hold out single genes, as by random (default false); only to measure by how much that inflates
            metrics.
        seed: random seed for drawing held-out genes, but for chromosomes, which need none (default 0).
        fold: two numbers I,N: test on the I-th of N equal folds, and validate on the next; by default the
            fractions hold.
        max_train: maximum number of training genes, drawn at random, whole groups or families where by is one of
            these; a smaller draw is part of a larger one. By default all.
    """

    val: list[str] | None = None
    test: list[str] | None = None
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    by: By | None = None
    block_size: int = BLOCK_SIZE
    homology: Literal["report", "drop", "move"] = "report"
    random: bool = False
    seed: int = 0
    fold: list[int] | None = None
    max_train: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError for impossible numbers, and for settings that exclude each other."""
        require_limits(vars(self), "SplitConfig")
        if self.random and self.by not in {None, "chromosome", "random"}:  # the second was the default once
            raise InputError(
                f"`SplitConfig.random` and `SplitConfig.by={self.by!r}` exclude each other; give one of them"
            )
        unit = "random" if self.random else self.by
        for name in ("val", "test"):
            if getattr(self, name) is None:
                continue
            if unit not in {None, "chromosome"}:
                other = "SplitConfig.random" if self.random else f"SplitConfig.by={self.by!r}"
                raise InputError(
                    f"`{other}` does not hold out chromosomes",
                    setting=f"SplitConfig.{name}",
                    fix=f"give `SplitConfig.{name}_fraction` instead",
                )
            if self.fold is not None:
                raise InputError(
                    "each fold has its own chromosomes", setting=f"SplitConfig.{name}", fix="leave it out"
                )
        if self.val_fraction + self.test_fraction >= 1:
            raise InputError(
                f"with `SplitConfig.test_fraction={self.test_fraction}` leaves nothing to train on",
                setting="SplitConfig.val_fraction",
                value=self.val_fraction,
                fix="lower them",
            )
        if self.block_size != BLOCK_SIZE and unit != "block":
            raise InputError(
                "is the number of bases of a region of `SplitConfig.by='block'`",
                setting="SplitConfig.block_size",
                value=self.block_size,
                fix="give that too",
            )
        if self.fold is not None:
            self._require_fold(self.fold)

    def _require_fold(self, fold: list[int]) -> None:
        if len(fold) != 2 or not fold[1] >= MIN_FOLDS or not 1 <= fold[0] <= fold[1]:
            raise InputError(
                f"must be two numbers I,N: the I-th of N folds, N at least {MIN_FOLDS}",
                setting="SplitConfig.fold",
                value=fold,
            )
        if self.by == "column":
            raise InputError(
                "`SplitConfig.by='column'` has one test set",
                setting="SplitConfig.fold",
                value=fold,
                fix="leave one out, or hold out by `SplitConfig.by='group'` or `SplitConfig.by='family'`",
            )
        if self.homology == "move":
            raise InputError(
                "would never test the genes that it moves",
                setting="SplitConfig.homology",
                value="move",
                fix="with folds give drop or report",
            )

    def settings(self) -> dict[str, Any]:
        """Return what config.yaml holds: without settings of other units, which earlier versions did not write."""
        settings = asdict(self)
        if self.by != "block":
            del settings["block_size"]
        for name in ("fold", "max_train"):
            if settings[name] is None:
                del settings[name]
        return settings
