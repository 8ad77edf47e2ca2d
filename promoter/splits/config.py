"""Configure which genes are held out. Imports no NumPy, pandas or PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from promoter.errors import InputError

SPLITS = ("train", "val", "test")  # from most to least influence on the model


@dataclass(frozen=True)
class SplitConfig:
    """Configure which genes are held out for validation and test.

    Args:
        val: chromosomes of the validation set; by default chosen to hold `val_fraction` of the genes.
        test: chromosomes of the test set; by default chosen to hold `test_fraction` of the genes.
        val_fraction: share of all genes to validate on, used only if `val` is not given (default 0.1).
        test_fraction: share of all genes to test on, used only if `test` is not given (default 0.1).
        by: unit that is never divided between sets: chromosome (default), or family, a group of genes with
            homologous or overlapping promoters.
        homology: what to do about held-out genes with homologs in the training set: report counts them (default),
            drop removes their homologs from training, move puts them into the training set too.
        random: hold out single genes at random (default false); only to measure by how much that inflates metrics.
        seed: random seed for drawing held-out genes with `by` family or `random` (default 0).
    """

    val: list[str] | None = None
    test: list[str] | None = None
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    by: Literal["chromosome", "family"] = "chromosome"
    homology: Literal["report", "drop", "move"] = "report"
    random: bool = False
    seed: int = 0

    @property
    def by_chromosome(self) -> bool:
        """Return whether complete chromosomes are held out."""
        return self.by == "chromosome" and not self.random

    def __post_init__(self) -> None:
        """Raise InputError for impossible fractions, and for settings that exclude each other."""
        if self.random and self.by == "family":
            raise InputError(
                "`SplitConfig.random` and `SplitConfig.by='family'` exclude each other; give one of them"
            )
        for name in ("val", "test"):
            if getattr(self, name) is not None and not self.by_chromosome:
                other = "SplitConfig.random" if self.random else "SplitConfig.by='family'"
                raise InputError(
                    f"`{other}` does not hold out chromosomes",
                    setting=f"SplitConfig.{name}",
                    fix=f"give `SplitConfig.{name}_fraction` instead",
                )
        for name in ("val_fraction", "test_fraction"):
            if not 0 < (share := getattr(self, name)) < 1:
                raise InputError("must lie between 0 and 1", setting=f"SplitConfig.{name}", value=share)
        if self.val_fraction + self.test_fraction >= 1:
            raise InputError(
                f"with `SplitConfig.test_fraction={self.test_fraction}` leaves nothing to train on",
                setting="SplitConfig.val_fraction",
                value=self.val_fraction,
                fix="lower them",
            )
