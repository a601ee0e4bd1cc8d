"""Stand-in for `slicer.i18n`: texts go through Qt's translation, which has none installed."""

import slicer


def translate(context: str, text: str) -> str:
    """Translate a text within a context."""
    return slicer.app.translate(context, text)


def tr(text: str) -> str:
    """Translate a text; Slicer takes the caller's file as the context."""
    return translate("", text)
