"""One HTML page: sections of prose, figures and tables, with nothing to fetch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment

from palate.report.figures import Figure


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; every cell is text and is escaped."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page; paragraphs of `text` are separated by empty lines."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


def write_page(
    path: Path, title: str, lead: str, sections: Sequence[Section], data: Mapping[str, Any] | None = None
) -> None:
    """Writes the page in one move.

    Args:
        path: The file.
        title: Its title.
        lead: A sentence below that.
        sections: Its parts.
        data: By id, what programs are to find in the page: JSON in a script element that does nothing.
    """
    # Nothing in the JSON can end the element: "<" stands only inside strings, where it may be written as an escape.
    held = {name: json.dumps(value).replace("<", "\\u003c") for name, value in (data or {}).items()}
    environment = Environment(autoescape=True)
    page = environment.from_string(_PAGE).render(title=title, lead=lead, sections=sections, held=held)
    draft = path.with_suffix(".draft")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, sans-serif; color: #222; background: #fbfaf8; margin: 0 auto; padding: 2rem 1.2rem;
       max-width: 70rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #ddd8cf; }
p { max-width: 48rem; }
.lead { color: #555; }
.figures { display: flex; flex-wrap: wrap; gap: 1.2rem; }
figure { margin: 0; padding: .8rem; background: #fff; border: 1px solid #e6e1d8; border-radius: 6px; }
figure svg { width: 100%; max-width: 29rem; height: auto; }
figcaption, caption { font-size: .85rem; color: #666; text-align: left; padding: .2rem 0; max-width: 29rem; }
caption { max-width: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; background: #fff; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem; border-bottom: 1px solid #e6e1d8; }
th { font-weight: 600; background: #f3f0ea; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="lead">{{ lead }}</p>
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% for paragraph in section.text.split("\n\n") if paragraph.strip() %}<p>{{ paragraph }}</p>
{% endfor %}
{% for table in section.tables %}
<div class="scroll"><table><caption>{{ table.caption }}</caption>
<thead><tr>{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
<div class="figures">
{% for figure in section.figures %}
<figure>{{ figure.svg | safe }}<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
</div>
</section>
{% endfor %}
{% for name, json in held.items() %}<script type="application/json" id="{{ name }}">{{ json | safe }}</script>
{% endfor %}
</body>
</html>
"""
