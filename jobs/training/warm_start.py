"""`--init`: the model whose weights a training starts from, what fits it, and what it has already seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from jobs.cli.console import plural
from promoter.checkpoint import EXTERNAL, SerializedModel, deserialize_model, serialize_models
from promoter.dataset.promoters import Promoters
from promoter.errors import InputError, doubt, listed, note
from promoter.model_info import ModelInfo, read_description
from promoter.models.config import CNNConfig, NetworkConfig
from promoter.splits.assign import SplitAssignment
from promoter.training.warm_start import WarmStart

_MAY_DIFFER = {"n_targets", "dropout"}  # settings that change no weight, apart from the head's


@dataclass(frozen=True)
class InitModel:
    """The model, or the models of the folds, that `--init` names.

    Attributes:
        path: what the user gave.
        members: the models by the names of their folds; a single model has the name "".
        infos: their descriptions.
        config: their architecture.
        allow_seen: true to train although a model has learned from genes that are held out here.
    """

    path: str
    members: Mapping[str, SerializedModel]
    infos: Mapping[str, ModelInfo]
    config: CNNConfig
    allow_seen: bool

    def member(self, name: str) -> InitModel:
        """Return the model for the training of this name, alone.

        Raises:
            InputError: there are several models, and none has the name.
        """
        if "" in self.members:
            return self
        if name not in self.members:
            raise InputError(
                f"holds {plural(len(self.members), 'model')} ({listed(list(self.members), 4)})",
                setting="init",
                value=self.path,
                fix=f"give one of them, such as {next(iter(self.members.values())).source}, or train the same "
                "folds and seeds",
            )
        return replace(self, members={"": self.members[name]}, infos={"": self.infos[name]})

    @property
    def inputs(self) -> dict[str, str]:
        """Path of each model -> its SHA-256."""
        return {model.source: model.checksum for model in self.members.values()}

    def network(self, model: NetworkConfig, given: Collection[str], promoters: Promoters) -> CNNConfig:
        """Return the network to train: the model's architecture, for the data's targets.

        Args:
            model: the network that the flags describe.
            given: names of its settings that the user gave.
            promoters: the data set.

        Raises:
            InputError: a setting that was given differs from the model's, or the windows do not fit the model.
        """
        if not isinstance(model, CNNConfig):
            raise InputError(
                f"{self.path} is a promoter_cnn, and the network to train is {model.name}",
                setting="init",
                fix="leave the name of the network out",
            )
        length, ours = promoters.length, self.config
        if ours.for_window(length) != ours:
            raise InputError(
                f"was trained on windows of {self._length} bases; with the data's, of {length}, it would have "
                "another crop or other bins",
                setting="init",
                value=self.path,
                fix=f"prepare windows of {self._length} bases",
            )
        asked = model.for_window(length) if given else model
        for name in sorted(given):
            if name not in _MAY_DIFFER and getattr(asked, name) != getattr(ours, name):
                raise InputError(
                    f"{self.path}, whose weights the training is to start from, has {getattr(ours, name)!r}",
                    setting=f"CNNConfig.{name}",
                    value=getattr(model, name),
                    fix="leave it out: the network is that of the model",
                )
        kept = {name: getattr(model, name) for name in _MAY_DIFFER & set(given)}
        return replace(ours, **{"n_targets": 1, **kept})

    @property
    def _length(self) -> int | None:
        return next(iter(self.infos.values())).window["length"]

    def rows(self, promoters: Promoters) -> list[int | None]:
        """Return for each target the output of the model to start from; None for a new one.

        Targets are the same if their names and the transform of their values are.
        """
        info = next(iter(self.infos.values()))
        if (info.transform or "none") != (promoters.metadata.get("transform") or "none"):
            return [None] * len(promoters.target_names)
        index = {name: row for row, name in enumerate(info.targets)}
        return [index.get(name) for name in promoters.target_names]

    def warm_start(self, promoters: Promoters) -> WarmStart:
        """Return the weights of a single model for the targets of a data set."""
        return WarmStart(self.members[""].weights, self.rows(promoters))

    def seen(self, promoters: Promoters, held_out: SplitAssignment) -> dict[str, int]:
        """Count the genes of each held-out set that a single model has learned from."""
        was = self.infos[""].get_split(promoters.genes.reset_index(drop=True)).to_numpy()
        return {name: int((was[held_out.rows(name)] == "train").sum()) for name in ("val", "test")}

    def require_unseen(self, promoters: Promoters, held_out: SplitAssignment) -> None:
        """Refuse held-out genes that a single model has learned from, or doubt them where that is allowed.

        Raises:
            InputError: there are such genes, and `allow_seen` is false.
        """
        seen = self.seen(promoters, held_out)
        if any(self.infos[""].init.get("held_out_genes_it_learned_from", {}).values()):
            doubt(
                f"`init={self.path!r}`: was itself started from a model that had learned from {promoters.noun}s "
                "held out there; which they were is not known here"
            )
        if not any(seen.values()):
            return
        sets = " and ".join(f"{count:,} of {len(held_out.rows(name)):,} {name}" for name, count in seen.items())
        problem = f"{sets} {promoters.noun}s are in its training set, so they are no test of the new network"
        if self.allow_seen:
            doubt(f"`init={self.path!r}`: {problem}: do not trust metrics of val and test")
            return
        where = "chromosomes" if promoters.located else "sequences"
        known = f" (test: {listed(self.infos[''].split.get('test', []), 5)})" if promoters.located else ""
        raise InputError(
            problem,
            setting="init",
            value=self.path,
            fix=f"hold out the {where} that it held out{known}; promoter predict writes its sets to the column "
            "split; or, if its genome is another one, or no test is wanted, give `allow_seen=True`",
        )

    def describe(self, promoters: Promoters, held_out: SplitAssignment) -> dict[str, Any]:
        """Return what `model.yaml` records about the start from a single model."""
        rows = self.rows(promoters)
        kept = [name for name, row in zip(promoters.target_names, rows, strict=True) if row is not None]
        model = self.members[""]
        return {
            "model": model.source,
            "sha256": model.checksum,
            "targets": kept,
            "held_out_genes_it_learned_from": self.seen(promoters, held_out),
        }

    def extend(self, info: ModelInfo, promoters: Promoters) -> ModelInfo:
        """Return a description that knows, too, what a single model has learned from and the data do not hold.

        So a model that starts from a model that started from another is checked against the genes of all.
        """
        earlier = self.infos[""]
        if earlier.located != info.located:
            return info
        here, known = set(promoters.genes["chrom"]), info.split_of_gene.keys() | set(promoters.genes["gene_id"])
        split = {
            name: [*chroms, *(c for c in earlier.split.get(name, ()) if c not in here)]
            for name, chroms in info.split.items()
        }
        more = {gene: place for gene, place in earlier.split_of_gene.items() if gene not in known and place[1]}
        of_gene = info.split_of_gene
        more |= {  # left out of this training, but not of the earlier one
            gene: place
            for gene, place in earlier.split_of_gene.items()
            if gene in of_gene and of_gene[gene][1] is None and place[1] == "train"
        }
        return replace(info, split=split, split_of_gene={**info.split_of_gene, **more})


def read_init(path: str, allow_seen: bool) -> InitModel:
    """Read the model, or models, to start from.

    Args:
        path: model directory, or folder of a run with folds or seeds.
        allow_seen: true to train although a model has learned from genes that are held out.

    Raises:
        InputError: there is no model, or it is damaged, or not a CNN.
    """
    serialized = serialize_models([path])
    for model in serialized:
        description, _ = read_description(model.description, model.genes, model.source)
        if description["architecture"].get("name") == EXTERNAL:  # whose code is not to run here
            raise InputError(
                "is external; only a promoter_cnn can be started from",
                setting="init",
                value=path,
                fix="let the function of your network load the weights that it is to start from",
            )
    members = {_name(model, serialized): model for model in serialized}
    infos, configs = {}, []
    for name, model in members.items():
        network, infos[name] = deserialize_model(model)
        if not isinstance(network.config, CNNConfig):
            raise InputError(
                f"is {network.config.name}; only a promoter_cnn can be started from",
                setting="init",
                value=path,
                fix="give its pretrained weights by `PretrainedConfig.weights`",
            )
        configs.append(network.config)
    if (
        any(config != configs[0] for config in configs)
        or len({tuple(info.targets) for info in infos.values()}) > 1
    ):
        raise InputError(
            "holds models of several architectures", setting="init", value=path, fix="give one of them"
        )
    return InitModel(path, members, infos, configs[0], allow_seen)


def _name(model: SerializedModel, models: Sequence[SerializedModel]) -> str:
    """Return the name of a model's fold: that of the folder above its `model`; empty if it is the only one."""
    parts = model.source.rstrip("/").split("/")
    return "" if len(models) == 1 else parts[-2] if parts[-1] == "model" else parts[-1]


def note_start(init: InitModel, promoters: Promoters) -> None:
    """Say what the training takes from the model, and what it does not."""
    rows = init.rows(promoters)
    new = [name for name, row in zip(promoters.target_names, rows, strict=True) if row is None]
    if len(new) == len(rows):
        head = "all of the head is new, as it has no target of the same name and transform"
    else:
        head = f"new are the outputs of {listed(new, 5)}" if new else "the head included"
    note(
        f"`init={init.path!r}`: the network starts from its weights, {head}; homologs of what it learned from are "
        "looked for only among the data"
    )
    if init._length != promoters.length:
        note(
            f"`init={init.path!r}`: was trained on windows of {init._length} bases, the data's have "
            f"{promoters.length}"
        )


def given_names(given: Sequence[str], model: NetworkConfig) -> set[str]:
    """Return the names of the CNN's settings that the user gave: by hand, or as values that are no defaults.

    Args:
        given: names of settings as on the command line, such as `model.crop`.
        model: the network that they describe.
    """
    if not isinstance(model, CNNConfig):
        return set()
    names = {name.removeprefix("model.") for name in given if name.startswith("model.")}
    own = {field.name for field in fields(model)}
    return (names & own) | {f.name for f in fields(model) if getattr(model, f.name) != f.default}
