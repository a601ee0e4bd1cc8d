"""The lists of files and requirements that are kept by program; `make lists` writes them anew.

    python Testing/extension_files.py

A module's `CMakeLists.txt` names each of its files, which are those that git knows. Each
`requirements.txt` names the packages its module needs, with the bounds of `pyproject.toml`. It lies
in a folder named as the module, since Slicer puts the files of all modules into one.
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


def requirements_file(module: str) -> Path:
    """Give the `requirements.txt` of a module."""
    return ROOT / module / "Resources" / module / "requirements.txt"


def with_bounds(module: str) -> str:
    """Give the text of a module's `requirements.txt` with the bounds of `pyproject.toml`.

    Raises:
        KeyError: if it names a package that is no dependency there.
    """
    bounds = project_bounds()
    lines = requirements_file(module).read_text(encoding="utf-8")
    return "".join(
        line if line.startswith("#") else f"{bounds[package_name(line)]}\n"
        for line in lines.splitlines(keepends=True)
    )


def project_bounds() -> dict[str, str]:
    """Give the dependencies in `pyproject.toml`, such as `numpy>=2.0`, by name in lower case."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    return {package_name(one): one for one in dependencies}


def package_name(requirement: str) -> str:
    """Give the name of a requirement in lower case."""
    return re.split(r"[^\w.-]", requirement.strip())[0].lower()


def main() -> None:
    """Write all lists anew."""
    for module in MODULES:
        (ROOT / module / "CMakeLists.txt").write_text(with_lists(module), encoding="utf-8")
        requirements_file(module).write_text(with_bounds(module), encoding="utf-8")


if __name__ == "__main__":
    main()
