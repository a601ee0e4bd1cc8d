"""Write a phantom with its ground truth, and compare results with it."""

import csv
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CTLungScreeningLib import csv_files
from CTLungScreeningLib.files import new_file, refuse_existing
from CTLungScreeningLib.reading.volume_files import write_image
from CTLungScreeningLib.staging import whole_output
from LungNoduleSegLib.nodules.measures import axial_diameters
from LungNoduleSegLib.nodules.table import read_nodules_csv
from LungNoduleSegLib.phantom.chest import Phantom
from LungNoduleSegLib.phantom.dicom import write_dicom_series
from LungNoduleSegLib.results.names import LUNGS, NODULES, TABLE

SERIES, TRUTH = "dicom", "truth"
AIRWAYS, LESIONS = "airways.nii.gz", "lesions.csv"


def write_phantom(phantom: Phantom, folder: Path) -> None:
    """Write the scan as a DICOM series into `folder/dicom` and the masks into `folder/truth`.

    `truth` holds the lungs, nodules and airways as `.nii.gz` and `lesions.csv` with number, LPS
    centre in mm, diameter in mm and kind of each lesion.

    Raises:
        InputError: if either folder exists.
    """
    refuse_existing(folder, [SERIES, TRUTH])
    with whole_output(folder, "writing") as whole:
        write_dicom_series(phantom.image, whole / SERIES)
        for name, image in (
            (LUNGS, phantom.lungs),
            (NODULES, phantom.nodules),
            (AIRWAYS, phantom.airways),
        ):
            with new_file(whole / TRUTH / name) as temporary:
                write_image(image, temporary)
        with (
            new_file(whole / TRUTH / LESIONS) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv_files.Writer(stream)
            writer.writerow(["number", "x", "y", "z", "diameter_mm", "kind"])
            for number, lesion in enumerate(phantom.lesions, 1):
                writer.writerow([number, *lesion.centre, lesion.diameter_mm, lesion.kind])


def compare_with_truth(truth: Path, results: Path) -> str:
    """Say for each lesion of a phantom which nodule of a run lies on it, and what else was found.

    Beside the measures of the nodule stand those that the same ruler takes of the exact mask.

    Args:
        truth: a folder that `write_phantom` wrote.
        results: the folder of a run on that phantom.
    """
    with (truth / LESIONS).open(encoding="utf-8", newline="") as stream:
        lesions = list(csv.DictReader(stream))
    nodules = {nodule.id: nodule for nodule in read_nodules_csv(results / TABLE)}
    true_image, found_image = (sitk.ReadImage(folder / NODULES) for folder in (truth, results))
    true_labels, found_labels = map(sitk.GetArrayFromImage, (true_image, found_image))
    spacing = np.array(true_image.GetSpacing())[::-1]
    lines, matched = [], set()
    for lesion in lesions:
        mask = true_labels == int(lesion["number"])
        hits = [int(n) for n in np.unique(found_labels[mask]) if n]
        matched.update(hits)
        found = ", ".join(
            f"nodule {n}, {nodules[n].diameter_mm:.1f} mm, {nodules[n].volume_mm3:.0f} mm³, "
            f"{nodules[n].kind}"
            for n in hits
        )
        if hits:
            exact = axial_diameters(mask, (slice(0, 0),) * 3, spacing).longest_mm
            volume = mask.sum() * spacing.prod()
            found += f"; its exact mask measures {exact:.1f} mm, {volume:.0f} mm³"
        lines.append(
            f"  {float(lesion['diameter_mm']):4.1f} mm {lesion['kind']:<10} "
            f"{'found as ' + found if hits else 'missed'}"
        )
    lines.append(f"  {len(nodules) - len(matched)} other findings")
    return "\n".join(["The lesions put into the phantom:", *lines])
