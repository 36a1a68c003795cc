"""One file that opens anywhere, offline: scripts, data and pictures in the page itself, and nothing else allowed to run."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from markupsafe import Markup

# What would end the element, or begin a comment in it; line separators end a line in older scripts.
ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def plotly() -> str:
    """plotly.js, as the package brings it."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def script(source: str) -> Markup:
    """A script for the page. It is ours, never a study's."""
    if "</script" in source.lower() or "<!--" in source:
        raise ValueError("a script that ends its own element")
    return Markup(f"<script>{source}</script>")  # noqa: S704


def data(value: Any, name: str) -> Markup:
    """A value as JSON in an element that runs nothing, whatever texts of a study it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(ESCAPES)
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')  # noqa: S704


def picture(png: bytes) -> str:
    """The address of a picture that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def policy(*sources: str) -> str:
    """What a browser may do with the page: run these scripts, show what the page holds, and ask nobody for anything."""
    hashes = (base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources)
    scripts = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
