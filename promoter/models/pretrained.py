"""Pretrained networks (Enformer, Borzoi), fine-tuned: their trunk, the bins at the TSS, and a head of our own.

The trunk is the library's own; of its output the bins around the middle of the window are kept, where the TSS
stands, and averaged. The libraries come with the extra `promoter[pretrained]` and are imported when needed.

Three ways to adapt: `head` leaves the trunk as it is, `lora` adds low-rank matrices to the projections of its
attention (Hu et al. 2021, arXiv:2106.09685), which are merged into them at the end, `full` trains all. The batch
norms keep the statistics that they were pretrained with in all three: a few sequences have none worth taking.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from promoter.errors import InputError
from promoter.models.cnn import evaluating
from promoter.models.precision import full_float32
from promoter.sequence import one_hot, reverse_complement

INSTALL = "pip install -c constraints.txt -e '.[pretrained]'"
_BASES_PER_PASS = 1 << 18  # of the trunk: at the full context one sequence, which keeps a GPU busy by itself
_WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them


@dataclass(frozen=True)
class PretrainedConfig:
    """A pretrained network and how it is fine-tuned.

    Args:
        name: which one.
        weights: name on the Hugging Face hub, or folder in its layout (config.json and the weights); by default
            the library's own.
        revision: of the hub's files: a commit, a tag or a branch.
        adapt: head trains the head alone, on embeddings that are computed once; lora adds low-rank matrices to the
            attention; full trains all weights.
        tss_bins: bins of the trunk's output around the TSS whose mean is the embedding; 128 bases each in
            Enformer, 32 in Borzoi.
        head: linear, or mlp with a hidden layer.
        hidden: units of the hidden layer of an mlp.
        dropout: probability that an input of the head, of an mlp a hidden unit, is left out in training.
        lora_rank: rank of the matrices of lora.
        layer_decay: with full, the factor by which the learning rate falls from each block to the one below it;
            the head has the whole rate.
        n_targets: outputs; jobs.train takes their number from the data.
    """

    name: Literal["enformer", "borzoi"] = "enformer"
    weights: str | None = None
    revision: str | None = None
    adapt: Literal["head", "lora", "full"] = "head"
    tss_bins: int = 4
    head: Literal["linear", "mlp"] = "linear"
    hidden: int = 32
    dropout: float = 0.3
    lora_rank: int = 8
    layer_decay: float = 0.9
    n_targets: int = 1

    def __post_init__(self) -> None:
        """Refuse values that make no network."""
        choices = {
            "name": tuple(ARCHITECTURES),
            "adapt": ("head", "lora", "full"),
            "head": ("linear", "mlp"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"model: {name} {getattr(self, name)} is not one of {', '.join(known)}")
        for name in ("tss_bins", "hidden", "lora_rank", "n_targets"):
            if getattr(self, name) < 1:
                raise InputError(f"model: {name} {getattr(self, name)} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"model: dropout {self.dropout} must be at least 0 and below 1")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"model: layer_decay {self.layer_decay} must be above 0 and at most 1")

    @property
    def architecture(self) -> Architecture:
        """What is known of it."""
        return ARCHITECTURES[self.name]

    @property
    def source(self) -> str:
        """Where the weights are from."""
        return self.weights or self.architecture.hub

    def outside(self, length: int) -> int:
        """Return how many of a window's first bases the network does not see: none."""
        return 0


class Trunk(NamedTuple):
    """A library's network without its outputs.

    Attributes:
        module: one-hot (batch, 4, length) -> (batch, tss_bins, dim).
        blocks: its parts in order, which together hold all of its parameters.
        dim: of an embedding.
    """

    module: nn.Module
    blocks: Sequence[nn.Module]
    dim: int


