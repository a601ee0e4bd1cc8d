"""No array looks at the memory of an image that is gone: SimpleITK's views do not keep it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from extension_files import PACKAGES

ROOT = Path(__file__).parents[1]
FILES = [
    file
    for top in ("CTSliceTools", "LungNoduleSeg", "Testing")
    for file in sorted((ROOT / top).rglob("*.py"))
]
VIEW = "GetArrayViewFromImage"


def viewed(node: ast.AST | None) -> ast.expr | None:
    """The image that a call makes a view of; None for anything else."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    return node.args[0] if node.func.attr == VIEW else None


def views_of_nothing(source: str) -> Iterator[int]:
    """Lines with a view of an image that has no name, or of a local one that is returned."""
    for node in ast.walk(ast.parse(source)):
        image = viewed(node)
        if image is not None:
            kept = isinstance(image, ast.Name | ast.Attribute) or (
                isinstance(image, ast.Subscript)
                and not any(isinstance(part, ast.Slice) for part in ast.walk(image.slice))
            )
            if not kept:
                yield image.lineno
        if isinstance(node, ast.FunctionDef):
            given = {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}
            for part in ast.walk(node):
                returned = viewed(part.value) if isinstance(part, ast.Return) else None
                if isinstance(returned, ast.Name) and returned.id not in given:
                    yield returned.lineno


def test_every_view_is_of_an_image_that_stays() -> None:
    assert len(FILES) > len(PACKAGES)
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in FILES
        for line in views_of_nothing(file.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("a = sitk.GetArrayViewFromImage(image)", False),
        ("a = sitk.GetArrayViewFromImage(scan.images['hu'])", False),
        ("a = sitk.GetArrayViewFromImage(image > 0)", True),
        ("a = sitk.GetArrayViewFromImage(image[:, :, 2:3]) > 0", True),
        ("a = sitk.GetArrayViewFromImage(sitk.Abs(image)) > 0", True),
        ("def f(image):\n    return sitk.GetArrayViewFromImage(image)", False),
        ("def f(image):\n    b = image > 0\n    return sitk.GetArrayViewFromImage(b)", True),
    ],
)
def test_what_is_refused(source: str, refused: bool) -> None:
    assert bool(list(views_of_nothing(source))) == refused
