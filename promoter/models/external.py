"""Networks of other code: what makes a user's `nn.Module` a network of this package.

A function of the user's, named as `package.module:function`, returns an `nn.Module` from one-hot (batch, 4,
length) to (batch, targets), or an `ExternalModel` that says more about it. Three small functions, and `chain`,
which puts them after one another, suit the outputs that networks of this field have:

    ExternalModel(BPNet(), length=2114, targets=["counts"], output=select_head(1))

Shapes: B sequences, L bases, T targets.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from promoter.errors import InputError, doubt, listed
from promoter.models.code import ModelCode, importable, reason_of, stray_modules
from promoter.models.config import ExternalConfig
from promoter.models.trainable import TrainableNetwork, device_of, dtype_of
from promoter.sequence import BASES, one_hot


class _Code(TypedDict):
    sha256: str
    packages: dict[str, str]
    sources: dict[str, str]


class _Entry(TypedDict):
    factory: str
    arguments: dict[str, int]
    n_targets: int
    rescaled: bool
    code: _Code


_BUILT: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # layers of the networks that live
_SAME = 1e-3  # of the largest prediction: more is not rounding


class ExternalModel(TrainableNetwork):
    """A user's network: one-hot (batch, 4, length) in the order ACGT -> predictions (batch, targets).

    Args:
        module: the user's network, which takes one-hot (batch, 4, length).
        length: length in bases of the sequences that it takes; None (the default) for any.
        targets: names of its outputs; None (the default): output_1, output_2, ...
        bases: the four bases in the order of the network's channels (default ACGT).
        output: function that makes (batch, targets) of what the network returns; None (the default): it returns
            that.
    """

    trains_batch_norms: ClassVar[bool] = True

    def __init__(
        self,
        module: nn.Module,
        *,
        length: int | None = None,
        targets: Sequence[str] | None = None,
        bases: str = BASES,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise InputError(f"ExternalModel: wants an nn.Module, not {type(module).__name__}")
        if sorted(bases) != sorted(BASES):
            raise InputError(f"ExternalModel(bases={bases!r}): must be the letters of {BASES} in some order")
        if length is not None and (not isinstance(length, int) or length < 1):
            raise InputError(f"ExternalModel(length={length!r}): must be a whole number of bases, at least 1")
        if targets is not None:
            targets = [targets] if isinstance(targets, str) else list(targets)
            if (
                not targets
                or len(set(targets)) < len(targets)
                or not all(isinstance(t, str) and t for t in targets)
            ):
                raise InputError(f"ExternalModel(targets={targets!r}): must be names, each once")
        self.module, self.length, self.bases, self.output = module, length, bases, output
        self.targets = targets
        kind = type(module)
        self.config = ExternalConfig(
            factory=f"{kind.__module__}:{kind.__qualname__}", n_targets=len(targets or [""])
        )
        self.code: ModelCode | None = None
        self.arguments: dict[str, Any] = {}  # that the factory was called with
        self._order = [BASES.index(base) for base in bases]
        self.scale: Tensor | None
        self.shift: Tensor | None
        self.register_buffer("scale", None)
        self.register_buffer("shift", None)

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Map one-hot (batch, 4, length) to predictions (batch, targets)."""
        x_BCL = x_BCL.to(dtype_of(self.module, x_BCL.dtype))
        if self.bases != BASES:
            x_BCL = x_BCL[:, self._order]
        predicted = self.module(x_BCL)
        if self.output is not None:
            predicted = self.output(predicted)
        y_BT = _as_table(predicted, x_BCL.shape[0])  # len() would fix the batch for tangermeme
        return y_BT if self.scale is None or self.shift is None else y_BT * self.scale + self.shift

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the parameters that are not frozen."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": learning_rate}]

    @torch.no_grad()
    def rescale_output(self, mean: Sequence[float] | Tensor, sd: Sequence[float] | Tensor) -> None:
        """Let the output be `output * sd + mean`, per target: from standardised to original units."""
        device = device_of(self.module)
        sd, mean = (torch.as_tensor(values, dtype=torch.float32, device=device) for values in (sd, mean))
        if self.scale is None or self.shift is None:
            self.scale, self.shift = sd.clone(), mean.clone()
        else:
            self.scale, self.shift = self.scale * sd, self.shift * sd + mean

    def name_outputs(self, targets: Sequence[str]) -> None:
        """Set the names of the outputs, and their number."""
        self.targets = list(targets)
        self.config = replace(self.config, n_targets=len(targets))

    def describe(self) -> dict[str, Any]:
        """Return the architecture's entry in `model.yaml`: the code and how it was called."""
        if self.code is None:
            raise ValueError("an ExternalModel without code cannot be saved; build it by build_external")
        return {
            "name": "external",
            "factory": self.code.factory,
            "arguments": self.arguments,
            "n_targets": self.config.n_targets,
            "rescaled": self.scale is not None,
            "code": {name: getattr(self.code, name) for name in ("sha256", "packages", "sources")},
        }


