"""Programs for the PATH that outline lobes with the command lines and files of the real ones.

Each divides the lungs of a phantom, which it is told of by an environment variable.
"""

import sys
from pathlib import Path

LUNGS = "TRUE_LUNGS"
"""Environment variable with the file of the phantom's lungs."""

UPPER, LOWER = 0.62, 0.45
"""Relative heights in the lung at which this "anatomy" has the fissures, all of them level."""

CALLED = "CALLED_WITH"
"""Environment variable with a file that gets the arguments of the last call, a line each."""

_LOBES = f"""
import os
import sys
import numpy as np
import SimpleITK as sitk

if "{CALLED}" in os.environ:
    with open(os.environ["{CALLED}"], "w") as file:
        file.write("\\n".join(sys.argv[1:]))

def lobes(scan):
    scan = sitk.ReadImage(scan)
    lungs = sitk.Resample(
        sitk.ReadImage(os.environ["{LUNGS}"]), scan, sitk.Transform(), sitk.sitkNearestNeighbor
    )
    lungs = sitk.DICOMOrient(lungs, "LPS")
    array, found = sitk.GetArrayFromImage(lungs), {{}}
    for side, label in (("right", 1), ("left", 2)):
        lung = array == label
        rows = np.flatnonzero(lung.any(axis=(1, 2)))
        height = (np.arange(len(array)) - rows[0]) / (rows[-1] - rows[0])
        height = height[:, None, None]
        found[side + " upper"] = lung & (height >= {UPPER})
        middle = lung & (height < {UPPER}) & (height >= {LOWER})
        found[side + " middle"] = middle if side == "right" else middle & False
        found[side + " lower"] = lung & (height < ({LOWER} if side == "right" else {UPPER}))
    return found, lungs, scan

def write(array, lungs, orientation, file):
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.CopyInformation(lungs)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), file)
"""

_LUNGMASK = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("input")
parser.add_argument("output")
parser.add_argument("--modelname", choices=["R231", "LTRCLobes", "LTRCLobes_R231"], default="R231")
parser.add_argument("--cpu", action="store_true")
options = parser.parse_args()
found, lungs, scan = lobes(options.input)
print("lungmask", "a line that is no JSON")
if options.modelname == "R231":
    array = 1 * sum(found[k] for k in found if "right" in k) + 2 * sum(
        found[k] for k in found if "left" in k
    )
else:
    order = ["left upper", "left lower", "right upper", "right middle", "right lower"]
    array = sum(found[name] * number for number, name in enumerate(order, 1))
write(array, lungs, "LPS", options.output)
"""

_TOTALSEGMENTATOR = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("-i", dest="input", required=True)
parser.add_argument("-o", dest="output", required=True)
parser.add_argument("-rs", "--roi_subset", nargs="+")
parser.add_argument("-d", "--device", default="gpu", choices=["gpu", "cpu", "mps"])
options = parser.parse_args()
found, lungs, scan = lobes(options.input)
folder = pathlib.Path(options.output)
folder.mkdir(exist_ok=True)
for name in options.roi_subset:
    _, lobe, _, side = name.split("_")
    write(found[f"{side} {lobe}"], lungs, "RAS", folder / f"{name}.nii.gz")
"""

_PROGRAMS = {"lungmask": _LUNGMASK, "TotalSegmentator": _TOTALSEGMENTATOR}


def install(folder: Path, name: str, text: str = "") -> None:
    """Put a program into a folder; `text` is what it does instead of outlining lobes."""
    file = folder / name
    file.write_text(f"#!{sys.executable}\n{text or _LOBES + _PROGRAMS[name]}", encoding="utf-8")
    file.chmod(0o755)
