"""One content, two pages: HTML and Markdown, in both of which everything that comes from the study is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

TEMPLATES = Path(__file__).parent.parent / "templates"
LINK = re.compile(r"\[([^\]]+)\]\((https://[^)\s]+)\)")
# What Markdown (GitHub's, with its mathematics) would not take for text.
SPECIAL = re.compile(r"([\\`*\[\]|$~#]|(?<!\w)_|_(?!\w))")


def html(content: Mapping[str, Any]) -> str:
    """The page in HTML."""
    environment = _environment(autoescape=True)
    environment.filters["prose"] = _prose
    return environment.get_template("comparison.html.j2").render(content)


def markdown(content: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    environment = _environment(autoescape=False, finalize=_escaped)
    environment.filters["table"] = _markdown_table
    environment.filters["prose"] = Markup
    return environment.get_template("comparison.md.j2").render(content)


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(  # noqa: S701 - Markdown is escaped by finalize
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True, **options
    )
    environment.globals["explanation"] = lambda name: (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8").strip()
    return environment


def _prose(text: str) -> Markup:
    """Paragraphs of our own with links in Markdown's form."""
    paragraphs = [LINK.sub(r'<a href="\2">\1</a>', str(escape(part))) for part in text.split("\n\n")]
    return Markup("\n".join(f"<p>{part}</p>" for part in paragraphs))  # noqa: S704 - escaped above


def _escaped(value: Any) -> Any:
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", text)


def _markdown_table(rows: pd.DataFrame) -> Markup:
    lines = [list(rows.columns), ["---"] * len(rows.columns), *rows.astype(str).to_numpy().tolist()]
    shown = [
        "| " + " | ".join(cell if cell == "---" else str(_escaped(str(cell))) for cell in line) + " |" for line in lines
    ]
    return Markup("\n".join(shown))  # noqa: S704 - escaped above
