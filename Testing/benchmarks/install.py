"""What a run installs: how many packages, and how many MB they take.

    python Testing/benchmarks/install.py

They are installed into a new environment in a temporary folder, from wheels, as the panel's first
Apply does in Slicer, and our commands are called there. Slicer 5.12 brings some of them.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]

SLICER = {"highdicom", "numpy", "pillow", "pydicom", "pyjpegls", "scipy", "simpleitk"}
"""Packages of the set that Slicer 5.12 brings; highdicom with what it needs."""

LIST = """
from importlib.metadata import distributions

for one in distributions():
    files = one.files or []
    size = sum(path.stat().st_size for path in map(one.locate_file, files) if path.is_file())
    print(one.name.lower(), size)
"""

with tempfile.TemporaryDirectory() as name:
    environment = Path(name) / "environment"
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def sizes() -> dict[str, int]:
        """Bytes of each package that is installed."""
        listing = subprocess.run([python, "-c", LIST], check=True, capture_output=True, text=True)
        return {line.split()[0]: int(line.split()[1]) for line in listing.stdout.splitlines()}

    before = sizes()
    install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", str(ROOT)]
    subprocess.run([*install, "--no-binary", "ctlungscreening"], check=True)
    packages = {key: size for key, size in sizes().items() if key not in before}
    own = packages.pop("ctlungscreening")
    for key, size in sorted(packages.items(), key=lambda one: -one[1])[:8]:
        print(f"{key:<24}{size / 1e6:8.1f} MB")
    in_slicer = {key: size for key, size in packages.items() if key not in SLICER}
    for what, chosen in (("all that a run needs", packages), ("beyond Slicer 5.12", in_slicer)):
        print(f"{what}: {len(chosen)} packages, {sum(chosen.values()) / 1e6:.0f} MB")
    print(f"this package itself: {own / 1e6:.0f} MB")
    for module in ("LungNoduleSegLib", "CTSliceToolsLib"):
        subprocess.run([python, "-m", module, "--help"], check=True, stdout=subprocess.DEVNULL)
    heavy = {"tensorflow", "keras", "jax", "torch", "xgboost", "scikit-learn", "pandas"}
    print(
        "of",
        ", ".join(sorted(heavy)),
        "there are:",
        ", ".join(sorted(heavy & {*packages})) or "none",
    )
