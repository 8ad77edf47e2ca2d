"""Notices that a node will be taken away, on which a training saves a checkpoint at once."""

from __future__ import annotations

import os
import time

import ray.train
from ray.train.collective import broadcast_from_rank_zero

# Ray Train asks the cluster for notices as often, or as the user has set
_INTERVAL_SECONDS = float(os.environ.get("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "5"))


class PreemptionNotices:
    """Ask, batch by batch, whether a node of this training's workers will be taken away.

    All workers must ask after each batch, and all get the same answer: they agree through the first one, which
    costs two calls to another process. So they do it every few seconds, after a number of batches that the first
    worker tells the others from the time that batches take.
    """

    def __init__(self) -> None:
        self._batches, self._next, self._step = 0, 1, 1
        self._asked = time.monotonic()
        self._nodes: set[str] = set()

    def new(self) -> list[str]:
        """Return the ids of nodes that have been announced to be taken away since the last call; mostly none."""
        self._batches += 1
        if self._batches < self._next:
            return []
        now = time.monotonic()
        fitting = int(_INTERVAL_SECONDS * self._step / max(now - self._asked, 1e-9))
        # at most twice as many as before: a GPU takes its first batches without having computed them
        self._step = broadcast_from_rank_zero(max(1, min(fitting, 2 * self._step)))
        self._asked, self._next = now, self._batches + self._step
        info = ray.train.get_preemption_info()
        new = [] if info is None else [node for node in info.preempted_node_ids if node not in self._nodes]
        self._nodes.update(new)
        return new
