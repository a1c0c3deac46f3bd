"""A hook of MkDocs: pages that lie outside docs/, and links that work in the repository and here.

Links are written for the repository. Here they are rewritten to where the same file is on the site;
one that leads to no page is left as it is, and a strict build refuses it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
OUTSIDE = {  # page of the site: file of the repository
    "index.md": "README.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "benchmarks/RESULTS.md": "benchmarks/RESULTS.md",
}
LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s#:]+)(?=[)#])")


def on_files(files: Files, config: Any) -> Files:
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **kwargs: Any) -> str:
    here = page.file.src_uri
    folder = posixpath.dirname(OUTSIDE.get(here, f"docs/{here}"))
    pages = {source: name for name, source in OUTSIDE.items()}

    def on_the_site(link: re.Match[str]) -> str:
        file = posixpath.normpath(posixpath.join(folder, link["target"]))
        there = pages.get(file, file.removeprefix("docs/"))
        if files.get_file_from_path(there) is None:
            return link["target"]
        return posixpath.relpath(there, posixpath.dirname(here))

    return LINK.sub(on_the_site, markdown)
