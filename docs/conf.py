"""The documentation as a site: `make docs`. The reference is made from the code, see `reference_pages`."""

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
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
html_static_path, html_css_files = ["site.css"], ["site.css"]
nitpicky = True
copybutton_prompt_text = "$ "


def setup(app: Sphinx) -> None:
    """Write the reference before pages are read; show data as it is, which Pygments has no colours for."""
    app.connect("builder-inited", lambda _: reference_pages.write())
    for name in ("csv", "tsv", "jsonl"):
        app.add_lexer(name, TextLexer)
