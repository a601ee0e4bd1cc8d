"""The commands `batch`, `report`, `export-dicom` and `unpack`."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption, exit_if_failed, with_options
from CTLungScreeningLib.errors import InputError, counted
from CTLungScreeningLib.progress import ProgressCallback, ProgressStyle, Reporter, new_bars, shown
from LungNoduleSegLib.options import BatchOptions, RunOptions

if TYPE_CHECKING:
    from rich.progress import TaskID

    from LungNoduleSegLib.batch.running import ScanProgress, Watch
    from LungNoduleSegLib.batch.scan_work import ScanRow


_NAME_LENGTH = 28


@with_options
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of scans, searched at any depth; a CSV file with a column `path`, and "
            "optionally `series` and `facts`; or one scan."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for the results; an existing batch is continued."
        ),
    ],
    options: RunOptions,
    where: BatchOptions,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Run many scans: one row per scan in results.csv, and full results in a folder per scan.

    A scan that fails has an error in its row; the others continue. Started again, a batch continues
    where it stopped and tries failed scans again.

    Example: `lung-nodule-seg batch ~/scans -o ~/results`
    """
    if where.workers and where.scheduler:
        raise InputError(
            f"--workers is for this machine, but {where.scheduler} has its own: leave out one of "
            "them."
        )
    bars = progress is ProgressStyle.BAR
    with (
        shown(ProgressStyle.NONE if bars else progress) as lines,
        _bars() if bars else nullcontext(_lines(lines)) as (report, watch),
    ):
        from LungNoduleSegLib.batch.running import run_batch  # noqa: PLC0415
        from LungNoduleSegLib.batch.scan_work import RESULTS_TABLE  # noqa: PLC0415

        outcome = run_batch(
            source,
            output,
            options,
            **vars(where),
            progress=report,
            watch=watch,
        )
    table, added = output / RESULTS_TABLE, len(outcome.added)
    lines.emit(
        asdict(outcome) | {"output": str(output), "table": str(table)},
        f"{counted(added, 'scan')} run, {len(outcome.kept)} kept, "
        f"{len(outcome.errors)} failed; the table is {table}",
        outcome.notes,
    )
    exit_if_failed(outcome.errors)


def _lines(report: Reporter) -> "tuple[ProgressCallback, Watch]":
    """Show the batch and each scan as JSON lines, or each finished scan as a line of text."""
    last: tuple[str, int, int] | None = None

    def report_changes(stage: str, done: int, total: int) -> None:
        nonlocal last
        if (stage, done, total) != last:
            last = (stage, done, total)
            report(stage, done, total)

    def watch(progress: "ScanProgress") -> None:
        if progress.row:
            report.write(row=progress.row.cells())
            report.say(_line(progress.row))
        else:
            keys = ("scan", "scan_stage", "scan_done", "scan_total")
            report.write(**dict(zip(keys, progress, strict=False)))

    return report_changes, watch


@contextmanager
def _bars() -> "Iterator[tuple[ProgressCallback, Watch]]":
    """Bars on stderr: one for the batch, and one for each running scan."""
    with new_bars() as bars:
        tasks: dict[str, TaskID] = {}
        descriptions: dict[str, str] = {}

        def show(name: str, description: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(description, total=total)
            elif descriptions[name] != description:
                bars.reset(tasks[name], total=total)  # the time of another stage says nothing
            descriptions[name] = description
            bars.update(tasks[name], description=description, completed=done, total=total)

        def report(stage: str, done: int, total: int) -> None:
            show(stage, stage, done, total)

        def watch(one: "ScanProgress") -> None:
            name = f"scan {one.scan}"
            if one.row is None:
                show(name, f"  …{one.scan[-_NAME_LENGTH:]} {one.stage}", one.done, one.total)
                return
            if name in tasks:
                bars.remove_task(tasks.pop(name))
            print(_line(one.row))

        yield report, watch


def _line(row: "ScanRow") -> str:
    """Format the outcome of a scan in one line."""
    if row.error:
        return f"{row.scan}: failed: {row.error}"
    largest = f", the largest {row.largest_diameter_mm:.1f} mm" if row.largest_diameter_mm else ""
    return f"{row.scan}: {counted(row.nodules or 0, 'nodule')}{largest}"


def report(
    results: Annotated[Path, typer.Argument(help="Folder of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new HTML file.")],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Regenerate the report of a run, for instance after nodules.csv was corrected.

    Example: `lung-nodule-seg report ~/results/chest -o ~/results/chest-again.html`
    """
    with shown(progress) as shows:
        from LungNoduleSegLib.results.report import write_report_of_run  # noqa: PLC0415

        write_report_of_run(results, output, shows)
        shows.emit({"output": str(output)}, f"The report is {output}")


def export_dicom(
    results: Annotated[Path, typer.Argument(help="Folder of a run on a DICOM series.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the files; default: that of the run."),
    ] = None,
    labelmap: Annotated[
        bool, typer.Option("--labelmap", help="Write the SEG as LABELMAP instead of BINARY.")
    ] = False,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Write DICOM SEG, SR and key images of the results of a run, like `run --dicom`.

    Example: `lung-nodule-seg export-dicom ~/results/chest`
    """
    with shown(progress) as shows:
        from LungNoduleSegLib.results.reading import dicom_files  # noqa: PLC0415
        from LungNoduleSegLib.results.writing import write_dicom_of_run  # noqa: PLC0415

        notes = write_dicom_of_run(results, output, shows, labelmap)
        folder = output or results
        names = ", ".join(file.name for file in dicom_files(folder))
        shows.emit({"output": str(folder), "notes": notes}, f"{names} are in {folder}", notes)


def unpack(
    results: Annotated[Path, typer.Argument(help="Folder of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")],
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Write the scan and the results of a run uncompressed, as Slicer loads them at once.

    Example: `lung-nodule-seg unpack ~/results/chest -o ~/results/chest-unpacked`
    """
    with shown(progress) as shows:
        from LungNoduleSegLib.results.reading import unpack_run  # noqa: PLC0415

        name, uids = unpack_run(results, output, shows)
        shows.emit(
            {"output": str(output), "name": name, "sop_instance_uids": uids},
            f"Scan and results are in {output}",
        )
