"""Summaries of the dataset and training commands for the panel."""

from typing import Any

from slicer.i18n import tr as _

from CTSliceToolsSlicer.panel.training_run import Step


def result_text(step: Step, result: dict[str, Any]) -> str:
    """Say what a step has done."""
    return _TEXTS[step](result)


def _organized(result: dict[str, Any]) -> str:
    return _("Organized: {series} series of {patients} patients, {placed} files.").format(**result)


def _normalized(result: dict[str, Any]) -> str:
    text = _("Normalized: {slices} slices of {series} series.").format(**result)
    if result["refused"]:
        text += " " + _("{count} series were refused; see the log.").format(
            count=len(result["refused"])
        )
    return text


def _converted(result: dict[str, Any]) -> str:
    text = _("Converted: {made} new slices, {kept} already converted.").format(**result)
    return text + _failures(result)


def _partitioned(result: dict[str, Any]) -> str:
    parts = ", ".join(
        _("{part} {slices} slices from {series} series").format(
            part=part, slices=slices, series=result["series"][part]
        )
        for part, slices in result["slices"].items()
    )
    return _("Partitioned: {parts}.").format(parts=parts) + _failures(result)


def _trained(result: dict[str, Any]) -> str:
    best = result["best"]
    return _("Trained: best epoch {epoch:.0f}, validation mean error {error:.4f}.").format(
        epoch=best["epoch"], error=best["val_error"]
    )


def _evaluated(result: dict[str, Any]) -> str:
    return "\n".join(
        _("Evaluated ({way}): mean error {mean_error:.4f}, {mean_error_mm:.0f} mm.").format(**row)
        for row in result["summary"]
    )


def _failures(result: dict[str, Any]) -> str:
    count = len(result["failed"])
    return " " + _("{count} failed; see the log.").format(count=count) if count else ""


_TEXTS = {
    Step.ORGANIZE: _organized,
    Step.NORMALIZE: _normalized,
    Step.CONVERT: _converted,
    Step.PARTITION: _partitioned,
    Step.TRAIN: _trained,
    Step.EVALUATE: _evaluated,
}
