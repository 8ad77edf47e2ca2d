"""`promoter JOB ...`, also as `python -m jobs JOB ...`: start a job, or list all of them."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jobs.cli.explain import did_you_mean
from jobs.cli.run import run
from promoter.labels import shown

_FOLDER = Path(__file__).parent


def main(argv: Sequence[str] | None = None, prog: str = "promoter") -> NoReturn:
    """Run the job that the first word names; without one, list the jobs.

    Args:
        argv: command line without the program's name; `sys.argv` by default.
        prog: how the user started this, for messages; the console command by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_overview(prog))
    elif words[0] == "--version":
        print(f"promoter {importlib.metadata.version('promoter')}")
    elif words[0] in job_summaries():
        job = getattr(importlib.import_module(f"jobs.{words[0]}"), words[0])
        run(job, words[1:], prog=f"{prog} {words[0]}")
    else:
        near = "" if words[0].startswith("-") else did_you_mean(words[0], job_summaries())
        fix = near or f"; '{prog}' lists the jobs"
        print(f"error: there is no job '{shown(words[0])}'{fix}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def job_summaries() -> dict[str, str]:
    """Return the name of each job -> the first sentence of its docstring, which is read without importing the job.

    A job is a file of this folder that defines a function of its own name.
    """
    summaries = {}
    for path in sorted(_FOLDER.glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                summaries[path.stem] = _first_sentence(ast.get_docstring(node) or "")
    return summaries


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return paragraph.partition(". ")[0].rstrip(".") + "."


def _overview(prog: str) -> str:
    summaries = job_summaries()
    width = max(map(len, summaries))
    jobs = "\n".join(f"  {name:{width}}  {summary}" for name, summary in summaries.items())
    return (
        f"usage: {prog} JOB [--help] [settings of the job]\n\njobs:\n{jobs}\n\n"
        f"'{prog} JOB --help' explains the settings of a job; '{prog} --version' prints the version."
    )


if __name__ == "__main__":
    main(prog="python -m jobs")
