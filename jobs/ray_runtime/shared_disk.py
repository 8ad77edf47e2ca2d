"""Refuse an output folder on a disk that only some nodes see.

Nothing is concluded from the kind of path or the names of hosts: the driver writes a file, and other nodes look
for it. So a shared disk passes, and so do several nodes on one machine. `require_shared` asks every node that is
alive before any work begins; `require_same_disk` asks the same within a task, for nodes that join later.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from upath import UPath

from promoter import storage
from promoter.errors import InputError, listed
from promoter.storage import AnyPath

_LOOKS, _SECONDS_BETWEEN_LOOKS = 5, 0.5  # a file on a shared disk may show late on another node
_MAX_NAMED = 3  # nodes named in the message


def require_shared(out: AnyPath) -> None:
    """Raise InputError if a node that is alive does not see a local output folder, to which its workers write.

    Args:
        out: output folder of the job; it must be writable. One in a bucket passes.

    Raises:
        InputError: names the nodes.
    """
    out_dir = storage.resolve(out)
    this_node = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != this_node]
    if not storage.is_local(out_dir) or not others:
        return
    with storage.probe_file(out_dir) as probe:
        look: Any = ray.remote(num_cpus=0, max_retries=0)(_sees)
        answers = []  # hosts and addresses may be the same: several nodes on one machine
        for node in others:
            on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            answers.append((name, look.options(scheduling_strategy=on_node).remote(str(probe))))
        blind = []
        for name, answer in answers:
            try:
                if not ray.get(answer):
                    blind.append(name)
            except RayError:  # lost meanwhile; its tasks will go elsewhere
                continue
    if blind:
        raise _not_shared(out_dir, listed(blind, _MAX_NAMED))


def require_same_disk(mark: AnyPath) -> None:
    """Raise InputError, in a task, if this node does not see a file that the driver has written.

    Args:
        mark: path of that file, in the output folder.

    Raises:
        InputError: names this node.
    """
    path = storage.resolve(mark)
    if storage.is_local(path) and not _sees(str(path)):
        raise _not_shared(path.parent, socket.gethostname())


def _not_shared(out_dir: UPath, nodes: str) -> InputError:
    return InputError(
        f"--out {out_dir}: is a local path that other nodes of the cluster do not see: {nodes}; give an address "
        "such as s3://BUCKET/FOLDER, or a folder on a disk that all nodes share"
    )


def _sees(path: str) -> bool:
    for _ in range(_LOOKS):
        if os.path.exists(path):  # noqa: PTH110 # Path.exists raises where a folder may not be entered
            return True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return False
