"""How Sphinx builds the documents as a web site: `make site`. The navigation is the lists of README.md."""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

project = "yaptide"
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
root_doc = "README"
html_theme = "furo"
html_title = "yaptide"
html_copy_source = False
#: As on GitHub: headings of every level can be linked to, and a fenced block `mermaid` is a diagram.
myst_heading_anchors = 6
myst_fence_as_directive = ["mermaid"]

_GROUP = re.compile(r"^## (.+)\n\n((?:- .+\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^- \[(.+?)\]\((.+?)\)", re.MULTILINE)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _add_index)


def _add_navigation(_app: Sphinx, document: str, source: list[str]) -> None:
    if document == root_doc:
        for title, entries in _GROUP.findall(source[0]):
            links = "\n".join(f"{name} <{path}>" for name, path in _ENTRY.findall(entries))
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{links}\n```\n"


def _add_index(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copy(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")
