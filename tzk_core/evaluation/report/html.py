"""One HTML file that needs no other: tables, and pictures as data within it."""

from __future__ import annotations

import base64
from html import escape

from .result import Table

__all__ = ["figure", "heading", "page", "paragraph", "table"]

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; }
p { max-width: 48rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 1.5rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #8884; text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #8888; font-weight: 600; }
figure { margin: 1rem 0 1.5rem; } figcaption { color: #777; max-width: 48rem; }
img { max-width: 100%; background: #fff; } img.pixels { image-rendering: pixelated; }
nav a { margin-right: 1rem; } .note { color: #777; }
"""
_LEAST_WIDTH = 480  # of a picture of whole pixels, which is enlarged to about that


def page(title: str, sections: list[tuple[str, str]], head: list[str]) -> str:
    """A page.

    Args:
        title: as text.
        sections: (heading as text, HTML of it).
        head: HTML that stands before the sections.
    """
    names = [f"part-{number}" for number in range(len(sections))]
    links = "".join(
        f'<a href="#{name}">{escape(title)}</a> ' for name, (title, _) in zip(names, sections)
    )
    body = "".join(
        f'<section id="{name}"><h2>{escape(heading)}</h2>{content}</section>\n'
        for name, (heading, content) in zip(names, sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{''.join(head)}<nav>{links}</nav>\n{body}</body></html>\n"
    )


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, *, note: bool = False) -> str:
    return f'<p class="note">{escape(text)}</p>' if note else f"<p>{escape(text)}</p>"


def table(shown: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in shown.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in shown.rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(shown.title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def figure(png: bytes, caption: str, *, pixels: bool) -> str:
    """A picture with its caption.

    Args:
        pixels: whether it is enlarged by a whole factor, pixel by pixel.
    """
    width = int.from_bytes(png[16:20], "big")  # the first field of a PNG's header chunk
    shown = width * max(1, min(4, _LEAST_WIDTH // max(width, 1))) if pixels else width
    kind = ' class="pixels"' if pixels else ""
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img{kind} width="{shown}" alt="{escape(caption)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'
    )
