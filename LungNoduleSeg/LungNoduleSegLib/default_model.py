"""Where the model that comes with the package lies."""

from pathlib import Path

DEFAULT_MODEL = Path(__file__).parent / "Resources" / "Models" / "nodule-unet.onnx"
