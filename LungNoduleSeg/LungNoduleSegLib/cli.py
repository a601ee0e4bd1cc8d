"""The command `lung-nodule-seg`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import (
    OutputFolder,
    ProgressOption,
    SeriesOption,
    new_app,
    run_app,
    with_options,
)
from CTLungScreeningLib.errors import counted
from CTLungScreeningLib.files import refuse_links
from CTLungScreeningLib.options import MAX_SEED
from CTLungScreeningLib.progress import ProgressStyle, shown
from LungNoduleSegLib.commands import evaluate
from LungNoduleSegLib.commands import risk as commands
from LungNoduleSegLib.commands.batch import batch, export_dicom, report, unpack
from LungNoduleSegLib.commands.evaluate import check
from LungNoduleSegLib.commands.risk import FactsOption, growth, risk
from LungNoduleSegLib.commands.training import (
    export_arrays,
    models,
    prepare_lidc,
    prepare_luna,
    train,
)
from LungNoduleSegLib.options import DEFAULT_MODEL, OutputOptions, RunOptions
from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, read_facts

app = new_app("Lungs and nodules in chest CT. Research use only, not a medical device.")


@app.command()
@with_options
def run(
    source: Annotated[
        Path, typer.Argument(help="DICOM folder, .mhd, .nrrd or .nii.gz with a chest CT.")
    ],
    output: OutputFolder,
    options: RunOptions,
    files: OutputOptions,
    series: SeriesOption = None,
    lungs_file: Annotated[
        Path | None,
        typer.Option(help="Label image of the lungs to use: 1 right, 2 left, or 1 for both."),
    ] = None,
    scene: Annotated[
        bool, typer.Option("--scene", help="Also write scene.mrb for Slicer.")
    ] = False,
    facts: FactsOption = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Segment the lungs and nodules of one scan and write segmentation, table and report.

    Example: `lung-nodule-seg run ~/dicom/chest -o ~/results/chest`
    """
    began = time.monotonic()
    with shown(progress) as reporter:
        from LungNoduleSegLib.detectors.models import find_card  # noqa: PLC0415
        from LungNoduleSegLib.run_cost import EXTERNAL_LUNGS, peak_gib, record_cost, run_kind  # noqa: PLC0415
        from LungNoduleSegLib.segmenter import NoduleSegmenter  # noqa: PLC0415 - slow to import

        scene_writer = None
        if scene:
            from CTLungScreeningSlicer.scene import mrml_host  # noqa: PLC0415

            mrml_host.start()
            from LungNoduleSegSlicer.scene.saving_logic import write_scene  # noqa: PLC0415 - needs Slicer

            scene_writer = write_scene
        found = NoduleSegmenter.of(options, lungs_file).run(
            source,
            output,
            series=series,
            clinical_data=read_facts(facts) if facts else NO_CLINICAL_DATA,
            scene=scene_writer,
            progress=reporter,
            **vars(files),
        )
        card = find_card(options.model or DEFAULT_MODEL)
        kind = run_kind(EXTERNAL_LUNGS if lungs_file else options.lungs, card.sha256)
        voxels = found.scan.image.GetNumberOfPixels()
        record_cost(voxels, kind, time.monotonic() - began, peak_gib())
        count = len(found.nodules)
        reporter.emit(
            {"output": str(output), "nodules": count},
            f"{counted(count, 'nodule')}; the results are in {output}\n"
            f"Open {output / 'report.html'} in a browser, or segmentation.seg.nrrd in Slicer.",
            found.notes,
        )


@app.command()
def phantom(
    output: OutputFolder,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Each seed is another patient.")
    ] = 0,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Make a chest CT phantom: a DICOM series and the exact masks of its lungs and lesions.

    Example: `lung-nodule-seg phantom -o ~/phantom`
    """
    with shown(progress) as report:
        from LungNoduleSegLib.phantom.chest import (  # noqa: PLC0415
            PhantomSpec,
            make_phantom,
            write_phantom,
        )

        report("Phantom", 0, 1)
        write_phantom(make_phantom(PhantomSpec(seed=seed)), output)
        report("Phantom", 1, 1)
        report.emit(
            {"output": str(output)},
            f"The series is in {output / 'dicom'}, the truth in {output / 'truth'}",
        )


@app.command()
@with_options
def demo(
    output: OutputFolder,
    options: RunOptions,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Make a phantom, segment it, and compare the result with the truth.

    Example: `lung-nodule-seg demo -o ~/demo`
    """
    source, results = output / "dicom", output / "results"
    refuse_links(results)
    phantom(output, progress=progress)
    run(source=source, output=results, progress=progress, **vars(options))
    from LungNoduleSegLib.phantom.chest import compare_with_truth  # noqa: PLC0415

    with shown(progress) as report:
        compared = compare_with_truth(output / "truth", results)
        report.emit({"output": str(output), "comparison": compared}, compared)


app.command()(batch)
app.command()(commands.features)
app.command()(commands.train_risk)
app.command()(risk)
app.command()(growth)
app.command()(prepare_luna)
app.command()(prepare_lidc)
app.command()(check)
app.command()(export_arrays)
app.command()(report)
app.command()(export_dicom)
app.command()(unpack)
app.command()(train)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line."""
    run_app(app)
