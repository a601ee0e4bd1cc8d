"""Stand-in for Slicer's module SampleData: keeps what is registered, downloads nothing."""

from types import SimpleNamespace
from typing import Any

import slicer

FIELDS = {"category", "sampleName", "uris", "fileNames", "nodeNames", "customDownloader"} | {
    "thumbnailFileName",
    "loadFileType",
    "loadFiles",
    "loadFileProperties",
    "checksums",
}


class SampleDataLogic:
    """Keeps sources in `slicer.modules.sampleDataSources`, by category."""

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", **fields: Any) -> None:
        """Add a source; as in Slicer, one without `uris` fails."""
        if unknown := fields.keys() - FIELDS:
            raise TypeError(f"unexpected keyword arguments: {', '.join(unknown)}")
        len(fields.get("uris"))  # type: ignore[arg-type]
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        source = SimpleNamespace(**dict.fromkeys(FIELDS) | fields)
        slicer.modules.sampleDataSources.setdefault(category, []).append(source)
