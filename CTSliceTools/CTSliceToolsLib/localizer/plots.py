"""Pictures of how a localizer was trained and of how good it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Of the models, told apart by the colour-blind as well (Okabe and Ito, 2008)."""


def plot_curves(path: Path, epochs: Sequence[Mapping[str, float]]) -> None:
    """Draw loss and mean error of each epoch into a new PNG file.

    Args:
        path: the file.
        epochs: with `epoch`, `stage`, `loss`, `error`, `val_loss` and `val_error`.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    numbers = [epoch["epoch"] for epoch in epochs]
    best = min(epochs, key=lambda epoch: epoch["val_loss"])
    shown = (("loss", "Mean squared error"), ("error", "Mean error of the location"))
    for axes, (quantity, title) in zip(figure.subplots(1, 2), shown, strict=True):
        for name, label, colour in (
            (quantity, "training", COLOURS[0]),
            (f"val_{quantity}", "validation", COLOURS[1]),
        ):
            values = [epoch[name] for epoch in epochs]
            axes.plot(numbers, values, ".-", color=colour, label=label)
        axes.plot(best["epoch"], best[f"val_{quantity}"], "o", color="black", mfc="none", ms=9)
        tuned = [epoch["epoch"] for epoch in epochs if epoch["stage"] == 2]
        if tuned:
            axes.axvline(tuned[0] - 0.5, ls=":", color="grey")
            axes.annotate(
                "fine-tuning",
                (tuned[0] - 0.4, 0.97),
                xycoords=("data", "axes fraction"),
                va="top",
                color="grey",
                fontsize="small",
            )
        axes.set(title=title, xlabel="Epoch", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize="small")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
