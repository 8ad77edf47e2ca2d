"""What a user's network must be to be trained, and errors of its code told from others."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from promoter.device_errors import is_device_error, is_out_of_memory
from promoter.errors import InputError, NetworkError, listed, note
from promoter.models.code import ModelCode, reason_of
from promoter.models.external import ExternalModel, build_external, examine, require_complete
from promoter.sequence import one_hot

_DTYPES = (torch.float32, torch.float64)  # a step of Adam is lost in the rounding of smaller ones


def require_learnable(code: ModelCode, tokens_NL: Tensor, targets: Sequence[str]) -> None:
    """Build a user's network as training does, and try it in evaluation mode and for a step of training.

    Says in notes what training does not do to it.

    Args:
        code: its code.
        tokens_NL: three or more sequences, uint8.
        targets: names of the targets that it is to predict.

    Raises:
        InputError: it cannot be built, run or trained, or has another number of outputs.
    """
    name, length = code.factory, tokens_NL.shape[1]
    torch.manual_seed(0)
    model = build_external(code, length=length, n_targets=len(targets))
    if model.length not in (None, length):
        raise InputError(
            f"{name}: takes sequences of {model.length:,} bases, the data has windows of {length:,}; let it take "
            "its argument length, or prepare the data anew"
        )
    _require_weights(model, name)
    outputs = examine(model, tokens_NL, drawn=True)
    if outputs != len(targets):
        raise InputError(
            f"{name}: has {outputs} outputs, the data {len(targets)} targets ({listed(targets)}); let it make as "
            "many as its argument n_targets says"
        )
    if model.targets is not None and model.targets != list(targets):
        note(
            f"{name}: names its outputs {listed(model.targets)}; they are trained on the targets of the data, "
            f"{listed(targets)}, and named so"
        )
    require_complete(model, tokens_NL)
    torch.manual_seed(0)
    again = build_external(code, length=length, n_targets=len(targets)).state_dict()
    drawn = model.state_dict().items()
    if any(key not in again or not torch.equal(tensor, again[key]) for key, tensor in drawn):
        note(
            f"{name}: draws weights by other generators than torch's, so that two trainings with one "
            "`TrainingConfig.seed` differ"
        )
    _require_gradients(model, name, tokens_NL)


def _require_weights(model: ExternalModel, name: str) -> None:
    """Refuse weights that cannot be trained or saved."""
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise InputError(
            f"{name}: has layers without shapes (nn.Lazy…); give them sizes, or run it once in the function"
        )
    trained = {key: weight for key, weight in model.module.named_parameters() if weight.requires_grad}
    if not trained:
        raise InputError(f"{name}: has no parameters to train; let some have requires_grad")
    if wrong := next((key for key, weight in trained.items() if weight.dtype not in _DTYPES), None):
        raise InputError(
            f"{name}: {wrong} is of {trained[wrong].dtype}, in which the steps of training are lost to rounding; "
            "return network.float(), and give `TrainingConfig.precision='bf16'` to compute in half"
        )


def _require_gradients(model: ExternalModel, name: str, tokens_NL: Tensor) -> None:
    """Take the gradients of a batch; note which parameters have none."""
    model.train()
    try:
        model(one_hot(tokens_NL)).sum().backward()
    except InputError as error:
        raise InputError(f"{name}: in training mode {error}") from error
    except Exception as error:  # whatever the user's code raises
        raise InputError(f"{name}: cannot be trained ({reason_of(error)})") from error
    weights = dict(model.module.named_parameters())
    without = [key for key, weight in weights.items() if weight.requires_grad and weight.grad is None]
    if frozen := sum(not weight.requires_grad for weight in weights.values()):
        note(f"{name}: {frozen} of its {len(weights)} weights are frozen, and stay as they are")
    if without:
        note(
            f"{name}: {len(without)} of its {len(weights)} weights have no part in what it predicts, and stay as "
            f"they are ({listed(without, 3)})"
        )


@contextmanager
def explained(code: ModelCode | None) -> Iterator[None]:
    """Within it, what a user's code raises says so: the network, the error and the function that it arose in.

    Errors of other code, and those of a full memory or of a GPU, pass as they are.

    Args:
        code: the code; None (no user's network) changes nothing.

    Raises:
        InputError: the user's code raised it.
        NetworkError: the user's code raised anything else.
    """
    try:
        yield
    except NetworkError:
        raise
    except Exception as error:
        where = None if code is None else _place(code, error)
        if code is None or where is None or is_device_error(error) or is_out_of_memory(error):
            raise
        if isinstance(error, InputError):
            text = str(error).removeprefix(f"{code.factory}: ")
            raise InputError(f"{code.factory}: {text}") from error
        raise NetworkError(f"{code.factory}: failed in {where} ({reason_of(error)})") from error


def _place(code: ModelCode, error: Exception) -> str | None:
    """Return the function of a user's network that an error arose in; None for one that arose elsewhere."""
    tops = {path.partition("/")[0].partition(".")[0] for path in (*code.sources, code.factory.partition(":")[0])}
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        function = frame.f_code
        if frame.f_globals.get("__name__", "").partition(".")[0] in tops:
            place = f"{function.co_name}, line {line} of {function.co_filename.rpartition('/')[2]}"
        elif place is None and function is ExternalModel.forward.__code__:
            place = "a layer"
    return place
