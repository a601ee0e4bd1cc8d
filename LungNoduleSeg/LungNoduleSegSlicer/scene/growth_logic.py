"""Growth of nodules in a Slicer scene, as a table and a plot."""

import csv
import datetime
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from CTLungScreeningLib.child_process import Work
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.geometry import ScanAlignment
from CTLungScreeningSlicer.scene.commands import Commands
from CTLungScreeningSlicer.scene.history import History
from CTLungScreeningSlicer.scene.mrml_host import at_once
from CTLungScreeningSlicer.scene.mrml_tables import (
    BLUE,
    VERMILION,
    add_column,
    add_series,
    series_of,
)
from CTLungScreeningSlicer.scene.mrml_volume import add_node, place_beside, visible_volumes
from LungNoduleSegLib.nodules.table import Column
from LungNoduleSegLib.results.reading import GROWTH_TABLE, TIMELINE_TABLE
from LungNoduleSegLib.results.segments import TAG
from LungNoduleSegLib.risk.clinical_data import Values, fitting_facts, numbers_now, prior_facts
from LungNoduleSegLib.risk.facts import measured_facts
from LungNoduleSegLib.risk.growth_rate import Change
from LungNoduleSegLib.risk.growth_table import GROWTH_COLUMNS, TIMELINE_COLUMNS, Row
from LungNoduleSegLib.risk.timeline import check_days
from LungNoduleSegSlicer.scene.mrml_results import WORDS, add_table, rows_of, tables_of
from LungNoduleSegSlicer.scene.result_nodes import (
    ResultNodes,
    dicom_attribute,
    find_results,
    nodules_of,
    study_date_of,
    volume_node_of,
)
from LungNoduleSegSlicer.scene.saving_logic import run_work

COLOURS = {
    Change.GROWN: VERMILION,
    Change.SHRUNK: BLUE,
}
"""Line colours by the change of the nodule; `GREY` for others."""

GREY = (0.4, 0.4, 0.4)


def add_growth_plot(scene: Any, name: str, rows: Sequence[Row], scans: int) -> Any:
    """Add a chart with the volumes of every nodule with two or more dates, on a log axis.

    Args:
        scene: gets chart, series and their table.
        name: of the chart.
        rows: of `TIMELINE_COLUMNS`: each nodule at each of the scans.
        scans: number of scans.

    Returns:
        The vtkMRMLPlotChartNode.
    """
    dated = all(row["days"] is not None for row in rows)
    table = add_node(scene, "Table", f"{name} volumes")
    table.SetLocked(True)
    chart = add_node(scene, "PlotChart", name)
    chart.SetTitle(name)
    chart.SetXAxisTitle("Days since the first scan" if dated else "Scan")
    chart.SetYAxisTitle("Volume (mm³)")
    chart.SetYAxisLogScale(True)
    days = [float(row["days"] or 0) if dated else float(n) for n, row in enumerate(rows[:scans])]
    add_column(table, "time", days or list(range(scans)))
    for first in range(0, len(rows), scans):
        track = rows[first : first + scans]
        found = [row for row in track if row["id"] is not None]
        if len(found) < 2:
            continue
        label = f"nodule {found[-1]['id']:.0f}"
        if track[-1]["id"] is None:
            label += f" of {found[-1]['scan']}"
        volumes = [None if row["id"] is None else row["volume_mm3"] for row in track]
        add_column(table, label, volumes)
        colour = COLOURS.get(Change(str(track[0]["change"])), GREY)
        add_series(chart, table, "time", label, label, colour)
    return chart


PRIOR_ROLE = f"{TAG}.prior"
CURRENT_ROLE = f"{TAG}.current"
"""Node references from a growth table to the compared nodule tables."""

CHART_ROLE = f"{TAG}.chart"


