"""The command `organize`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from CTLungScreeningLib.command_line import ProgressOption
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.progress import ProgressStyle, shown
from CTSliceToolsLib.organizing.organizer import organize as organize_files
from CTSliceToolsLib.organizing.pseudonyms import read_or_make_key
from CTSliceToolsLib.organizing.summary import format_summary
from CTSliceToolsLib.organizing.transfer import Transfer

DEFAULT_KEY = Path(typer.get_app_dir("ct-slice-tools")) / "pseudonym.key"


def organize(
    source: Annotated[Path, typer.Argument(help="Folder with DICOM files, in any nesting.")],
    destination: Annotated[
        Path, typer.Argument(help="Folder for the result; nothing in it is overwritten.")
    ],
    transfer: Annotated[
        Transfer,
        typer.Option(
            help="`link` makes hard links, which share their content with the source; "
            "`move` removes each source file after its copy is complete."
        ),
    ] = Transfer.COPY,
    pseudonymize: Annotated[
        bool,
        typer.Option(
            "--pseudonymize",
            help="Name patients, studies and series by keyed hashes. The files stay as they are, "
            "with all that their headers say.",
        ),
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="Key of the hashes, made if it is not there; the same key gives the same names. "
            "Default: one in the user's settings; the end says where."
        ),
    ] = None,
    progress: ProgressOption = ProgressStyle.BAR,
) -> None:
    """Sort DICOM files into folders: patient, study, series, and a file for each instance number.

    Run it again after an interruption: it goes on where it stopped.

    Example: `ct-slice-tools organize ~/downloads ~/dataset --transfer link`
    """
    with shown(progress) as report:
        if key_file and not pseudonymize:
            raise InputError(f"The key {key_file} is of no use: give --pseudonymize too.")
        key_path = key_file or DEFAULT_KEY
        key = read_or_make_key(key_path, destination) if pseudonymize else None
        summary = organize_files(source, destination, transfer, key, report)
        notes = list(summary.notes)
        if pseudonymize:
            notes.append(f"The key of the folder names is {key_path}: keep it, and keep it secret.")
        table = summary.left_out_table
        text = format_summary(summary)
        if table:
            text += f"\nWhat was left out, and why, is in {table}"
        report.emit(asdict(summary) | {"left_out_table": table and str(table)}, text, notes)
