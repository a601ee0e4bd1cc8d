"""Where the models that come with the package lie."""

from pathlib import Path

_MODELS = Path(__file__).parent / "Resources" / "Models"

DEFAULT_MODEL = _MODELS / "nodule-unet.onnx"
"""Finds nodules."""

SUSPICION_MODEL = _MODELS / "nodule-suspicion.ubj"
"""Rates how suspicious a nodule is, as radiologists do."""
