"""The commands `lung-nodule-seg evaluate ...`."""

from CTLungScreeningLib.command_line import new_app
from LungNoduleSegLib.commands.evaluate_detection import detection
from LungNoduleSegLib.commands.evaluate_dice import dice
from LungNoduleSegLib.commands.evaluate_synthetic import synthetic

SUMMARY = "Evaluate findings and masks against a reference."

app = new_app(SUMMARY)


@app.callback()
def _commands() -> None:
    """Evaluate findings and masks against a reference."""


app.command()(dice)
app.command()(detection)
app.command()(synthetic)
app.command("inserted", hidden=True)(synthetic)
