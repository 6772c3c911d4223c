"""Print each declared floor as a pin, for ``pip install -c``."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
declared = [*project["dependencies"], *(item for name in extras for item in extras[name])]
for requirement in declared:
    if found := re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement):
        print(f"{found[1]}=={found[2]}")
