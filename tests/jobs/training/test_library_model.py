"""What a model says of the library that it was trained on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.libraries import LENGTH, library_of, random_sequences

from jobs.training.job import describe
from promoter.training import TrainingConfig


@pytest.mark.parametrize("columns", [(), ("group",), ("split", "weight")])
def test_a_model_of_a_library_names_its_columns_and_no_tss(columns: tuple[str, ...]) -> None:
    values = {"split": ["train"] * 6, "group": ["a"] * 6, "weight": np.ones(6, np.float32)}
    promoters = library_of(random_sequences(6), align=None, **{name: values[name] for name in columns})
    held_out: Any = SimpleNamespace(rows=lambda name: np.arange(4), chroms={}, split_of_gene={}, made_of={})
    info = describe(promoters, held_out, TrainingConfig())
    assert info.window == {"upstream": None, "downstream": None, "length": LENGTH}
    assert info.data == {"sha256": "", "genes": 6, "library": list(columns)}
