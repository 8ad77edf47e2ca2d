"""The models and the data set that a job applies them to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promoter.checkpoint import ModelInfo, SerializedModel, deserialize_ensemble, serialize_models
from promoter.dataset.log_values import observed_in_log_units
from promoter.dataset.promoters import Promoters, locate, read_promoters
from promoter.evaluation.predictions import require_fitting
from promoter.models.build import Network
from promoter.storage.parts import ensemble_checksum


@dataclass(frozen=True)
class Inputs:
    """Models and a data set that fit each other.

    Attributes:
        models: models of the ensemble, serialized; one for a single model.
        network: the first model, built.
        info: description of the ensemble.
        promoters: data set.
        checksums: path of each model and of the data set -> its SHA-256.
    """

    models: list[SerializedModel]
    network: Network
    info: ModelInfo
    promoters: Promoters
    checksums: dict[str, str]

    def identity(self, rows: np.ndarray, precision: str) -> dict[str, Any]:
        """Return what must be equal for the parts of two runs to belong together, apart from a job's own settings.

        Args:
            rows: rows of the genes in the data set.
            precision: number type of the matrix products.
        """
        ids = "\n".join(self.promoters.genes["gene_id"].iloc[rows])
        return {
            "model": ensemble_checksum([model.checksum for model in self.models]),
            "data": self.promoters.checksum,
            "genes_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "precision": None if precision == "fp32" else precision,  # None as in manifests that do not know of it
        }


def load_inputs(model: str, ensemble: Sequence[str] | None, data: str) -> Inputs:
    """Read the models and the data set, which jobs name by these arguments.

    Raises:
        InputError: a file is missing or damaged, or the models and the windows do not fit each other.
    """
    models = serialize_models([model, *(ensemble or [])])
    network, info = deserialize_ensemble(models)
    promoters = read_promoters(data)
    if info.training.get("loss") == "poisson":
        promoters = observed_in_log_units(promoters)
    require_fitting(promoters, info)
    checksums = {serialized.source: serialized.checksum for serialized in models}
    return Inputs(models, network, info, promoters, {**checksums, str(locate(data)): promoters.checksum})
