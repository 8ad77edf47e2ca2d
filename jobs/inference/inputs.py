"""The models and the data set that a job applies them to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from upath import UPath

from jobs.cli.console import console
from promoter import storage
from promoter.checkpoint import ModelInfo, SerializedModel, deserialize_ensemble
from promoter.dataset.log_values import observed_in_log_units
from promoter.dataset.promoters import Promoters, locate, read_promoters
from promoter.errors import doubt, note
from promoter.evaluation.predictions import require_fitting
from promoter.model_argument import BY_CODE, open_models
from promoter.model_info import read_description
from promoter.models.build import Network
from promoter.models.strands import reads_both_strands
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
        outputs: numbers of the outputs that are wanted, in the model's order; None for all.
    """

    models: list[SerializedModel]
    network: Network
    info: ModelInfo
    promoters: Promoters
    checksums: dict[str, str]
    outputs: list[int] | None

    @property
    def targets(self) -> list[str]:
        """Names of the targets that are wanted."""
        return self._wanted(self.info.targets)

    @property
    def bases_seen(self) -> int:
        """Number of bases at the end of the windows that the network sees."""
        return self.promoters.length - self.network.config.outside(self.promoters.length)

    @property
    def target_sds(self) -> list[float] | None:
        """Standard deviation of each wanted target over the training set; None where it is not known."""
        sds = self.info.target_sds
        return None if sds is None else self._wanted(sds)

    def _wanted(self, of_all: list[Any]) -> list[Any]:
        return of_all if self.outputs is None else [of_all[output] for output in self.outputs]

    def identity(self, rows: np.ndarray, precision: str, *, both_strands: bool) -> dict[str, Any]:
        """Return what must be equal for the parts of two runs to belong together, apart from a job's own settings.

        Args:
            rows: rows of the genes in the data set.
            precision: number type of the matrix products.
            both_strands: whether the strands are averaged.
        """
        ids = "\n".join(self.promoters.genes["gene_id"].iloc[rows])
        return {  # None as in manifests that do not know of it
            "model": ensemble_checksum([model.checksum for model in self.models]),
            "data": self.promoters.checksum,
            "genes_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "precision": None if precision == "fp32" else precision,
            "targets": None if self.outputs is None else self.targets,
            "both_strands": both_strands or None,
        }

    def write_description(self, path: UPath) -> list[UPath]:
        """Write the description of the first external model, its code included, beside what was made with it.

        Args:
            path: path of the file.

        Returns:
            The path; empty for a model that is kept in a directory of its own.
        """
        by_code = [model for model in self.models if model.source.startswith(BY_CODE)]
        if not by_code:
            return []
        storage.write_text(path, by_code[0].description.decode())
        return [path]

    def strands_read(self, both_strands: bool) -> int:
        """Return on how many strands the network is run: two, unless it reads both itself."""
        return 2 if both_strands and not reads_both_strands(self.network) else 1


def load_inputs(
    model: str,
    ensemble: Sequence[str] | None,
    data: str,
    targets: Sequence[str] | None = None,
    *,
    model_weights: Sequence[str] | None = None,
    trust_code: bool = False,
) -> Inputs:
    """Read the models and the data set, which jobs name by these arguments.

    Raises:
        InputError: a file is missing or damaged, the models and the windows do not fit each other, or the models
            have no such target.
    """
    names = [model, *(ensemble or [])]
    promoters = None
    if any(name.startswith(BY_CODE) for name in names):  # which are tried on sequences of that length
        promoters = read_promoters(data)
    length = None if promoters is None else promoters.length
    models = open_models(names, weights=model_weights, trust_code=trust_code, length=length)
    network, info = deserialize_ensemble(models)
    outputs = info.outputs_of(targets)
    promoters = read_promoters(data) if promoters is None else promoters
    if info.training.get("loss") == "poisson":
        promoters = observed_in_log_units(promoters)
    require_fitting(promoters, info)
    checksums = {serialized.source: serialized.checksum for serialized in models}
    checksums |= {str(storage.resolve(file)): storage.sha256(file) for file in model_weights or []}
    checksums[str(locate(data))] = promoters.checksum
    return Inputs(models, network, info, promoters, checksums, outputs)


def announce_strands(models: Sequence[SerializedModel], both_strands: bool) -> None:
    """Say which strands the predictions are of, where the models were trained on others or read both themselves.

    Args:
        models: models of the ensemble.
        both_strands: whether the strands are averaged.
    """
    described = [read_description(model.description, model.genes, model.source) for model in models]
    others = [
        (model.source, info.training.get("reverse_complement"))
        for model, (description, info) in zip(models, described, strict=True)
        if not description["architecture"].get("both_strands")
    ]
    if not both_strands:
        if any(probability for _, probability in others):
            console.print(
                "windows are read on one strand, though the model was trained on their reverse complements too; "
                "--both_strands true averages the two",
                style="dim",
            )
        return
    if not others:
        note("`both_strands=True` changes nothing: the network reads both strands itself")
    elif len(others) < len(models):
        note("`both_strands=True`: models that read both strands themselves are run once")
    for source, probability in others:
        if probability is None:
            note(
                f"{source}: does not say whether it was trained on reverse complements, which is taken for granted"
            )
        elif probability == 0:
            doubt(
                f"{source}: was trained without reverse complements, so that its predictions of the other strand, "
                "which `both_strands=True` averages in, mean little"
            )