class Architecture(NamedTuple):
    """What is to be known of a pretrained network before it is loaded.

    Attributes:
        library: (module, class) of the network; the class has a `config_class` and `from_pretrained`.
        hub: name of its weights on the Hugging Face hub.
        context: bases that it was trained on.
        bin_width: bases of a bin of its output.
        build: (class, configuration, length, bins) -> its trunk, with weights still to be loaded.
        of_trunk: what the names of the trunk's weights begin with, in the library's class, before and after.
        attention: names of the linear maps that lora adds to.
        unsaid: (config.json, source, folder) -> settings of the library's configuration that config.json may lack.
    """

    library: tuple[str, str]
    hub: str
    context: int
    bin_width: int
    build: Callable[[Any, dict[str, Any], int, int], Trunk]
    of_trunk: tuple[str, ...]
    attention: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out", "Wqkv", "out_proj")  # the last two: flash
    unsaid: Callable[[Mapping[str, Any], str, Path], dict[str, Any]] = lambda said, source, folder: {}

    @property
    def step(self) -> int:
        """A window's bases are a multiple of this: an even number of the coarsest cells, the TSS between two."""
        return 256

    def cls(self) -> Any:
        """Import the library's class.

        Raises:
            InputError: it is not installed.
        """
        try:
            return getattr(importlib.import_module(self.library[0]), self.library[1])
        except ImportError as error:
            raise InputError(
                f"{self.library[0]} cannot be imported ({error}); pretrained networks need an extra: {INSTALL}"
            ) from error