class GrowthLogic:
    """Compares the nodules of the scans of one patient."""

    def __init__(self, history: History, commands: Commands) -> None:
        self._history, self._commands = history, commands

    def earlierScans(self, volumeNode: Any) -> list[Any]:
        """Return the earlier volumes of the same patient, one per study day, the earliest first.

        Of the volumes of a day it is the first with results, or the first.
        """
        patient = _patient_of(volumeNode)
        day = study_date_of(volumeNode)
        if not patient or day is None:
            return []
        found: dict[datetime.date, Any] = {}
        volumes = visible_volumes(volumeNode.GetScene())
        for node in sorted(volumes, key=lambda one: find_results(one) is None):
            then = study_date_of(node)
            if then is not None and then < day and _patient_of(node) == patient:
                found.setdefault(then, node)
        return [found[then] for then in sorted(found)]

    def compareWork(
        self,
        prior: ResultNodes | Sequence[ResultNodes],
        current: ResultNodes,
        days: int | None = None,
    ) -> Work[Any]:
        """Follow the nodules of one patient's scans, in a child process.

        Rejected nodules are left out.

        Args:
            prior: the results of the earlier scan, or of several from the earliest to the latest.
            current: likewise of the last scan.
            days: between two scans, for no more than these; None to compute them from their study
                dates. Without either there is no doubling time.

        Returns:
            A new table node of the changes since the last prior scan, with interval and notes as
            attributes. It references all tables and segmentations, the earliest first, and a plot
            chart of the volumes at all dates.

        Raises:
            InputError: if a node cannot be used or has no lung.
            ChildError: if the child process failed; its log is named.
        """
        results = [*([prior] if isinstance(prior, ResultNodes) else prior), current]
        if len({id(one.table) for one in results}) < len(results):
            raise InputError("The prior scan is the current one: choose another.")
        check_days(len(results), days or None)
        names = [volume_node_of(one).GetName() for one in results]
        work = Path(tempfile.mkdtemp(prefix="LungNoduleSeg-", dir=slicer.app.temporaryPath))
        scans = {work / f"scan-{number}": one for number, one in enumerate(results, start=1)}
        output = work / "growth"
        try:
            for folder, one in scans.items():
                yield from run_work(one, folder)
            since = ["--days", str(days)] if days else []
            result = yield from self._commands.work("growth", *scans, "-o", output, *since)
            for one in scans.values():
                if one.table.GetScene() is None or one.segmentation.GetScene() is None:
                    raise InputError(f"{one.table.GetName()} was deleted during the comparison.")
            growth = _read(output / GROWTH_TABLE, GROWTH_COLUMNS)
            timeline = _read(output / TIMELINE_TABLE, TIMELINE_COLUMNS)
            return self._bring(growth, timeline, result, results)
        except InputError as problem:
            text = str(problem)
            for folder, name in zip(scans, names, strict=True):
                text = text.replace(str(folder), name)
            raise InputError(text) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)

    compare = at_once(compareWork)

    def find(self, current: ResultNodes, prior: ResultNodes | None = None) -> Any | None:
        """Return the table of the last comparison of a scan with a prior one, or None.

        Args:
            current: the results of the later scan.
            prior: those of the prior scan; None for any.
        """
        for node in tables_of(current.table.GetScene(), "growth"):
            if node.GetNodeReference(CURRENT_ROLE) is current.table and (
                prior is None or node.GetNodeReference(PRIOR_ROLE) is prior.table
            ):
                return node
        return None

    def priorFacts(self, current: ResultNodes) -> dict[int, Values]:
        """Return the facts of a scan's nodules from its last comparison, by their number now.

        Those that a change of the prior scan's nodules outdated are left out.
        """
        growth = self.find(current)
        rows: Sequence[Values] = [] if growth is None else _standing_rows(growth)
        then = {int(row["current_id"]): row for row in rows if row["current_id"] is not None}
        places = {n: tuple(row[f"current_{axis}"] for axis in "xyz") for n, row in then.items()}
        now = numbers_now(places, nodules_of(current.table, rejected=True))
        return prior_facts({**row, "current_id": now[n]} for n, row in then.items())

    def warnings(self, current: ResultNodes) -> list[str]:
        """Return a warning if nodules of either scan were changed since the last comparison."""
        growth = self.find(current)
        if growth is None:
            return []
        rows, standing = rows_of(growth, GROWTH_COLUMNS), _standing_rows(growth)
        compared = prior_facts(standing)
        measured = measured_facts(nodules_of(current.table))
        fitting = fitting_facts(measured, compared)
        if len(standing) == len(rows) and len(fitting) == len(measured) == len(compared):
            return []
        return ["Nodules were changed since the comparison with the prior scan: compare again."]

    def remove(self, growthNode: Any) -> None:
        """Remove a comparison and its plot from the scene."""
        chart = growthNode.GetNodeReference(CHART_ROLE)
        nodes = [growthNode]
        if chart is not None:
            series = series_of(chart)
            nodes += [chart, *series, *{one.GetTableNode() for one in series}]
        for node in nodes:
            self._history.scene.RemoveNode(node)

    def _bring(
        self,
        rows: Sequence[Row],
        timeline: Sequence[Row],
        result: Mapping[str, Any],
        scans: Sequence[ResultNodes],
    ) -> Any:
        names = [volume_node_of(one).GetName() for one in scans]
        prior, current = scans[-2:]
        days = result["days"]
        with self._history.allOrNothing(what=f"compare {names[-1]} with the prior scan"):
            node = add_table(
                self._history.scene,
                f"{current.table.GetName()} growth",
                GROWTH_COLUMNS,
                rows,
                "growth",
                {
                    "prior": names[-2],
                    "current": names[-1],
                    "scans": json.dumps(names),
                    "days": "" if days is None else str(days),
                    "notes": json.dumps(result["notes"]),
                    "overlap": json.dumps(result["overlap"]),
                    "levels": json.dumps(result["levels"]),
                },
                [node for one in scans for node in (one.table, one.segmentation)],
            )
            for role, one in ((PRIOR_ROLE, prior), (CURRENT_ROLE, current)):
                node.SetNodeReferenceID(role, one.table.GetID())
            chart = add_growth_plot(
                self._history.scene, f"{names[-1]} growth", timeline, len(scans)
            )
            node.SetNodeReferenceID(CHART_ROLE, chart.GetID())
            for one in (node, chart):
                place_beside(current.table, one)
        return node


