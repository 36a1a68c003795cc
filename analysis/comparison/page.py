"""One template, two pages: Markdown, in which what comes from the study is escaped, and HTML made of that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from jinja2.sandbox import SandboxedEnvironment
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

import trainables.records.names as n
from trainables.records.untrusted import read

TEMPLATES = Path(__file__).parent.parent / "templates"
BASE, ANSWERS = "comparison.md.j2", "answers.md.j2"
"""The page of any sweep; and in a study's folder, what a person wrote for it: a template that extends the other."""
# What Markdown (GitHub's, with its mathematics) would not take for text.
SPECIAL = re.compile(r"([\\`*\[\]|$~#]|(?<!\w)_|_(?!\w))")


def markdown(folder: Path, content: Mapping[str, Any]) -> str:
    """The page in Markdown; InputError if the study's own answers can't be filled in."""
    own = _answers(folder)
    loader = jinja2.ChoiceLoader([jinja2.DictLoader({ANSWERS: own} if own else {}), jinja2.FileSystemLoader(TEMPLATES)])
    # A study's folder may come from anyone, so its template runs in a sandbox.
    environment = SandboxedEnvironment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False, finalize=escaped
    )
    environment.filters["table"] = table
    environment.globals["explanation"] = lambda name: Markup((TEMPLATES / f"how_{name}.txt").read_text("utf-8").strip())  # noqa: S704
    try:
        page = str(environment.get_template(ANSWERS if own else BASE).render(content))
    except jinja2.TemplateSyntaxError as error:
        raise n.InputError(f"{folder / ANSWERS}, line {error.lineno}: {error.message}") from None
    except n.InputError:
        raise
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise n.InputError(f"{folder / ANSWERS}: {error}; correct the template") from None
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def html(title: str, text: str) -> str:
    """The page of that Markdown in HTML, in which no HTML of the text's own is left."""
    body = str(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{(TEMPLATES / 'style.css').read_text('utf-8')}"
        "table { display: block; overflow-x: auto; }\n</style>\n</head>\n<body>\n" + body + "</body>\n</html>\n"
    )


def section_of(page: str, heading: str) -> list[str]:
    """The lines of a section of the page, without empty ones."""
    text = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in text.splitlines() if line.strip()]


def table(rows: pd.DataFrame) -> Markup:
    """A frame of text as a table in Markdown."""
    if rows.empty:
        return Markup("*(none)*")
    lines = [list(rows.columns), ["---"] * len(rows.columns), *rows.astype(str).to_numpy().tolist()]
    shown = ["| " + " | ".join(c if c == "---" else str(escaped(str(c))) for c in line) + " |" for line in lines]
    return Markup("\n".join(shown))  # noqa: S704 - escaped above


def escaped(value: Any) -> Any:
    """Text of a study as Markdown that shows it, and does nothing else."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", text)


def _answers(folder: Path) -> str | None:
    try:
        return read(folder / ANSWERS).decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise n.InputError(f"{folder / ANSWERS}: can't be read ({error}); give a text in UTF-8") from None