@dataclass(frozen=True, eq=False)
class PackedTrunk:
    """The weights of a trunk, to be sent to another process.

    Attributes:
        config: of the library's class.
        weights: as safetensors.
        source: hub name or folder.
        revision: commit on the hub; None for a folder.
        sha256: of the file of weights that they are from.
    """

    config: dict[str, Any]
    weights: bytes
    source: str
    revision: str | None
    sha256: str

    def __eq__(self, other: object) -> bool:
        """Tell whether both are of the same file."""
        return isinstance(other, PackedTrunk) and self.sha256 == other.sha256 and self.config == other.config

    def __hash__(self) -> int:
        """Return a hash that does not read the weights."""
        return hash(self.sha256)

    @property
    def origin(self) -> dict[str, Any]:
        """What `model.yaml` says of the trunk."""
        return {name: getattr(self, name) for name in ("source", "revision", "sha256", "config")}

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of configuration and weights."""
        text = json.dumps(self.config, sort_keys=True).encode()
        return hashlib.sha256(hashlib.sha256(text).digest() + self.weights).hexdigest()


class PretrainedHead(nn.Module):
    """From embeddings (batch, dim) to predictions (batch, targets)."""

    def __init__(self, config: PretrainedConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        # the scale of an embedding's entries is the network's affair, not the user's: brought to order 1 here
        self.norm = nn.LayerNorm(dim)
        if config.head == "linear":
            layers: list[nn.Module] = [nn.Dropout(config.dropout)]
            last = nn.Linear(dim, config.n_targets)
        else:
            layers = [nn.Linear(dim, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            last = nn.Linear(config.hidden, config.n_targets)
        self.layers = nn.Sequential(*layers)
        self.last = last

    def forward(self, embeddings_BD: Tensor) -> Tensor:
        """Map embeddings to predictions."""
        return self.last(self.layers(self.norm(embeddings_BD)))

    @torch.no_grad()
    def rescale_output(self, mean: Sequence[float] | Tensor, sd: Sequence[float] | Tensor) -> None:
        """Fold `output * sd + mean`, per target, into the last layer: from standardised to original units."""
        weight, bias = self.last.weight, self.last.bias
        scale, shift = (torch.as_tensor(v, dtype=bias.dtype, device=bias.device) for v in (sd, mean))
        weight.mul_(scale[:, None])
        bias.mul_(scale).add_(shift)


class PretrainedModel(nn.Module):
    """A pretrained trunk and a head: one-hot (batch, 4, length) -> predictions (batch, targets).

    Args:
        config: which, and how to adapt it.
        trunk: with its weights.
        origin: where these are from, for `model.yaml`.
    """

    def __init__(self, config: PretrainedConfig, trunk: Trunk, origin: Mapping[str, Any]) -> None:
        super().__init__()
        self.config, self.origin = config, dict(origin)
        self.trunk, self.head = trunk.module, PretrainedHead(config, trunk.dim)
        self.blocks = tuple(trunk.blocks)  # a tuple: registered already, as parts of the trunk
        self.adapting = False

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Map one-hot (batch, 4, length) to predictions (batch, targets)."""
        return self.head(self.embed(x_BCL))

    def embed(self, x_BCL: Tensor) -> Tensor:
        """Map one-hot (batch, 4, length) to embeddings (batch, dim): the mean over the bins at the TSS."""
        require_window(self.config, x_BCL.shape[-1])
        return self.trunk(x_BCL).float().mean(dim=1)

    def rescale_output(self, mean: Sequence[float] | Tensor, sd: Sequence[float] | Tensor) -> None:
        """Fold `output * sd + mean`, per target, into the head's last layer."""
        self.head.rescale_output(mean, sd)

    def train(self, mode: bool = True) -> PretrainedModel:
        """Set the mode; the batch norms stay in evaluation mode, as does a trunk that is not trained."""
        super().train(mode)
        if self.config.adapt == "full":
            for module in self.trunk.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        else:
            self.trunk.eval()
        return self

    def begin_adapting(self) -> None:
        """Make ready for training: freeze what stays, add the matrices of lora, forget activations until backward.

        Until `end_adapting` the names of the weights may differ.
        """
        if self.adapting:
            return
        self.adapting = True
        if self.config.adapt != "full":
            self.trunk.requires_grad_(False)
        if self.config.adapt == "lora":
            self.trunk = _with_lora(self.trunk, self.config)
        if self.config.adapt != "head":
            for block in self.blocks:
                _recompute(block)

    def end_adapting(self) -> None:
        """Undo `begin_adapting`; the matrices of lora are added to the weights beside which they stood."""
        if not self.adapting:
            return
        self.adapting = False
        for block in self.blocks:
            block.__dict__.pop("forward", None)
        if self.config.adapt == "lora":
            self.trunk = self.trunk.merge_and_unload(safe_merge=True)  # type: ignore[operator] # of a PeftModel
        self.requires_grad_(True)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return what an optimiser is to train, each group with its learning rate; the head comes first."""
        groups = [{"params": list(self.head.parameters()), "lr": learning_rate}]
        if self.config.adapt != "full":
            rest = [one for one in self.trunk.parameters() if one.requires_grad]
            return groups + ([{"params": rest, "lr": learning_rate}] if rest else [])
        rate = learning_rate
        for block in reversed(self.blocks):
            rate *= self.config.layer_decay
            groups.append({"params": list(block.parameters()), "lr": rate})
        return groups


def require_window(config: PretrainedConfig, length: int, window: Mapping[str, Any] | None = None) -> None:
    """Refuse windows that the network cannot take, or in which the TSS is not in the middle.

    Args:
        config: the network.
        length: of the window.
        window: `upstream` and `downstream`, where they are known.

    Raises:
        InputError: with the `jobs.prepare` that makes a window that fits.
    """
    known = config.architecture
    make = f"python -m jobs.prepare --window {config.name}"
    if length % known.step or not 0 < length <= known.context:
        fitting = min(known.context, max(known.step, round(length / known.step) * known.step))
        raise InputError(
            f"model: {config.name} takes {known.context:,} bases, or fewer in steps of {known.step}, not a "
            f"window of {length:,}; prepare the data by '{make}' or '{make} --context {fitting}'"
        )
    if length < config.tss_bins * known.bin_width:
        raise InputError(
            f"model: tss_bins {config.tss_bins} of {known.bin_width} bases are more than the window's {length:,}; "
            "take fewer, or prepare a wider window"
        )
    if window and window.get("upstream") is not None and window["upstream"] != window["downstream"]:
        raise InputError(
            f"model: {config.name} wants the TSS in the middle of the window, which has {window['upstream']:,} "
            f"bases upstream and {window['downstream']:,} downstream of it; prepare the data by "
            f"'{make} --context {length}'"
        )


def genes_per_pass(length: int, most: int) -> int:
    """Return how many sequences of `length` bases go through the trunk together: a power of two, up to `most`."""
    return max(1, min(most, 1 << max(0, (_BASES_PER_PASS // max(length, 1)).bit_length() - 1)))


def build_model(config: PretrainedConfig, length: int, packed: PackedTrunk) -> PretrainedModel:
    """Build the network with the pretrained weights in its trunk, and a new head.

    Raises:
        InputError: a library that is missing, a window that does not fit, or weights that do not.
    """
    import safetensors.torch  # noqa: PLC0415 # needed where there are weights to load

    model = empty_model(config, length, packed.origin)
    try:
        model.trunk.load_state_dict(safetensors.torch.load(packed.weights))
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{packed.source}: the weights are not those of {config.name} ({reason})") from error
    return model


def empty_model(config: PretrainedConfig, length: int, origin: Mapping[str, Any]) -> PretrainedModel:
    """Build the network as `build_model` does, its weights still to be loaded.

    Args:
        config: the network.
        length: of the window, in bases.
        origin: `config` of the library's class, and where the weights are from.
    """
    require_window(config, length)
    known = config.architecture
    return PretrainedModel(config, known.build(known.cls(), origin["config"], length, config.tss_bins), origin)


def fetch_trunk(config: PretrainedConfig) -> PackedTrunk:
    """Read the weights from a folder, or through the hub's cache from the hub.

    Raises:
        InputError: not there, and how to bring them; or not those of this architecture.
    """
    import safetensors.torch  # noqa: PLC0415 # as above

    from promoter import storage  # noqa: PLC0415 # what reads files brings packages that a network does not need

    known = config.architecture
    cls = known.cls()
    folder, revision = _folder_of(config)
    file = next((folder / name for name in _WEIGHTS_FILES if (folder / name).is_file()), None)
    if file is None or not (folder / "config.json").is_file():
        raise InputError(
            f"--model.weights {config.source}: {folder} must hold config.json and {' or '.join(_WEIGHTS_FILES)}, "
            f"as '{_download(known.hub)}' makes it"
        )
    said = storage.read_json(folder / "config.json")
    kind = said.get("model_type", config.name)
    if kind != config.name:
        raise InputError(
            f"--model.weights {config.source}: holds {kind}, not {config.name}; give --model.name {kind}"
        )
    unsaid = known.unsaid(said, config.source, folder)
    try:
        network, info = cls.from_pretrained(str(folder), output_loading_info=True)
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--model.weights {config.source}: cannot be read ({reason}); fetch it again") from error
    wrong = sorted(name for key in ("missing_keys", "mismatched_keys") for name in map(str, info[key]))
    lost = [name for name in wrong if name.startswith(known.of_trunk)]
    if lost:
        raise InputError(
            f"--model.weights {config.source}: lacks weights of {config.name} ({', '.join(lost[:3])}); "
            "fetch it again"
        )
    settings = _settings(network.config) | unsaid
    trunk = known.build(cls, settings, known.step * -(-config.tss_bins * known.bin_width // known.step), 1).module
    state = {name: tensor.contiguous() for name, tensor in _state_of_trunk(network, trunk).items()}
    return PackedTrunk(settings, safetensors.torch.save(state), config.source, revision, storage.sha256(file))


@torch.inference_mode()
def embed(
    model: PretrainedModel,
    tokens: np.ndarray,
    device: str | torch.device,
    precision: Literal["fp32", "bf16"] = "fp32",
    both_strands: bool = False,
) -> np.ndarray:
    """Compute the embedding of each sequence.

    Args:
        model: on `device`.
        tokens: uint8, shape (N, length).
        device: to compute on.
        precision: fp32 or bf16.
        both_strands: of the reverse complements too.

    Returns:
        float32, shape (N, 1 or 2, dim): of the sequence, and of its reverse complement.
    """
    kind = torch.device(device).type
    size = genes_per_pass(tokens.shape[1], 32)
    found = []
    # full float32 as for predictions: a head must be trained on the embeddings that it will be used on
    with (
        evaluating(model),
        full_float32(),
        torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"),
    ):
        for start in range(0, len(tokens), size):
            some = torch.tensor(tokens[start : start + size], device=device)
            turned = [some, reverse_complement(some)] if both_strands else [some]
            found.append(
                torch.stack([model.embed(one_hot(torch.as_tensor(one))).float() for one in turned], 1).cpu()
            )
    return torch.cat(found).numpy()


# The architectures ------------------------------------------------------------------------------------------


def _enformer(cls: Any, settings: dict[str, Any], length: int, bins: int) -> Trunk:
    """Enformer (Avsec et al. 2021, doi:10.1038/s41592-021-01252-x), by enformer-pytorch: ACGT, N zeros.

    The library encodes distances by the length of its input; here they are encoded as over the context that the
    weights were trained on, whatever the window, since the weights know no other.
    """
    library = importlib.import_module("enformer_pytorch.modeling_enformer")
    settings = dict(settings)
    tf_gamma = settings.pop("use_tf_gamma", False)
    network = cls(cls.config_class(**settings, output_heads={}, use_tf_gamma=False, target_length=-1))
    _alone(network)
    trained = ARCHITECTURES["enformer"].context // ARCHITECTURES["enformer"].bin_width
    cells = length // ARCHITECTURES["enformer"].bin_width
    for module in network.modules():
        if isinstance(module, library.Attention):
            features = library.get_positional_embed(
                trained, module.num_rel_pos_features, torch.device("cpu"), use_tf_gamma=tf_gamma
            )
            module.to_rel_k = _Distances(module.to_rel_k, features, cells, module.pos_dropout.p)
    _, stem, tower, back, transformer, _, pointwise = network.trunk
    # the library's first step turns (batch, length, 4) round, which ours is already; the places keep their numbers
    module = nn.Sequential(nn.Identity(), stem, tower, back, transformer, _Middle(bins), pointwise)
    return Trunk(module, [stem, *tower, *transformer, pointwise], 2 * network.dim)


def _borzoi(cls: Any, settings: dict[str, Any], length: int, bins: int) -> Trunk:
    """Borzoi (Linder et al. 2025, doi:10.1038/s41588-024-02053-6), by borzoi-pytorch: ACGT, N zeros.

    The library fixes the distances of its attention for the whole context; of these the middle is taken.
    """
    network = cls(cls.config_class(**settings, enable_human_head=False, enable_mouse_head=False))
    cells = length // 128  # what the attention sees: a quarter of the bins
    for module in network.modules():
        if isinstance(getattr(module, "positions", None), Tensor):
            # in eager mode or not, transformers leaves buffers that are not saved without values: made here
            module.positions = _middle_distances(module.positions, cells).clone()
    network.crop = _Middle(bins)
    blocks = [
        network.conv_dna,
        *(block for block in network.res_tower if any(True for _ in block.parameters())),
        network.unet1,
        *network.transformer,
        network.horizontal_conv1,
        network.upsampling_unet1,
        network.separable1,
        network.horizontal_conv0,
        network.upsampling_unet0,
        network.separable0,
        network.final_joined_convs,
    ]
    return Trunk(_BorzoiTrunk(network), blocks, network.final_joined_convs[0].conv_layer.out_channels)


def _alone(network: nn.Module) -> None:
    """Make plain batch norms of those that the library lets several processes share: they are not trained.

    DDP refuses the others on CPUs, and they would talk to each other in vain on GPUs.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SyncBatchNorm):
                plain = nn.BatchNorm1d(child.num_features, child.eps, child.momentum)
                plain.load_state_dict(child.state_dict())
                setattr(parent, name, plain)


