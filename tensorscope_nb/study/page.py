"""The report as one page: the linked dashboard, and below it what each result is and holds."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from tensorscope_nb.study.metadata import metadata, partial
from tensorscope_nb.study.summary import Row, Summary, models, summary

STYLE = """<style>
.report { font: 14px/1.5 system-ui, sans-serif; margin: 32px 6px 0; }
.report h2 { font-size: 16px; margin: 32px 0 4px; }
.report p { margin: 4px 0; max-width: 110ch; overflow-wrap: anywhere; }
.report .facts, .report th, .report .note { color: #5a6270; }
.report .partial { font-size: 12px; font-weight: 600; margin-left: 8px; padding: 2px 8px; border-radius: 10px; }
.report .partial { background: #fdecc8; color: #6b4200; }
.report .wide { overflow-x: auto; margin: 12px 0 0; }
.report table { border-collapse: collapse; font-size: 13px; }
.report th { font-weight: 500; text-align: left; white-space: nowrap; }
.report th, .report td { padding: 3px 14px 3px 0; border-bottom: 1px solid #e3e6ea; vertical-align: top; }
.report td.name { font-family: ui-monospace, monospace; white-space: nowrap; }
.report td.short { white-space: nowrap; }
.report .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (prefers-color-scheme: dark) {
.report .facts, .report th, .report .note { color: #9aa3b0; }
.report .partial { background: #4a3710; color: #ffd98a; }
.report th, .report td { border-color: #2c3038; }
}
</style>
"""
# Of results that are single numbers there is no picture: the page runs and loads nothing.
NOTHING = "default-src 'none'; style-src 'unsafe-inline'"
PLAIN = """<body>
<h1>{title}</h1>
{below}
</body>
</html>
"""
INTERRUPTED = "the run was interrupted, and this is what it had done"
COLUMNS = {
    "variable": "",
    "what it is": "",
    "dimensions": "",
    "unit": "",
    "mean": "number",
    "lowest": "number",
    "highest": "number",
}


def write_page(results: Mapping[str, xr.Dataset], path: Path) -> None:
    from tensorscope_nb.views.dashboard import dashboard
    from tensorscope_nb.views.export import HEAD, export_html

    said = [metadata(result) for result in results.values()]
    partly = ", partly of interrupted runs" if any(partial(of) for of in said) else ""
    title = _encodable(f"Study of {'; '.join(dict.fromkeys(models(of, weights=False) for of in said))}{partly}")
    below = _encodable(STYLE + '<div class="report">' + "".join(_section(n, summary(r)) for n, r in results.items()) + "</div>")
    try:
        view = dashboard(results)
    except ValueError:  # no view fits
        page = (HEAD + PLAIN).format(policy=html.escape(NOTHING), title=html.escape(title), below=below)
        path.write_text(page, encoding="utf-8")
    else:
        export_html(view, path, title=title, below=below)


def _section(name: str, said: Summary) -> str:
    badge = f'<span class="partial">partial: {html.escape(said.partial)}</span>' if said.partial else ""
    notes = [f"{INTERRUPTED.capitalize()}."] * bool(said.partial) + [*said.notes]
    note = "".join(f'<p class="note">{html.escape(each)}</p>' for each in notes)
    question = f"<p>{html.escape(said.question)}</p>" if said.question else ""
    facts = f'<p class="facts">{html.escape(" · ".join(said.facts))}</p>'
    table = f'<div class="wide">{_table(said.rows)}</div>' if said.rows else ""
    return f"<section><h2>{html.escape(name)}{badge}</h2>{note}{question}{facts}{table}</section>\n"


def _table(rows: Sequence[Row]) -> str:
    counted = any(row.undefined for row in rows)
    columns = COLUMNS | ({"undefined": "number"} if counted else {})
    heads = "".join(f'<th class="{kind}">{word}</th>' for word, kind in columns.items())
    lines = "".join(f"<tr>{_cells(row)}{_cell(row.undefined, 'number') if counted else ''}</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _cells(row: Row) -> str:
    told = _cell(row.name, "name") + _cell(row.meaning) + _cell(row.dims or "–", "short") + _cell(row.units, "short")
    if row.ranges is None:
        return told + f'<td colspan="3" class="number">{html.escape(row.holds)}</td>'
    return told + "".join(_cell(text, "number") for text in row.ranges)


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{html.escape(text)}</td>'


def _encodable(text: str) -> str:
    """A lone surrogate, which UTF-8 cannot hold, as its number."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