def select_head(head: Hashable) -> Callable[[Any], Tensor]:
    """Return an `output` that takes one of several tensors that a network returns.

    Args:
        head: its number in a tuple or list, from 0, or its key in a mapping.
    """
    return lambda outputs: outputs[head]


def sum_bins(axis: int = -1) -> Callable[[Tensor], Tensor]:
    """Return an `output` that sums the positions of a profile.

    Args:
        axis: axis of the positions: the last (default) of (batch, tracks, bins), 1 of (batch, bins, tracks).
    """
    return lambda profile: profile.sum(dim=axis)


def log_counts(pseudocount: float = 1.0) -> nn.Module:
    """Return an `output` that takes the natural logarithm of counts.

    Args:
        pseudocount: number added to each count before (default 1).
    """
    return _LogCounts(pseudocount)


def chain(*steps: Callable[[Any], Any]) -> nn.Module:
    """Return an `output` that applies functions one after another, the first one first.

    Args:
        steps: the functions; one that is not linear is better an `nn.Module`, by which DeepLIFT finds its rules.
    """
    return _Chain(steps)


class _LogCounts(nn.Module):
    """Takes the logarithm of counts; a module, for which DeepLIFT has a rule."""

    def __init__(self, pseudocount: float) -> None:
        super().__init__()
        self.pseudocount = pseudocount

    def forward(self, counts: Tensor) -> Tensor:
        return torch.log(counts + self.pseudocount)


class _Chain(nn.Module):
    """Applies functions, of which those that are modules are its own."""

    def __init__(self, steps: Sequence[Callable[[Any], Any]]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.parts = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))

    def forward(self, outputs: Any) -> Any:
        for step in self.steps:
            outputs = step(outputs)
        return outputs


def build_external(code: ModelCode, **arguments: Any) -> ExternalModel:
    """Call the factory of a network.

    Args:
        code: the code with the factory.
        arguments: what the factory is called with: nothing for a finished network, `length` and `n_targets` for
            one that is to be trained.

    Raises:
        InputError: the code cannot be imported, the factory fails, or what it returns is no network.
    """
    before = set(sys.modules)
    with importable(code.sources):  # which the function may import from when it is called
        factory = code.load()
        try:
            made = factory(**arguments)
        except InputError as error:
            raise InputError(f"{code.factory}: {error}") from error
        except Exception as error:  # whatever the user's code raises
            raise InputError(
                f"{code.factory}: failed ({reason_of(error)}); it is called on every node, so files that it reads "
                "must be there, by absolute paths"
            ) from error
        if strays := stray_modules(before):
            raise InputError(
                f"{code.factory}: imports {listed(strays, 3)} by other means than an import statement, so that it "
                "would not travel; write an import, or install it on all nodes"
            )
    if not isinstance(made, nn.Module):
        raise InputError(f"{code.factory}: returned {type(made).__name__}, not an nn.Module")
    model = made if isinstance(made, ExternalModel) else ExternalModel(made)
    layers = [one for one in model.module.modules() if next(one.parameters(recurse=False), None) is not None]
    if any(layer in _BUILT for layer in layers):
        raise InputError(
            f"{code.factory}: returns the same layers each time, so that networks with different weights would "
            "share them; build a new network in each call"
        )
    _BUILT.update(layers)
    model.code, model.arguments = code, arguments
    model.config = replace(model.config, factory=code.factory)
    return model.eval()


def rebuild_external(entry: Mapping[str, Any], targets: Sequence[str]) -> ExternalModel:
    """Build the network of a description, its weights still to be loaded.

    Args:
        entry: what `ExternalModel.describe` returned.
        targets: names of its outputs.

    Raises:
        InputError: the entry is damaged, or as for `build_external`.
    """
    from promoter.storage.schema import checked  # noqa: PLC0415 # what builds and trains networks needs torch alone

    known = checked(entry, _Entry, "architecture", "copy it again")
    model = build_external(ModelCode(known["factory"], **known["code"]), **known["arguments"])
    model.name_outputs(targets)
    if known["rescaled"]:
        model.rescale_output([0.0] * len(targets), [1.0] * len(targets))
    return model