class _BorzoiTrunk(nn.Module):
    """The library's network up to its outputs, bins before channels."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCL: Tensor) -> Tensor:
        x_BDN = self.network.get_embs_after_crop(x_BCL)
        return self.network.final_joined_convs(x_BDN).transpose(1, 2)


class _Middle(nn.Module):
    """Keeps the bins in the middle of (batch, bins, dim): those around the TSS, which begins the second half."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x_BND: Tensor) -> Tensor:
        first = x_BND.shape[1] // 2 - self.bins // 2
        return x_BND[:, first : first + self.bins]


class _Distances(nn.Linear):
    """The keys of relative positions, from features that do not depend on the length of the input."""

    def __init__(self, linear: nn.Linear, features_RF: Tensor, cells: int, dropout: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False)
        self.weight = linear.weight
        self.dropout = dropout
        self.features: Tensor
        self.register_buffer("features", _middle_distances(features_RF, cells).clone(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:  # as of nn.Linear
        return super().forward(F.dropout(self.features, self.dropout, self.training))


def _middle_distances(features_RF: Tensor, cells: int) -> Tensor:
    """Return of the features of the distances -n+1 to n-1 those of -cells+1 to cells-1."""
    middle = features_RF.shape[0] // 2
    return features_RF[middle - cells + 1 : middle + cells]


def _positions_of_enformer(said: Mapping[str, Any], source: str, folder: Path) -> dict[str, Any]:
    """Tell whether the weights are those of TensorFlow, which want the positions of TensorFlow.

    The library goes by the hub's name. A folder of that name is a copy; another must say so in its config.json,
    where the network is as large as those that are published: with the wrong positions it would run, and err.
    """
    official = ARCHITECTURES["enformer"].hub
    if source == official or folder.name == official.rsplit("/", 1)[-1]:
        return {"use_tf_gamma": True}
    published = (said.get("dim"), said.get("depth")) == (1536, 11)
    if published and "use_tf_gamma" not in said and Path(source).is_dir():
        raise InputError(
            f'--model.weights {source}: its config.json must say "use_tf_gamma": true if these are the weights of '
            f"{official} (or name the folder {official.rsplit('/', 1)[-1]}), false if others"
        )
    return {"use_tf_gamma": bool(said.get("use_tf_gamma", False))}


ARCHITECTURES: dict[str, Architecture] = {
    "enformer": Architecture(
        ("enformer_pytorch", "Enformer"),
        "EleutherAI/enformer-official-rough",
        196_608,
        128,
        _enformer,
        ("stem.", "conv_tower.", "transformer.", "final_pointwise."),
        unsaid=_positions_of_enformer,
    ),
    "borzoi": Architecture(
        ("borzoi_pytorch", "Borzoi"),
        "johahi/borzoi-replicate-0",
        524_288,
        32,
        _borzoi,
        (
            "conv_dna.",
            "res_tower.",
            "unet1.",
            "transformer.",
            "horizontal",
            "upsampling",
            "separable",
            "final_joined",
        ),
    ),
}


# Loading ----------------------------------------------------------------------------------------------------


def _download(name: str) -> str:
    return f"hf download {name} --local-dir {name.rsplit('/', 1)[-1]}"


def _folder_of(config: PretrainedConfig) -> tuple[Path, str | None]:
    """Return the folder of the weights and, where it is the hub's, the commit."""
    folder = Path(config.source)
    if folder.is_dir():
        return folder, None
    if config.weights is not None and (folder.is_absolute() or config.weights.count("/") != 1):
        raise InputError(
            f"--model.weights {config.weights}: is neither a local folder nor a name on the hub; give a folder as "
            f"'{_download(config.architecture.hub)}' makes it"
        )
    hub = importlib.import_module("huggingface_hub")
    try:
        found = hub.snapshot_download(
            config.source, revision=config.revision, allow_patterns=["config.json", *_WEIGHTS_FILES]
        )
    except Exception as error:  # network, proxy, hub or cache: each library has errors of its own
        reason = " ".join(str(error).split())[:160]
        local = config.source.rsplit("/", 1)[-1]
        raise InputError(
            f"--model.weights {config.source}: cannot be fetched ({type(error).__name__}: {reason}); with a "
            f"network run '{_download(config.source)}', bring the folder here and give --model.weights {local}"
        ) from error
    return Path(found), Path(found).name


def _settings(found: Any) -> dict[str, Any]:
    """Return those settings of the library's configuration that its class names, without those of its outputs."""
    ours = type(found)()
    names = set(vars(ours)) - set(vars(importlib.import_module("transformers").PretrainedConfig()))
    outputs = {"output_heads", "target_length", "use_checkpointing", "enable_mouse_head", "bins_to_return"}
    outputs |= {"return_center_bins_only", "enable_human_head"}
    return {name: getattr(found, name) for name in sorted((names | {"flashed"}) - outputs) if hasattr(found, name)}


def _state_of_trunk(network: nn.Module, trunk: nn.Module) -> dict[str, Tensor]:
    """Return the weights of the library's network by their names in the trunk."""
    theirs = network.state_dict()
    state = {}
    for name in trunk.state_dict():
        for prefix, other in (("", "_trunk."), ("network.", "")):
            if name.startswith(prefix) and (key := other + name.removeprefix(prefix)) in theirs:
                state[name] = theirs[key]
    return state


# Adapting ---------------------------------------------------------------------------------------------------


def _with_lora(trunk: nn.Module, config: PretrainedConfig) -> nn.Module:
    try:
        peft = importlib.import_module("peft")
    except ImportError as error:
        raise InputError(f"--model.adapt lora: peft cannot be imported ({error}); {INSTALL}") from error
    wanted = peft.LoraConfig(
        r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules=list(config.architecture.attention)
    )
    return peft.get_peft_model(trunk, wanted)


def _recompute(block: nn.Module) -> None:
    """Let a block forget its activations, and compute them once more in backward: memory for time."""
    plain = block.forward

    def forward(*inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return plain(*inputs)
        found: Any = checkpoint(plain, *inputs, use_reentrant=False)
        return found

    block.forward = forward
