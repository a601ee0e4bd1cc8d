"""The command `growth`."""

from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.progress import JsonLines, ProgressStyle, shown
from LungNoduleSegLib.commands.risk_options import FactsOption


def growth(
    prior: Annotated[
        Path, typer.Argument(help="Folder of a run on the earlier scan, or the scan itself.")
    ],
    current: Annotated[
        Path, typer.Argument(help="Folder of a run on the later scan, or the scan itself.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder for the results; nothing is overwritten."),
    ],
    days: Annotated[
        int | None,
        typer.Option(min=1, help="Days between the scans; default: from their study dates."),
    ] = None,
    facts: FactsOption = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Match the nodules of two scans of one patient: what grew, how fast, what is new or gone.

    A scan that was not run yet is run first, into `prior` or `current` of the output folder. What
    changed goes into the Lung-RADS class of each nodule; --facts are those of the current scan.

    Example: `lung-nodule-seg growth ~/results/2023 ~/results/2024 -o ~/results/growth`
    """
    with shown(progress) as report:
        from CTLungScreeningLib.files import refuse_existing  # noqa: PLC0415
        from LungNoduleSegLib.results import growth_results  # noqa: PLC0415 - slow to import
        from LungNoduleSegLib.results.reading import is_run  # noqa: PLC0415
        from LungNoduleSegLib.risk.clinical_data import NO_CLINICAL_DATA, read_facts  # noqa: PLC0415

        given = read_facts(facts) if facts else NO_CLINICAL_DATA

        refuse_existing(output, [growth_results.GROWTH_TABLE, growth_results.GROWTH_PAGE])
        folders = []
        for source, name in ((prior, "prior"), (current, "current")):
            if is_run(source):
                folders.append(source)
                continue
            from LungNoduleSegLib import pipeline  # noqa: PLC0415

            pipeline.run(source, output / name, progress=report)
            folders.append(output / name)
        found = growth_results.compare_runs(folders[0], folders[1], output, days, given, report)
        if isinstance(report, JsonLines):
            report.write(
                result={
                    "output": str(output),
                    "nodules": len(found.nodules),
                    "days": found.days,
                    "notes": found.notes,
                    "overlap": {str(side): dice for side, dice in found.alignment.overlap.items()},
                    "levels": found.levels,
                }
            )
    if progress is not ProgressStyle.JSONL:
        for note in found.notes:
            print(f"Note: {note}")
        for one in found.nodules:
            print(f"  {growth_results.sentence(one)}")
        print(f"Open {output / growth_results.GROWTH_PAGE} in a browser.")
