"""The source series, as DICOM objects made from it refer to it."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_scan import CTScan
from CTLungScreeningLib.reading.dicom_instances import read_instance
from LungNoduleSegLib.results.dicom_headers import clean_headers


@dataclass(frozen=True, eq=False)
class DicomSource:
    """The images of a series and where its slices lie in them and on the scan's grid.

    Attributes:
        images: headers without pixels, one a slice in the order of the scan's slices, or that of
            the one multi-frame file.
        frames: for each slice the image, or the frame of the one image, that shows it.
        corners: (slices, 2), row and column of the scan's grid at which each slice begins: other
            than 0 where the slices of a tilted gantry were shifted.
        notes: sentences on header values that were left empty.
    """

    images: tuple[Dataset, ...]
    frames: NDArray[np.intp]
    corners: NDArray[np.intp]
    notes: tuple[str, ...] = ()

    def planes(self, labels: sitk.Image) -> NDArray[Any]:
        """Give labels on the scan's grid as planes of the source, which has all pixels they have.

        Slices that were shifted within their planes get the nearest pixels.

        Returns:
            (frames, rows, columns), the frames in the order of `images` or of the file.
        """
        rows, columns = self.images[0].Rows, self.images[0].Columns
        count = int(self.images[0].get("NumberOfFrames") or len(self.images))
        array = sitk.GetArrayViewFromImage(labels)
        planes = np.zeros((count, rows, columns), array.dtype)
        for plane, frame, (row, column) in zip(array, self.frames, self.corners, strict=True):
            planes[frame] = plane[row : row + rows, column : column + columns]
        return planes


def read_dicom_source(scan: CTScan) -> DicomSource:
    """Read the headers of a scan's series again, all of them, without pixels.

    Raises:
        InputError: if the scan is no DICOM series, or one that nothing can refer to.
    """
    if not scan.slices:
        raise InputError(
            f"{scan.source} is no DICOM series, which DICOM segmentations and reports are about: "
            "give the DICOM folder, or leave out --dicom."
        )
    files = list(dict.fromkeys(one.file for one in scan.slices))
    multi_frame = scan.slices[0].frame is not None
    if multi_frame and len(files) > 1:
        raise InputError(
            f"{scan.source} is one scan in {len(files)} multi-frame files, which one DICOM "
            "segmentation cannot be about: join them, or leave out --dicom."
        )
    with warnings.catch_warnings(action="ignore"):  # what is wrong is told in the notes
        headers = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in files]
        images, notes = clean_headers(headers)
    uids = [str(image.get("SOPInstanceUID", "")) for image in images]
    if len(set(uids)) < len(uids) or not all(uids):
        raise InputError(
            f"{scan.source} has images that share a SOP Instance UID or have none, so results in "
            "DICOM cannot refer to them: export the series again, or leave out --dicom."
        )
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
        if any(not image.get(keyword) for image in images):
            raise InputError(
                f"{scan.source} has no {keyword}, which DICOM segmentations and reports refer to: "
                "export the series again, or leave out --dicom."
            )
    for image in images:
        _complete(image, images[0], scan.image.GetSpacing()[2])
    return DicomSource(
        images=tuple(images),
        frames=np.array([one.frame if multi_frame else k for k, one in enumerate(scan.slices)]),
        corners=_corners(scan),
        notes=notes,
    )


def _complete(image: Dataset, first: Dataset, slice_mm: float) -> None:
    """Give a header in memory what those of derived objects are made of."""
    if "ImageOrientationPatient" in image:
        # Slices of one scan may differ in the last digit, for which a derived object has no place.
        image.ImageOrientationPatient = first.ImageOrientationPatient
        image.SpacingBetweenSlices = slice_mm
        if not image.get("SliceThickness"):
            image.SliceThickness = slice_mm


def _corners(scan: CTScan) -> NDArray[np.intp]:
    """Where the first pixel of each slice lies on the scan's grid, as the files say."""
    positions = {}
    for file in {one.file for one in scan.slices}:
        instance = read_instance(file)
        for frame in instance.frames if instance else ():
            positions[file, frame.index] = frame.position
    places = np.array(
        [
            scan.image.TransformPhysicalPointToContinuousIndex(
                positions[one.file, one.frame].tolist()
            )
            for one in scan.slices
        ]
    )
    if np.abs(places[:, 2] - np.arange(len(places))).max() > 0.5:
        raise ValueError("the slices do not lie where the scan says")
    return np.rint(places[:, 1::-1]).astype(np.intp)