@torch.no_grad()  # not inference mode, whose tensors a network may keep and then use for gradients
def examine(model: ExternalModel, tokens_NL: Tensor, *, drawn: bool = False) -> int:
    """Run a network on some sequences, and return its number of outputs.

    Args:
        model: the network.
        tokens_NL: three or more different sequences, uint8.
        drawn: True for weights that are still to be trained, which may predict the same for all sequences; False,
            the default, doubts those that do.

    Raises:
        InputError: it fails, returns something else than numbers (batch, targets), or predicts something else for
            a sequence beside others, or the second time.
    """
    name = _name(model)
    length = tokens_NL.shape[1]
    odd = [key for key, value in model.state_dict().items() if not isinstance(value, Tensor)]
    if odd:
        raise InputError(
            f"{name}: keeps {listed(odd, 3)}, which is no tensor and cannot be saved with the weights"
        )
    x_NCL = one_hot(tokens_NL)
    model.eval()
    try:
        first_NT, alone_1T, again_NT = model(x_NCL), model(x_NCL[:1]), model(x_NCL)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:
        raise InputError(f"{name}: fails at sequences of {length:,} bases ({reason_of(error)})") from error
    if not bool(torch.isfinite(first_NT).all()):
        raise InputError(f"{name}: predicts what is not a finite number")
    largest = float(first_NT.abs().max())
    if float((first_NT - again_NT).abs().max()) > _SAME * largest:
        raise InputError(f"{name}: predicts something else each time, in evaluation mode too")
    if float((first_NT[:1] - alone_1T).abs().max()) > _SAME * largest:
        raise InputError(f"{name}: what it predicts for a sequence depends on the others in the batch")
    if not drawn and bool((first_NT == first_NT[:1]).all()):
        doubt(f"{name}: predicts {float(first_NT[0, 0]):g} for different sequences; its weights may not be loaded")
    return first_NT.shape[1]


@torch.no_grad()
def require_complete(model: ExternalModel, tokens_NL: Tensor) -> None:
    """Raise InputError if the network, built anew with the same `state_dict`, predicts something else.

    Args:
        model: the network, as `build_external` returned it, with its weights.
        tokens_NL: some sequences, uint8.
    """
    if model.code is None:
        return
    with torch.random.fork_rng(devices=[]):
        torch.random.seed()
        again = build_external(model.code, **model.arguments)
    again.load_state_dict(model.state_dict())
    x_NCL = one_hot(tokens_NL)
    expected_NT = model.eval()(x_NCL)
    if float((again(x_NCL) - expected_NT).abs().max()) > _SAME * float(expected_NT.abs().max()):
        raise InputError(
            f"{_name(model)}: has weights that its state_dict does not hold, such as layers in a list or tensors "
            "that are no buffers, so it would be another network on each node; use nn.ModuleList, register_buffer"
        )


def _name(model: ExternalModel) -> str:
    return model.code.factory if model.code else "ExternalModel"


def _as_table(predicted: Any, batch: int) -> Tensor:
    """Return predictions as (batch, targets), or raise InputError that says what there is instead."""
    fix = "give ExternalModel(output=...) a function that makes (batch, targets) of it"
    if not isinstance(predicted, Tensor):
        kind = type(predicted).__name__
        heads = f" of {len(predicted)}" if isinstance(predicted, list | tuple | dict) else ""
        raise InputError(f"returns a {kind}{heads}, not a tensor", fix=f"{fix}, such as select_head(0)")
    if not predicted.is_floating_point():
        raise InputError(f"returns {predicted.dtype}, not floating-point numbers", fix=fix)
    if predicted.ndim == 0 or predicted.shape[0] != batch:
        raise InputError(f"returns shape {tuple(predicted.shape)} for {batch} sequences", fix=fix)
    if predicted.ndim == 1:
        return predicted[:, None]
    if predicted.shape[2:].numel() != 1:
        example = "sum_bins()" if predicted.ndim == 3 else "a function"
        raise InputError(
            f"returns shape {tuple(predicted.shape)} for {batch} sequences", fix=f"{fix}, such as {example}"
        )
    return predicted.flatten(1)
