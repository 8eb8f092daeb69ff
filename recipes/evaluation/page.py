"""HTML building blocks of report pages, which are self-contained files."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from kzoo.files import write_text

THUMBNAIL = 160  # px

STYLE = """
:root { color-scheme: light dark; --text: #1d2330; --quiet: #5b6475; --page: #f6f7f9 }
:root { --box: #fff; --line: #e3e6ec; --code: #f1f3f6; --wrong: #b3261e; --right: #1b7f4b }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page) }
body { margin: 0 }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px }
h1 { font-size: 28px; margin: 0 0 4px } h2 { font-size: 20px; margin: 40px 0 12px }
p.sub, figcaption, .quiet { color: var(--quiet) }
section { background: var(--box); border: 1px solid var(--line); border-radius: 10px }
section { padding: 4px 24px 24px; margin-top: 24px; overflow-x: auto }
table { border-collapse: collapse }
td, th { padding: 6px 20px 6px 0; text-align: left; border-bottom: 1px solid var(--line) }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
table.facts { overflow-wrap: anywhere } table.facts th { vertical-align: top; min-width: 8em }
img.plot { max-width: 100%; height: auto }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 16px }
.gallery.wide { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)) }
figure { margin: 0 } figure img { width: 100%; border-radius: 6px; display: block }
figcaption { font-size: 13px; line-height: 1.35; padding-top: 4px; overflow-wrap: anywhere }
.wrong { color: var(--wrong) } .right { color: var(--right) }
pre { background: var(--code); padding: 12px 16px; border-radius: 6px; overflow-x: auto }
pre { font-size: 13px }
li { overflow-wrap: anywhere }
@media (max-width: 600px) {
  main { padding: 16px 12px 32px } section { padding: 4px 14px 16px }
  td, th { padding-right: 12px }
  img.plot { max-width: 560px }
  .gallery { grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: 12px }
  .gallery.wide { grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)) }
}
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8f0; --quiet: #9aa5b8; --page: #12151c; --box: #1b2029; --line: #303846 }
  :root { --code: #242b37; --wrong: #ff8a80; --right: #6fd6a0 }
  img.plot { filter: invert(.9) hue-rotate(180deg) }
}
@media print {
  :root { --text: #000; --quiet: #444; --page: #fff; --box: #fff; --line: #ccc; --code: #f4f4f4 }
  :root { color-scheme: light; --wrong: #b3261e; --right: #1b7f4b }
  body { font-size: 11px } main { max-width: none; padding: 0 }
  section { border: 0; padding: 0; overflow: visible }
  figure, table, img.plot, pre { break-inside: avoid } h2 { break-after: avoid }
  img.plot { filter: none }
  .gallery { grid-template-columns: repeat(6, 1fr); gap: 8px }
  .gallery.wide { grid-template-columns: repeat(3, 1fr) }
  pre { white-space: pre-wrap }
}
"""


def write_page(file: Path, title: str, subtitle: str, sections: Mapping[str, str]) -> None:
    """Write a page of `sections`, {heading: HTML}; empty ones are left out."""
    body = "".join(
        f"<section><h2>{html.escape(heading)}</h2>{inside}</section>"
        for heading, inside in sections.items()
        if inside
    )
    write_text(
        file,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f'<main><h1>{html.escape(title)}</h1><p class="sub">{html.escape(subtitle)}</p>{body}'
        "</main></html>\n",
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an HTML table: columns of numbers right-aligned, the first and texts left-aligned."""
    body = [[str(cell) for cell in row] for row in rows]
    of_numbers = [
        i > 0 and all(row[i][:1] in "-+.0123456789" for row in body) for i in range(len(head))
    ]

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if right else ''}>{html.escape(cell)}</{tag}>"
            for cell, right in zip(row, of_numbers, strict=True)
        )

    lines = [cells("th", head), *(cells("td", row) for row in body)]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return an HTML table of names and texts, both left-aligned."""
    lines = (f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)
    return f'<table class="facts">{"".join(lines)}</table>'


def number(value: float) -> str:
    """Return a number with three digits for a table; "-" for nan."""
    return "-" if np.isnan(value) else f"{value:.3f}"


def listed(items: Iterable[Any], none: str) -> str:
    """Return an HTML list, or the sentence `none` if it is empty."""
    inside = "".join(f"<li>{html.escape(str(item))}</li>" for item in items)
    return f"<ul>{inside}</ul>" if inside else f"<p>{html.escape(none)}</p>"


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def preformatted(text: Any) -> str:
    return f"<pre>{html.escape(str(text))}</pre>"


def settings(config: Mapping[str, Any]) -> str:
    width = max(map(len, config), default=0)
    return preformatted("\n".join(f"{key:{width}}  {value}" for key, value in config.items()))


def gallery(figures: Iterable[tuple[np.ndarray, str, str]], *, wide: bool = False) -> str:
    """Return an HTML grid of (image (H, W, 3) uint8, name, caption as HTML).

    wide: for images that need the room: pairs side by side, small writing.
    """
    inside = "".join(
        f'<figure><img src="{jpeg(image)}" alt="{html.escape(name)}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for image, name, caption in figures
    )
    kind = "gallery wide" if wide else "gallery"
    return f'<div class="{kind}">{inside}</div>' if inside else "<p>None.</p>"


def jpeg(image: np.ndarray) -> str:
    """Return an image as a data URL of a JPEG."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=80)
    return data_address(out.getvalue(), "image/jpeg")


def plot(figure: Figure, alt: str) -> str:
    """Return a figure as an <img> with an SVG data URL."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "kzoo"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    return f'<img class="plot" alt="{alt}" src="{data_address(out.getvalue(), "image/svg+xml")}">'


def data_address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
