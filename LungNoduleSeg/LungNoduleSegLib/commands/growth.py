"""The command `growth`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressStyle, shown
from LungNoduleSegLib.commands.risk_options import FactsOption


def growth(
    scans: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, or scans, from the earliest to the latest."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the results; nothing is overwritten."),
    ],
    days: Annotated[
        int | None,
        typer.Option(min=1, help="Days between two scans; default: from their study dates."),
    ] = None,
    facts: FactsOption = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Follow the nodules of a patient through two or more scans: what grew, how fast, what is new.

    A scan that was not run yet is run first, into a folder of its own below the output folder. What
    changed goes into the Lung-RADS class of each nodule; --facts are those of the last scan.

    Example: `lung-nodule-seg growth ~/results/2023 ~/results/2024 -o ~/results/growth`
    """
    with shown(progress) as report:
        from CTLungScreeningLib.files import refuse_existing  # noqa: PLC0415
        from LungNoduleSegLib.results import growth_results  # noqa: PLC0415 - slow to import
        from LungNoduleSegLib.results.reading import is_run  # noqa: PLC0415
        from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, read_facts  # noqa: PLC0415

        if len(scans) < 2:
            raise InputError("Growth needs at least two scans of one patient: name more.")
        given = read_facts(facts) if facts else NO_CLINICAL_DATA
        refuse_existing(output, growth_results.FILES)
        names = ["prior", "current"]
        if len(scans) > 2:
            names = [f"scan-{number}" for number in range(1, len(scans) + 1)]
        folders = []
        for source, name in zip(scans, names, strict=True):
            if is_run(source):
                folders.append(source)
                continue
            from LungNoduleSegLib.segmenter import NoduleSegmenter  # noqa: PLC0415

            NoduleSegmenter().run(source, output / name, progress=report)
            folders.append(output / name)
        found = growth_results.compare_runs(folders, output, days, given, report)
        last = found.steps[-1]
        lines = [f"  {growth_results.track_sentence(one)}" for one in found.tracks]
        lines.append(f"Open {output / growth_results.GROWTH_PAGE} in a browser.")
        report.emit(
            {
                "output": str(output),
                "nodules": len(found.tracks),
                "days": last.days,
                "since": found.days,
                "notes": found.notes,
                "overlap": {str(side): dice for side, dice in last.alignment.overlap.items()},
                "levels": last.levels,
            },
            "\n".join(lines),
            found.notes,
        )
