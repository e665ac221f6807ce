"""The report as one page of plain HTML and CSS: it needs no network, no scripts and nothing but its clips beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from yozora.evaluate.section import Section

STYLE = """
:root { color-scheme: light dark; --ink: #1a1f2b; --soft: #5b6475; --line: #dfe3ea; --back: #fbfbfd; --card: #fff;
  --good: #1a7f4b; --bad: #c0362c; --accent: #3346a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9f0; --soft: #98a2b5; --line: #2b3242; --back: #0f131c; --card: #161b27; --good: #4cc38a;
    --bad: #ff8077; --accent: #9db0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main, header, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 3rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.02em; }
h2 { font-size: 1.35rem; margin: 0 0 .4rem; letter-spacing: -.01em; }
p { margin: .4rem 0 1rem; max-width: 52rem; }
.soft, footer { color: var(--soft); }
nav { margin: 1rem 0 0; display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; }
a { color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1.2rem 0 0; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
section { margin: 2.2rem 0; padding: 1.4rem 1.5rem 1.5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .8rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .8rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: baseline; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; } tbody th { font-weight: 500; }
ul.notes { margin: 1rem 0 0; padding-left: 1.1rem; color: var(--soft); font-size: .9rem; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: 1rem; margin-top: 1.3rem; }
figure { margin: 0; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; background: var(--back); }
figure.good { border-color: var(--good); } figure.bad { border-color: var(--bad); }
video { display: block; width: 100%; height: auto; background: #000; }
figcaption { padding: .5rem .65rem .6rem; font-size: .8rem; line-height: 1.4; overflow-wrap: anywhere; }
.mark { display: block; font-weight: 600; } .good .mark { color: var(--good); } .bad .mark { color: var(--bad); }
footer { padding-bottom: 3rem; font-size: .88rem; }
"""
MARKS = {True: ("good", "✓ as asked"), False: ("bad", "✗ not as asked"), None: ("", "")}


def page(title: str, facts: Mapping[str, str], sections: Sequence[Section], files: Sequence[Sequence[str]]) -> str:
    """The whole page. `facts` stand under the title; `files` are, for each section, the paths of its clips."""
    links = "".join(f'<a href="#s{number}">{_text(s.title)}</a>' for number, s in enumerate(sections))
    terms = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    body = "\n".join(_section(number, s, files[number]) for number, s in enumerate(sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{_text(title)}</h1><dl>{terms}</dl><nav>{links}</nav></header>
<main>
{body}
</main>
<footer>
<p>Made by <code>yozora evaluate</code>. Its figures for programs: <a href="report.json">report.json</a>.</p>
</footer>
</body>
</html>
"""


def _section(number: int, section: Section, files: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in section.columns)
    rows = "\n".join(_row(row) for row in section.rows)
    notes = "".join(f"<li>{_text(note)}</li>" for note in section.notes)
    clips = "\n".join(_clip(s.caption, s.good, s.clip.size, path) for s, path in zip(section.clips, files, strict=True))
    return f"""<section id="s{number}">
<h2>{_text(section.title)}</h2>
<p class="soft">{_text(section.about)}</p>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table></div>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
{f'<div class="clips">{clips}</div>' if clips else ""}
</section>"""


def _row(row: Sequence[str]) -> str:
    cells = "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
    return f'<tr><th scope="row">{_text(row[0])}</th>{cells}</tr>'


def _clip(caption: str, good: bool | None, size: tuple[int, int], path: str) -> str:
    kind, mark = MARKS[good]
    said = f'<span class="mark">{mark}</span>' if mark else ""
    return (
        f'<figure class="{kind}"><video src="{_text(path)}" width="{size[0]}" height="{size[1]}" controls autoplay '
        f'loop muted playsinline preload="metadata"></video><figcaption>{said}{_text(caption)}</figcaption></figure>'
    )


def _text(value: Any) -> str:
    """Escaped for text and for attributes in double quotes."""
    return escape(str(value), quote=True)
