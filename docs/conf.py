"""The documentation as a site: `make docs`. The reference is made from the code, see `reference_pages`."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages

from runner import __version__

project, author, release = "recipe", "the recipe authors", __version__
extensions = ["myst_parser", "sphinx_copybutton"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["ci/*"]
html_theme = "furo"
html_title = "recipe"
html_copy_source = False
nitpicky = True
copybutton_prompt_text = "$ "


def setup(app: Sphinx) -> None:
    """Write the reference before pages are read."""
    app.connect("builder-inited", lambda _: reference_pages.write())
