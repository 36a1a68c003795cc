"""What pages show from elsewhere in the repository goes into the site: figures, tables, and reports with their figures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"\]\(\.\./(?P<path>[^)#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the files that pages link to outside of docs/, under their paths in the repository."""
    root = Path(config.config_file_path).parent
    linked = {root / found["path"] for page in files.documentation_pages() for found in LINK.finditer(page.content_string)}
    beside = {figure for page in linked if page.suffix == ".md" for figure in page.parent.glob("*.png")}
    for path in sorted(linked | beside):
        files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point the links of pages to where these files are in the site."""
    return markdown if "/" in page.file.src_uri else LINK.sub(r"](\g<path>", markdown)
