"""Results of a volume written to files as they are in the scene, with a reader's corrections."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import slicer

from CTLungScreeningLib.child_process import Pause, Work, complete
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.files import refuse_existing
from CTLungScreeningLib.progress import ProgressCallback, silent
from CTLungScreeningSlicer.scene.commands import Commands
from CTLungScreeningSlicer.scene.mrml_host import keeping_alive
from LungNoduleSegLib.nodules.table import write_nodules_csv
from LungNoduleSegLib.results.reading import DICOM_KEY_IMAGES, DICOM_NAMES
from LungNoduleSegSlicer.scene.result_nodes import ResultNodes, nodules_of, volume_node_of
from LungNoduleSegSlicer.scene.risk_logic import RiskLogic
from LungNoduleSegSlicer.scene.saving import run_work


class SavingLogic:
    """Writes the results of a volume as they are in the scene; the long work in a child process."""

    def __init__(self, commands: Commands, risk: RiskLogic) -> None:
        """Set the commands of `lung-nodule-seg`, and the risk of nodules."""
        self._commands, self._risk = commands, risk

    def saveTable(self, results: ResultNodes, path: Path) -> None:
        """Write the nodules that are not rejected as a new CSV file.

        Raises:
            InputError: if the file exists, or the table is not one of nodules.
        """
        write_nodules_csv(path, nodules_of(results.table))

    def saveReport(
        self, results: ResultNodes, path: Path, progress: ProgressCallback = silent
    ) -> None:
        """Write the report as a new HTML file.

        Args:
            results: of a run, with its scan in the scene.
            path: the new file.
            progress: callback, see `CTLungScreeningLib.progress`.

        Raises:
            InputError: if the file exists, or the results are not complete.
            ChildError: if the child process failed; its log is named.
            Cancelled: if `progress` raised it.
        """
        complete(self.reportWork(results, path), keeping_alive(progress))

    def reportWork(self, results: ResultNodes, path: Path) -> Work[None]:
        """Return the work of `saveReport`, for a panel."""
        refuse_existing(path.parent, [path.name])
        risk = self._risk.evaluate(results)
        with _work_folder() as folder:
            yield from run_work(results, folder / "run", risk)
            yield from self._commands.work("report", folder / "run", "-o", path)

    def saveDicom(
        self,
        results: ResultNodes,
        folder: Path,
        files: Sequence[Path],
        progress: ProgressCallback = silent,
    ) -> None:
        """Write the results as DICOM SEG, SR and key images into a folder.

        Args:
            results: of a run.
            folder: made if missing; nothing in it is overwritten.
            files: the DICOM files of the volume, of one series.
            progress: callback, see `CTLungScreeningLib.progress`.

        Raises:
            InputError: if the files do not show the volume, or as `write_dicom`.
            ChildError: if the child process failed; its log is named.
            Cancelled: if `progress` raised it.
        """
        complete(self.dicomWork(results, folder, files), keeping_alive(progress))

    def dicomWork(self, results: ResultNodes, folder: Path, files: Sequence[Path]) -> Work[None]:
        """Return the work of `saveDicom`, for a panel."""
        refuse_existing(folder, (*DICOM_NAMES, DICOM_KEY_IMAGES))
        risk = self._risk.evaluate(results)
        with _work_folder() as work:
            series = work / "series"
            series.mkdir()
            for number, file in enumerate(files, start=1):
                shutil.copyfile(file, series / f"{number}.dcm")
                yield Pause("Copying", number, len(files))
            yield from run_work(results, work / "run", risk, series)
            try:
                yield from self._commands.work("export-dicom", work / "run", "-o", folder)
            except InputError as problem:
                name = volume_node_of(results.segmentation).GetName()
                raise InputError(str(problem).replace(str(series), name)) from None


@contextmanager
def _work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="LungNoduleSeg-", dir=slicer.app.temporaryPath, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
