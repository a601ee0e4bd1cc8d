"""What a reader's changes are measured on: the scan of a run, seen axially. Out of the scene."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import SimpleITK as sitk

from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry.axial import AxialView
from CTLungScreeningLib.geometry.cropped_mask import CroppedMask, Grid
from CTLungScreeningLib.geometry.cropping import crop_to, onto_grid
from CTLungScreeningLib.hu import AIR_HU
from LungNoduleSegLib.nodules.measures import NoduleMeter
from LungNoduleSegLib.nodules.outline import NoduleOutline
from LungNoduleSegLib.nodules.region_growing import grow_nodule
from LungNoduleSegLib.nodules.table import Nodule, Outline
from LungNoduleSegLib.nodules.threshold import LabelledNodule, ThresholdedNodules
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, lungs_of, volume_image, volume_of


@dataclass(frozen=True)
class ReviewedScan:
    """A scan with its lungs, and the kept probability if there is one.

    Attributes:
        grid: of the volume.
        axial: HU, lungs and measures on an axial grid cropped to the lungs.
        finder: of nodules at any threshold, None without the probability.
    """

    grid: Grid
    axial: NoduleMeter
    finder: ThresholdedNodules | None

    @classmethod
    def of(cls, results: ResultNodes) -> "ReviewedScan":
        """Read a scan out of the scene; takes seconds.

        Raises:
            InputError: as `lungs_of` and `volume_of`.
        """
        volume = volume_of(results.segmentation)
        view = AxialView.of(volume, AIR_HU)
        grid = Grid.of(volume)
        original = grid.first_voxel
        if results.probability is None:
            lungs = lungs_of(results.segmentation, view.image)
            if not sitk.GetArrayViewFromImage(lungs).any():
                raise InputError(
                    f"The lungs of {results.segmentation.GetName()} lie outside its scan."
                )
            lungs, hu = crop_to(lungs, view.image)
            ruler = NoduleMeter.of(hu, lungs, None, original)
            return cls(grid, ruler, None)
        steps = volume_image(results.probability)
        finder = ThresholdedNodules(
            steps,
            onto_grid(view.image, steps, AIR_HU),
            lungs_of(results.segmentation, steps),
            original,
        )
        return cls(grid, finder.ruler, finder)

    def grow(self, ras: Sequence[float]) -> NoduleOutline:
        """Outline a nodule about a point of the world, RAS mm; it lies on the axial grid.

        Raises:
            InputError: as `grow_nodule`.
        """
        x, y, z = ras
        grown = grow_nodule(self.axial.hu, self.axial.lungs, (-x, -y, z))
        (outline,) = self.axial.outline([(grown.box, grown.mask)])
        return replace(outline, made_by=Outline.IMAGE)

    def measure(self, number: int, mask: CroppedMask, *, by_hand: bool) -> Nodule:
        """Measure a nodule that was drawn or edited by hand, on any grid.

        Raises:
            InputError: if it lies outside the lungs and their surroundings.
        """
        here = self.on_axial(mask)
        if here is None:
            raise InputError(
                f"Nodule {number} lies outside the lungs: move it there, or remove its segment."
            )
        ruler = self.axial if self.finder is None or by_hand else self.finder
        return ruler.measure(number, NoduleOutline(here.box, here.voxels, Outline.HAND))

    def on_axial(self, mask: CroppedMask) -> CroppedMask | None:
        """Bring a nodule onto the axial grid; None if nothing of it lies there."""
        return mask.on(Grid.of(self.axial.lungs))

    def on_volume(self, one: LabelledNodule | NoduleOutline) -> CroppedMask | None:
        """Bring a nodule of the axial grid onto that of the volume."""
        return CroppedMask(Grid.of(self.axial.lungs), one.box, one.mask).on(self.grid)
