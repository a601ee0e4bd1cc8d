"""Lungs and their lobes from other programs, where the user has installed them.

The scan goes to the program as a NIfTI file, and what it writes comes back onto the scan's grid.
"""

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib.child_process import (
    ChildCommand,
    ChildError,
    module_command,
    program_command,
    run_command,
    temporary_folder,
)
from CTLungScreeningLib.engine import Device
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import image_like, onto_grid
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningLib.reading.volume_files import read_labels
from LungNoduleSegLib.lungs.labels import (
    LEFT_LUNG,
    LOBES,
    RIGHT_LUNG,
    Lobe,
    LungMethod,
    require_lungs,
)


@dataclass(frozen=True)
class LungProgram:
    """A program that outlines the lobes of the lungs.

    Attributes:
        name: of the program that is looked for on the PATH.
        module: what Python runs instead where the package is installed beside this one.
        install: the command that installs it.
        arguments: from the scan's file and the path of the output to the command line's end.
        devices: the arguments that choose a device; the program chooses where there are none.
        output: file or folder, in a folder that is empty, for the program to write.
        labels: the lobe of each value in each file that it writes there.
    """

    name: str
    module: str
    install: str
    arguments: Callable[[str, str], Sequence[str]]
    devices: Mapping[Device, Sequence[str]]
    output: str
    labels: Mapping[str, Mapping[int, Lobe]]

    def command(self, scan: Path, output: Path, device: Device | None = None) -> ChildCommand:
        """Return the command that outlines the lobes in a NIfTI file.

        Args:
            scan: the file.
            output: the file or folder to write.
            device: where its networks run; None for the program's choice, a GPU if there is one.

        Raises:
            InputError: if it is not installed.
        """
        chosen = self.devices.get(device, ()) if device else ()
        arguments = [*self.arguments(str(scan), str(output)), *chosen]
        if importlib.util.find_spec(self.module.partition(".")[0]) is not None:
            return ChildCommand(module_command(self.module, *arguments))
        found = shutil.which(self.name)
        if found is None:
            raise InputError(
                f"{self.name} is not installed: install it with `{self.install}`, or have the "
                "lungs found in another way."
            )
        return program_command(found, *arguments)


_TOTALSEGMENTATOR_CLASSES = {
    "lung_upper_lobe_right": Lobe.RIGHT_UPPER,
    "lung_middle_lobe_right": Lobe.RIGHT_MIDDLE,
    "lung_lower_lobe_right": Lobe.RIGHT_LOWER,
    "lung_upper_lobe_left": Lobe.LEFT_UPPER,
    "lung_lower_lobe_left": Lobe.LEFT_LOWER,
}

PROGRAMS = {
    # lungmask 0.2.22, github.com/JoHof/lungmask: README, "Semantics of output"; __main__.py.
    LungMethod.LUNGMASK: LungProgram(
        "lungmask",
        "lungmask",
        "pip install lungmask",
        lambda scan, output: [scan, output, "--modelname", "LTRCLobes_R231"],
        {Device.CPU: ("--cpu",)},
        "lobes.nii.gz",
        {
            "lobes.nii.gz": {
                1: Lobe.LEFT_UPPER,
                2: Lobe.LEFT_LOWER,
                3: Lobe.RIGHT_UPPER,
                4: Lobe.RIGHT_MIDDLE,
                5: Lobe.RIGHT_LOWER,
            }
        },
    ),
    # TotalSegmentator 2.18, github.com/wasserth/TotalSegmentator: README, "Class details".
    LungMethod.TOTALSEGMENTATOR: LungProgram(
        "TotalSegmentator",
        "totalsegmentator.bin.TotalSegmentator",
        "pip install TotalSegmentator",
        lambda scan, output: [
            *("-i", scan, "-o", output, "--roi_subset"),
            *_TOTALSEGMENTATOR_CLASSES,
        ],
        {device: ("--device", device.value) for device in Device},
        "lobes",
        {f"lobes/{name}.nii.gz": {1: lobe} for name, lobe in _TOTALSEGMENTATOR_CLASSES.items()},
    ),
}


def require_method(method: LungMethod) -> None:
    """Check that a method can be used, before a scan is read.

    Raises:
        InputError: if it needs a program that is not installed.
    """
    if method in PROGRAMS:
        PROGRAMS[method].command(Path(), Path())


def find_lobes(
    axial: sitk.Image,
    program: LungProgram,
    progress: ProgressCallback = silent,
    device: Device | None = None,
) -> sitk.Image:
    """Segment the lobes of the lungs by a program.

    Args:
        axial: the scan in HU (`AxialView`).
        program: one of `PROGRAMS`.
        progress: called in the stage "Lungs"; may raise `Cancelled`, which ends the program.
        device: where the program runs; None for its choice.

    Returns:
        uint8 on the grid of `axial`: n for `LOBES[n - 1]`, 0 elsewhere.

    Raises:
        InputError: if the program is not installed, fails, or does not find lungs.
    """
    with temporary_folder("lungs-") as name:
        folder = Path(name)
        scan = folder / "scan.nii.gz"
        sitk.WriteImage(sitk.Cast(axial, sitk.sitkInt16), scan)
        command = program.command(scan, folder / program.output, device)
        try:
            run_command(
                command.arguments,
                command.environment,
                progress=lambda *_: progress("Lungs", 0, 1),
            )
        except ChildError as error:
            raise InputError(f"{program.name} failed: {error}") from error
        lobes = np.zeros(axial.GetSize()[::-1], np.uint8)
        for file, labels in program.labels.items():
            if not (folder / file).is_file():
                raise InputError(
                    f"{program.name} wrote no {file}: check that it works by itself, and update it."
                )
            found = onto_grid(read_labels(folder / file), axial)
            values = sitk.GetArrayViewFromImage(found)
            for value, lobe in labels.items():
                lobes[values == value] = LOBES.index(lobe) + 1
    image = image_like(lobes, axial)
    require_lungs(lungs_of(image), axial, f"What {program.name} wrote")
    return image


def lungs_of(lobes: sitk.Image) -> sitk.Image:
    """Join lobes, labelled as by `find_lobes`, to the right and the left lung."""
    sides = [RIGHT_LUNG if lobe.is_right else LEFT_LUNG for lobe in LOBES]
    label = np.array([0, *sides], np.uint8)
    return image_like(label[sitk.GetArrayViewFromImage(lobes)], lobes)
