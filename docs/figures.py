"""Make the pictures of the docs anew.

    .venv/bin/python docs/figures.py ../shared/data

Slice views need EGL (Debian: libegl1, libgl1-mesa-dri); they are drawn in a process of their own.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from CTLungScreeningLib.geometry import AxialView
from CTLungScreeningLib.hu import AIR_HU, LUNG_WINDOW
from CTLungScreeningLib.reading.ct_reading import read_ct
from CTSliceToolsLib.localizer.plots import plot_prediction
from CTSliceToolsLib.localizer.prediction import predict_scan
from LungNoduleSegLib.evaluation.lesion_placement import (
    find_lung_sites,
    insert_real_nodules,
    insert_synthetic_lesions,
)
from LungNoduleSegLib.evaluation.masks import read_mask
from LungNoduleSegLib.evaluation.plots import MOST_TILES, SheetRow, draw_sheet, lesion_rows
from LungNoduleSegLib.evaluation.synthetic_lesions import nodule_spheres
from LungNoduleSegLib.lungs.segmentation import segment_lungs
from LungNoduleSegLib.network.transplants import read_cubes
from LungNoduleSegLib.phantom.chest import PhantomSpec, make_phantom, write_phantom
from LungNoduleSegLib.pipeline import Analysis
from LungNoduleSegLib.results.pictures import COLOURS, Label, Picture, PictureMaker
from LungNoduleSegLib.results.reading import SCENE
from LungNoduleSegLib.segmenter import NoduleSegmenter
from LungNoduleSegSlicer.scene.saving_logic import write_scene

IMAGES = Path(__file__).parent / "images"
TESTING = Path(__file__).parents[1] / "Testing"
SLICE_VIEWS = TESTING / "slice_views.py"
SCANS = (
    "LIDC-IDRI-0001",
    "CMB-CRC-MSB-01068.nrrd",
    "ACRIN-FLT-Breast_001_headchest.nrrd",
    "ACRIN-FLT-Breast_001_abdopelvis.nrrd",
)
LUNG_COLOURS = {1: (86, 180, 233), 2: (230, 159, 0)}
REAL_NODULES = {
    SCANS[0]: [(56.2, 86.3, -115.9)],
    SCANS[1]: [(61.0, -33.0, -149.0), (-66.0, -20.0, -200.0), (96.0, -2.0, -109.0)],
}
"""Places (LPS mm) of nodules: by its annotation in LUNA16, and by eye."""
OWN_MM = 20.0


def phantom_overview(folder: Path) -> None:
    """Nodules found in the phantom of `make demo`."""
    write_phantom(make_phantom(PhantomSpec()), folder)
    found = NoduleSegmenter().run(folder / "dicom", folder / "results")
    save(overview(found.analysis), "overview.png")


def scan_overview(data: Path, folder: Path) -> None:
    """The findings in LIDC-IDRI-0001, and the scene in Slicer's views."""
    found = NoduleSegmenter().run(data / SCANS[0], folder / "lidc", scene=write_scene)
    save(overview(found.analysis), "lidc-overview.png")
    views = folder / "views"
    views.mkdir()
    subprocess.run([sys.executable, SLICE_VIEWS, folder / "lidc" / SCENE, views], check=True)
    tiles = [Image.open(views / name) for name in ("axial.png", "coronal.png", "surfaces.png")]
    save(
        np.hstack([np.asarray(tile.convert("RGB").resize((480, 480))) for tile in tiles]),
        "slice-view.png",
    )


def scan_locations(data: Path) -> None:
    """The plot that `ct-slice-tools predict` draws of LIDC-IDRI-0001."""
    plot_prediction(IMAGES / "localizer-lidc.png", predict_scan(read_ct(data / SCANS[0])))


