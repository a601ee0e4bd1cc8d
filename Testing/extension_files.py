"""The lists of files and requirements that are kept by program; `make lists` writes them anew.

    python Testing/extension_files.py

A module's `CMakeLists.txt` names each of its files, which are those that git knows. Each
`requirements*.txt` names the packages its module needs, with the bounds of `pyproject.toml`: one
file for a run, and one for each set that is asked for when it is first needed. They lie in a folder
named as the module, since Slicer puts the files of all modules into one.
"""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = ("CTSliceTools", "LungNoduleSeg")
PACKAGES = {
    "CTLungScreeningLib": "CTSliceTools",
    "CTLungScreeningSlicer": "CTSliceTools",
    "CTSliceToolsLib": "CTSliceTools",
    "CTSliceToolsSlicer": "CTSliceTools",
    "LungNoduleSegLib": "LungNoduleSeg",
    "LungNoduleSegSlicer": "LungNoduleSeg",
}
"""The packages and the module's folder that each lies in; `…Slicer` need Slicer, `…Lib` do not."""
NOT_INSTALLED = ("CMakeLists.txt", "Scripts/", "Resources/Icons/")
"""What of a module's folder stays at home: work on the models, and sources of icons."""


def module_files(module: str) -> list[str]:
    """Give the files of a module that are installed, relative to its folder.

    Raises:
        CalledProcessError: if this is no git checkout.
    """
    folder = ROOT / module
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    icon = f"Resources/Icons/{module}.png"
    return sorted(
        name
        for name in listed.split("\0")
        if name == icon
        or (name and not name.startswith(NOT_INSTALLED) and (folder / name).is_file())
    )


def with_lists(module: str) -> str:
    """Give the text of a module's `CMakeLists.txt` with its lists as they should be."""
    files = module_files(module)
    scripts = [name for name in files if name.endswith(".py")]
    resources = [name for name in files if name not in scripts]
    text = (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8")
    text = _with_list(text, "MODULE_PYTHON_SCRIPTS", scripts)
    return _with_list(text, "MODULE_PYTHON_RESOURCES", resources)


def _with_list(text: str, name: str, values: list[str]) -> str:
    lines = "".join(f"  {value}\n" for value in values)
    changed, count = re.subn(rf"set\({name}\n.*?\)", f"set({name}\n{lines})", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"there is no list {name}")
    return changed


def requirements_files(module: str) -> list[Path]:
    """Give the requirements files of a module: of a run first, then of the optional sets."""
    return sorted((ROOT / module / "Resources" / module).glob("requirements*.txt"), reverse=True)


def with_bounds(file: Path) -> str:
    """Give the text of a requirements file with the bounds of `pyproject.toml`.

    Raises:
        KeyError: if it names a package that is no dependency of that set there.
    """
    bounds = project_bounds(set_of(file))
    names = dict.fromkeys(package_name(line) for line in requirements(file))
    text = file.read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if line[:1] in ("#", "-")]
    lines = [one for name in names for one in bounds[name]]
    return "\n".join([*kept, *lines, ""])


def requirements(file: Path) -> list[str]:
    """Give the packages that a requirements file names itself."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and line[0] not in "#-"]


def set_of(file: Path) -> str:
    """Give the name of the set in a requirements file: `run`, or an extra of `pyproject.toml`."""
    return file.stem.removeprefix("requirements").removeprefix("-") or "run"


def project_bounds(name: str) -> dict[str, list[str]]:
    """Give the requirements of a set in `pyproject.toml` by the package's name in lower case."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    found = project["dependencies"] if name == "run" else project["optional-dependencies"][name]
    return {
        package_name(one): [other for other in found if package_name(other) == package_name(one)]
        for one in found
    }


def package_name(requirement: str) -> str:
    """Give the name of a requirement in lower case."""
    return re.split(r"[^\w.-]", requirement.strip())[0].lower()


def main() -> None:
    """Write all lists anew."""
    for module in MODULES:
        (ROOT / module / "CMakeLists.txt").write_text(with_lists(module), encoding="utf-8")
        for file in requirements_files(module):
            file.write_text(with_bounds(file), encoding="utf-8")


if __name__ == "__main__":
    main()
