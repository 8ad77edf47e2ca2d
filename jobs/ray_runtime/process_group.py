"""How Ray Train's workers find each other, without a listener that the network can reach at any address.

Ray's `TorchConfig` has PyTorch's TCP store listen on all interfaces. Here one worker starts nothing, those of one
node meet in a file, and those of several in a TCP store on the address of the first worker's node alone.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from typing import Any

import ray
import torch.distributed as dist
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend
from ray.train.torch import TorchConfig
from torch.distributed import FileStore, TCPStore  # pyright: ignore[reportPrivateImportUsage] # documented so

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
_kept: list[Any] = []  # in the first worker: what must live as long as the process group


class PrivateTorchConfig(TorchConfig):
    """Configuration for `TorchTrainer` whose workers meet in private."""

    @property
    def backend_cls(self) -> Any:
        """The class that connects the workers."""
        return _PrivateBackend


class _PrivateBackend(Backend):
    share_cuda_visible_devices = True  # as nccl needs it

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Connect the workers, if there are several; this runs in Ray Train's controller."""
        if (size := len(worker_group)) == 1:
            return
        nodes = set(worker_group.execute(lambda: ray.get_runtime_context().get_node_id()))
        meeting = worker_group.execute_single(0, _open_store, len(nodes) == 1, size)
        options = {"backend": backend_config.backend, "timeout": timedelta(seconds=backend_config.timeout_s)}
        ray.get([worker_group.execute_single_async(i, _join, meeting, i, size, **options) for i in range(size)])

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Disconnect the workers."""
        with suppress(GetTimeoutError):
            ray.get(worker_group.execute_async(_leave), timeout=5)  # a worker that is lost never answers


def _open_store(one_node: bool, size: int) -> str | tuple[str, int]:
    """Return the file in which the workers of one node meet; of several, host and port of a store."""
    if one_node:
        folder = tempfile.TemporaryDirectory(prefix="promoter-workers-")  # only its owner may enter
        _kept.append(folder)
        return f"{folder.name}/store"
    host = ray.util.get_node_ip_address()
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listener.getsockname()[1]
    _kept.append(TCPStore(host, port, size, True, wait_for_workers=False, master_listen_fd=listener.detach()))
    return host, port


def _join(meeting: str | tuple[str, int], rank: int, size: int, **options: Any) -> None:
    if isinstance(meeting, str):
        os.environ.update(GLOO_SOCKET_IFNAME=_LOOPBACK, NCCL_SOCKET_IFNAME=_LOOPBACK)
        store = FileStore(meeting, size)
    else:
        store = _kept[-1] if rank == 0 else TCPStore(*meeting, size, False)
    dist.init_process_group(store=store, rank=rank, world_size=size, **options)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
    _kept.clear()
