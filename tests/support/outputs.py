"""What the files of an output hold, so that two runs can be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from promoter.storage.records import RECORD, Record, read_record

TIMED = ("history.csv", "trials.csv")  # these say how long things took


def content(out: Path) -> dict[str, object]:
    """Return what every file of an output holds, without times and the logs that hold some."""
    files: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_dir() or name.startswith("tensorboard/"):
            continue
        files[name] = path.read_bytes()
        if path.name in TIMED:
            files[name] = pd.read_csv(path).drop(columns=["seconds", "genes_per_second"], errors="ignore").to_csv()
        elif path.name.endswith(RECORD) and (record := read_record(path)):
            files[name] = without_times(record)
    return files


def without_times(record: Record) -> Record:
    def is_equal(name: str) -> bool:
        return not name.endswith(TIMED) and not name.startswith("tensorboard/")

    return replace(record, outputs={name: sum_ for name, sum_ in (record.outputs or {}).items() if is_equal(name)})
