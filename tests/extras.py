"""What installing palate with some extras brings, and an interpreter that can import nothing else."""

import textwrap
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

IMPORT_GUARD = """
    # Imported by the interpreter before anything else: what is neither standard library nor listed does not exist.
    import os, sys

    class Guarded:
        allowed = frozenset(os.environ["ALLOWED_MODULES"].split(","))

        def __init__(self, finder):
            self.finder = finder

        def __getattr__(self, name):
            return getattr(self.finder, name)

        def find_spec(self, name, path=None, target=None):
            top = name.partition(".")[0]
            listed = top in sys.stdlib_module_names or top in self.allowed or top.startswith("_sysconfigdata_")
            return self.finder.find_spec(name, path, target) if listed else None

    sys.meta_path[:] = map(Guarded, sys.meta_path)
"""


def distributions_of(extras: set[str]) -> set[str]:
    """Canonical names of everything that installing palate with these extras brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(f"palate[{','.join(extras)}]"), *map(Requirement, project["dependencies"])]
    found: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name == "palate":
            optional = project["optional-dependencies"]
            wanted += [Requirement(line) for extra in requirement.extras for line in optional[extra]]
            continue
        if name in found or not applies(requirement):
            continue
        try:
            wanted += [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue  # a dependency that this environment does without
        found.add(name)
    return found


def applies(requirement: Requirement) -> bool:
    """Whether it is installed on this platform without asking for an extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def modules_of(distributions: set[str]) -> set[str]:
    """Top-level modules that these distributions bring."""
    owners = packages_distributions()
    return {module for module, names in owners.items() if distributions & {canonicalize_name(name) for name in names}}


def guarded(folder: Path, allowed: set[str]) -> dict[str, str]:
    """Variables for an interpreter that imports only these modules, this checkout's and the standard library's."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(IMPORT_GUARD))
    return {"PYTHONPATH": f"{folder}:{ROOT}", "ALLOWED_MODULES": ",".join(sorted(allowed))}
