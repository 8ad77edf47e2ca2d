"""Keep fitted baselines with a model, in `baselines.safetensors`, to compare with on other data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from promoter import storage
from promoter.baselines import baseline_order
from promoter.checkpoint import KEPT_BASELINES
from promoter.errors import InputError
from promoter.storage import AnyPath
from promoter.storage.parsing import parse_json

_FORMAT = "1"  # of the file of coefficients


def save_baselines(folder: AnyPath, coefficients: Mapping[str, np.ndarray], checksum: str, length: int) -> None:
    """Write `baselines.safetensors` into a model directory.

    Args:
        folder: path of the model directory.
        coefficients: name -> coefficients, as `fit_coefficients` returns them.
        checksum: checksum of the model, which `load_baselines` asks for.
        length: number of bases of the sequences that they were fitted to.
    """
    tensors = {name: np.ascontiguousarray(values) for name, values in coefficients.items()}
    metadata = {"format": _FORMAT, "model": checksum, "length": str(length)}
    content = _in_order(safetensors.numpy.save(tensors, metadata | {"sha256": _digest(tensors, metadata)}))
    with storage.open_atomic(storage.resolve(folder) / KEPT_BASELINES) as file:
        file.write(content)


def _in_order(content: bytes) -> bytes:
    """Return safetensors with the entries of the metadata in order, which safetensors writes in any."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return content[:8] + text.ljust(size) + content[8 + size :]


def load_baselines(folder: AnyPath, checksum: str, length: int) -> dict[str, np.ndarray]:
    """Read what `save_baselines` wrote; nothing if there is no such file, or it is for other lengths.

    Args:
        folder: path of the model directory.
        checksum: checksum of the model.
        length: number of bases of the sequences to predict.

    Returns:
        Name -> coefficients, in the order of `BASELINES`.

    Raises:
        InputError: the file is damaged, of another format version, or of another model.
    """
    path = storage.resolve(folder) / KEPT_BASELINES
    if not path.exists():
        return {}
    content = storage.require_file(path, "file of baselines").read_bytes()
    try:
        coefficients = safetensors.numpy.load(content)
        size = int.from_bytes(content[:8], "little")  # of the header, which safetensors.numpy.load does not return
        metadata = parse_json(content[8 : 8 + size], path).get("__metadata__", {})
    except (SafetensorError, KeyError) as error:  # numpy lacks some types of the format
        raise InputError(f"{path}: is damaged ({error}); copy the whole model directory again") from error
    if any(values.ndim != 2 for values in coefficients.values()):  # features and targets
        raise InputError(f"{path}: is damaged (not all are tables); copy the whole model directory again")
    if metadata.get("sha256") not in {None, _digest(coefficients, metadata)}:
        raise InputError(f"{path}: is damaged (its SHA-256 differs); copy the whole model directory again")
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{path}: has format {metadata.get('format')}, this version reads {_FORMAT}; train again")
    if metadata.get("model") != checksum:
        raise InputError(f"{path}: holds baselines of another model; copy the whole model directory again")
    if metadata.get("length") != str(length):
        return {}
    return {name: coefficients[name] for name in sorted(coefficients, key=baseline_order)}


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of tensors and metadata, without the entry of the metadata that holds it."""
    digest = hashlib.sha256(
        json.dumps({k: v for k, v in metadata.items() if k != "sha256"}, sort_keys=True).encode()
    )
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {values.dtype} {values.shape} ".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
