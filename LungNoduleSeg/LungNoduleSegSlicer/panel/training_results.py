"""What the commands of the section Training report, in a few lines for the panel."""

from typing import Any

from slicer.i18n import tr as _

from LungNoduleSegSlicer.panel.training_parameters import Measure
from LungNoduleSegSlicer.panel.training_run import Step

_MOST_SCANS = 10
"""That are named one by one."""


def result_text(step: Step, measure: Measure, result: dict[str, Any]) -> str:
    """Say what a step has done."""
    if step is Step.EVALUATE:
        return _MEASURED[measure](result)
    return _DONE[step](result)


def _prepared(result: dict[str, Any]) -> str:
    text = _(
        "Prepared: {added} new scans, {kept} already prepared, {without} without nodules skipped; "
        "{examples} examples."
    ).format(
        added=len(result["added"]),
        kept=len(result["kept"]),
        without=result["without"],
        examples=result["examples"],
    )
    failed = len(result["failed"])
    where = _("{count} failed; see errors.csv in {store}.")
    return f"{text} {where.format(count=failed, store=result['output'])}" if failed else text


def _checked(result: dict[str, Any]) -> str:
    return _("Check images: {count}.").format(count=len(result["pages"]))


def _trained(result: dict[str, Any]) -> str:
    best = result["best"]
    return _("Trained: best epoch {epoch:.0f}, Dice {dice:.3f} on held-out data.").format(
        epoch=best["epoch"], dice=best["val_dice_coefficient"]
    )


def _dice(result: dict[str, Any]) -> str:
    lines = [
        _("Mean Dice: {slice} per slice, {scan} per scan, {nodule} per nodule.").format(
            slice=_figure(result["mean_slice_dice"]),
            scan=_figure(result["mean_scan_dice"]),
            nodule=_figure(result["mean_nodule_dice"]),
        ),
        _("{found} of {nodules} nodules found, {false_positives} false positives.").format(
            **result
        ),
    ]
    scans = result["scans"] if 1 < len(result["scans"]) <= _MOST_SCANS else []
    return "\n".join([*lines, *(f"  {_figure(scan['dice'])} {scan['name']}" for scan in scans)])


def _detection(result: dict[str, Any]) -> str:
    points = zip(result["false_positives_per_scan"], result["sensitivity"], strict=True)
    lines = [
        _("CPM {cpm:.3f}: {found} of {nodules} nodules in {scans} scans found.").format(**result),
        _("Sensitivity at false positives per scan: {points}.").format(
            points=", ".join(f"{found:.2f} at {false:g}" for false, found in points)
        ),
    ]
    return "\n".join(lines)


def _inserted(result: dict[str, Any]) -> str:
    at = result["at_threshold"]
    lines = [
        _("Lesions found at threshold {threshold:g}, {false:.1f} false positives per scan:").format(
            threshold=at["threshold"], false=at["false_positives_per_scan"]
        )
    ]
    for name in ("found_of_by_size", "found_of_by_type"):
        counts = (f"{key} {found}/{of}" for key, (found, of) in at[name].items())
        lines.append("  " + ", ".join(counts))
    return "\n".join([*lines, _detection(result)])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_DONE = {Step.PREPARE: _prepared, Step.CHECK: _checked, Step.TRAIN: _trained}
_MEASURED = {
    Measure.DICE: _dice,
    Measure.DETECTION: _detection,
    Measure.INSERTED: _inserted,
}
