"""Scene parameters of the section Batch."""

from enum import Enum
from typing import Annotated, Any

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

PROPERTY = "BatchParameter"
"""Dynamic property of the .ui file that names the parameter of a widget."""


class BatchSource(Enum):
    """Where the scans of a batch are."""

    FOLDER = "folder"
    LIST = "list"
    DATABASE = "database"

    def label(self) -> str:
        """Its name for the box that chooses it."""
        return {
            BatchSource.FOLDER: _("Folder"),
            BatchSource.LIST: _("CSV file of paths"),
            BatchSource.DATABASE: _("DICOM database"),
        }[self]


@parameterNodeWrapper
class BatchParameters:
    """The choices of the section.

    Attributes:
        batchSource: where the scans are.
        batchScans: folder of the scans.
        batchList: CSV file that lists scans.
        batchOutput: folder for the results.
        batchWorkers: scans run side by side; 0 for what memory and cores allow.
    """

    batchSource: BatchSource = BatchSource.FOLDER  # noqa: N815 - Slicer's way of naming
    batchScans: str  # noqa: N815
    batchList: str  # noqa: N815
    batchOutput: str  # noqa: N815
    batchWorkers: Annotated[int, WithinRange(0, 64)] = 0  # noqa: N815


def batch_parameters(node: Any) -> Any:
    """Give the BatchParameters that a parameter node holds."""
    wrapper: Any = BatchParameters
    return wrapper(node)
