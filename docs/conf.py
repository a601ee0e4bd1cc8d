"""Sphinx's settings of the site, which `make docs` builds into build/docs."""

import os
import sys
from pathlib import Path

from CTLungScreeningLib import __version__

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))

from site_parts import repository  # noqa: E402

project = "CTLungScreening"
author = "CTLungScreening contributors"
copyright = author
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "site_parts",
]
exclude_patterns = ["generated/*/modules.rst"]

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # one backtick, as in all our docstrings
autodoc_mock_imports = ["ctk", "qt", "slicer", "vtk"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_attr_annotations = False  # the signature has them
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a field is described once
python_use_unqualified_type_names = True
suppress_warnings = ["ref.python"]  # a short name that two modules have
# Pages of packages heed no other setting of it.
os.environ["SPHINX_APIDOC_OPTIONS"] = "members,show-inheritance"
apidoc_modules = [
    {
        "path": f"../{folder}/{package}",
        "destination": f"generated/{package}",
        "max_depth": 1,
        "module_first": True,
        "exclude_patterns": [
            f"../{folder}/{package}/{part}" for part in ("__main__.py", "cli.py", "commands")
        ],
    }
    for folder, package in (
        ("CTSliceTools", "CTLungScreeningLib"),
        ("CTSliceTools", "CTSliceToolsLib"),
        ("LungNoduleSeg", "LungNoduleSegLib"),
    )
]

html_theme = "furo"
html_title = f"CTLungScreening {release}"
html_logo = "icons/CTLungScreening.svg"
html_favicon = "icons/CTLungScreening.png"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"source_repository": repository(), "source_branch": "main"}
html_theme_options["source_directory"] = "docs/"
