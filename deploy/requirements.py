"""Print the dependencies of pyproject.toml, with those of some extras, for `pip install -r`.

Nodes of a cluster get the dependencies alone: the project's code comes with each job (`--working-dir .`), and an
installed copy beside it would go stale.

    python requirements.py pyproject.toml s3 gcs
"""

import sys
import tomllib  # of Python 3.11, as the images have
from pathlib import Path

path, *extras = sys.argv[1:]
project = tomllib.loads(Path(path).read_text())["project"]
groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
print("\n".join(sorted({requirement for group in groups for requirement in group})))
