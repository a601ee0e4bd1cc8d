"""The nodules that LIDC-IDRI's radiologists outlined, as an image."""

from pathlib import Path

import SimpleITK as sitk

from LungNoduleSegLib.training_data.lidc_idri import (
    consensus_labels,
    consensus_nodules,
    read_lidc_xml,
)


def outlined_nodules(xml: Path, image: sitk.Image, agreement: int) -> sitk.Image:
    return consensus_labels(consensus_nodules(read_lidc_xml(xml), image), image, agreement)