def overview(found: Analysis, most: int = 3) -> np.ndarray:
    """Draw the frontal view, and beside it the first nodules: their slices, then enlarged."""
    maker = PictureMaker(found.hu, found.lungs, found.findings)
    height, margin = 640, 8
    tiles = [drawn(maker.frontal(), height)]
    for nodule in found.findings.nodules[:most]:
        measured = maker.diameters(nodule.id)
        pair = [
            drawn(picture, height // 2)
            for picture in (maker.context(measured, ""), maker.enlarged(measured, ""))
        ]
        column = Image.new("RGB", (max(tile.width for tile in pair), height), "black")
        for row, tile in enumerate(pair):
            column.paste(tile, ((column.width - tile.width) // 2, row * height // 2))
        tiles.append(column)
    width = sum(tile.width for tile in tiles) + margin * (len(tiles) - 1)
    sheet = Image.new("RGB", (width, height), "white")
    x = 0
    for tile in tiles:
        sheet.paste(tile, (x, 0))
        x += tile.width + margin
    return np.asarray(sheet)


def drawn(picture: Picture, height: int) -> Image.Image:
    """Rasterize a picture with its lines, at twice the size for smooth lines."""
    scale = 2 * height / picture.height
    size = (round(picture.width * scale), 2 * height)
    image = Image.fromarray(picture.pixels).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(image)
    corner = np.array([picture.left, picture.top])
    for line in picture.lines:
        points = ((line.points - corner) * scale).ravel().tolist()
        draw.line(points, fill=COLOURS[line.kind], width=3, joint="curve")
    font = ImageFont.load_default(size=32)
    words = list(picture.labels)
    if picture.sides:
        middle = picture.top + picture.height / 2
        words += [
            Label("R", picture.left + 16 / scale * 2, middle),
            Label("L", picture.left + picture.width - 16 / scale * 2, middle),
        ]
    for word in words:
        at = ((np.array([word.x, word.y]) - corner) * scale).tolist()
        draw.text(at, word.text, "white", font, anchor="mm", stroke_width=3, stroke_fill="black")
    return image.resize((size[0] // 2, height), Image.Resampling.LANCZOS)


def lungs_of_each_scan(data: Path) -> None:
    """One slice of each scan, where its lungs are widest, with their outlines."""
    tiles = []
    for name in SCANS:
        image = AxialView.of(read_ct(data / name).image, AIR_HU).image
        labels = sitk.GetArrayFromImage(segment_lungs(image))
        k = int(labels.astype(bool).sum(axis=(1, 2)).argmax())
        tile = Image.fromarray(LUNG_WINDOW.to_uint8(sitk.GetArrayViewFromImage(image)[k]))
        tile = tile.convert("RGB")
        draw = ImageDraw.Draw(tile)
        for label, colour in LUNG_COLOURS.items():
            for line in find_contours((labels[k] == label).astype(float), 0.5):
                draw.line([(x, y) for y, x in line], fill=colour, width=2)
        tiles.append(np.asarray(tile.resize((400, 400))))
    save(np.hstack(tiles), "lungs.png")


def inserted_lesions(data: Path) -> None:
    """Real nodules of two scans, then lesions of each type and of five sizes in the first."""
    scans = [AxialView.of(read_ct(data / name).image, AIR_HU).image for name in REAL_NODULES]
    real = [
        (image, place)
        for image, places in zip(scans, REAL_NODULES.values(), strict=True)
        for place in places
    ]
    lungs = segment_lungs(scans[0])
    own = [(np.array(place), OWN_MM) for place in REAL_NODULES[SCANS[0]]]
    changed, placed = insert_synthetic_lesions(
        scans[0], lungs, find_lung_sites(scans[0], lungs), own, np.random.default_rng(5)
    )
    draw_sheet(
        IMAGES / "inserted-lesions.png",
        [SheetRow("real", real), *lesion_rows(changed, placed)],
    )


def transplanted_nodules(data: Path) -> None:
    """A scan's own nodules, then nodules of other patients transplanted into its lungs."""
    scan = AxialView.of(read_ct(data / "LIDC-IDRI-0012.nii.gz").image, AIR_HU).image
    outlines = read_mask(data / "LIDC-IDRI-0012_nodules_ge2of4readers.nrrd")
    own = nodule_spheres(outlines)
    lungs = segment_lungs(scan)
    cubes = read_cubes(data / "lidc_nodules")
    changed, placed = insert_real_nodules(
        scan, lungs, find_lung_sites(scan, lungs), own, cubes[::16], np.random.default_rng(3)
    )
    real = [(scan, tuple(centre.tolist())) for centre, _ in own[:MOST_TILES]]
    draw_sheet(
        IMAGES / "transplanted-nodules.png",
        [SheetRow("its own", real), *lesion_rows(changed, placed)],
    )


def matched_scans(data: Path, folder: Path) -> None:
    """The sections Match, with two patients at the same level, and Localize."""
    command = (
        sys.executable,
        Path(__file__).with_name("match_pictures.py"),
        data / SCANS[0],
        data / SCANS[1],
    )
    subprocess.run([*command, folder], check=True)
    save(np.asarray(Image.open(folder / "match.png")), "panel-match.png")
    save(np.asarray(Image.open(folder / "localize.png")), "panel-localize.png")


def save(pixels: np.ndarray, name: str) -> None:
    """Write a picture of the docs over the one from before."""
    Image.fromarray(pixels).save(IMAGES / name, optimize=True)


def main() -> None:
    """Make all pictures."""
    data = Path(sys.argv[1])
    for name in ("inserted-lesions.png", "transplanted-nodules.png"):
        (IMAGES / name).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        phantom_overview(Path(folder) / "phantom")
        scan_overview(data, Path(folder))
        matched_scans(data, Path(folder))
    scan_locations(data)
    lungs_of_each_scan(data)
    inserted_lesions(data)
    transplanted_nodules(data)


if __name__ == "__main__":
    main()