def _standing_rows(growth_node: Any) -> list[Row]:
    """Return the rows of a comparison that the nodules of the prior scan have not outdated since.

    If nodules were added there, what was new in the current scan is outdated too.
    """
    rows = rows_of(growth_node, GROWTH_COLUMNS)
    prior = growth_node.GetNodeReference(PRIOR_ROLE)
    if prior is None:
        return rows
    there = {one.id: one.volume_mm3 for one in nodules_of(prior)}
    then = {row["prior_id"]: row["prior_volume_mm3"] for row in rows if row["prior_id"] is not None}
    added = there.keys() - then.keys()
    return [
        row
        for row in rows
        if (not added if (number := row["prior_id"]) is None else _same(there, then, number))
    ]


def _same(there: Mapping[Any, Any], then: Mapping[Any, Any], number: Any) -> bool:
    return number in there and math.isclose(there[number], then[number], rel_tol=1e-3)


def _patient_of(volume_node: Any) -> str:
    names = slicer.vtkMRMLSubjectHierarchyConstants
    return dicom_attribute(volume_node, names.GetDICOMPatientIDAttributeName())


def growth_notes(growth_node: Any) -> list[str]:
    """Return the warnings of a comparison."""
    return [str(one) for one in json.loads(growth_node.GetAttribute(f"{TAG}.notes") or "[]")]


def same_levels(growth_node: Any) -> ScanAlignment:
    """Return the corresponding levels of the current and the prior scan."""
    here, there = json.loads(growth_node.GetAttribute(f"{TAG}.levels"))
    return ScanAlignment(np.array(here, float), np.array(there, float))


def _read(file: Path, columns: Mapping[str, Column]) -> list[Row]:
    with file.open(encoding="utf-8", newline="") as stream:
        return [
            {
                name: (row[name] if name in WORDS else float(row[name])) if row[name] else None
                for name in columns
            }
            for row in csv.DictReader(stream)
        ]
