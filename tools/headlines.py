"""Write what README and CHANGELOG say about results from the results pages, or with --check say what is out of date.

    python tools/headlines.py [--check]

`<!-- headline PAGE: begin -->` ... `<!-- headline: end -->` holds the sentence that follows from the primary endpoint
that docs/results/PAGE.md shows first, as `leverplus run` prints it; `<!-- table PAGE: begin -->` ...
`<!-- table: end -->` its table of methods. Both are computed from the printed output on that page, nothing else.

No page may contradict another: a difference with its interval that README, CHANGELOG, a page of docs or the prose of a
results page quotes must be printed on a results page.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUOTING = ("README.md", "CHANGELOG.md")
OWN_FIGURES = ("tutorial.md", "own-data.md", "own-reward.md", "candidates.md", "harnesses.md")
"""Pages of docs that show an experiment of their own."""
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"[+-]?\d+\.\d+ \[[+-]\d+\.\d+, [+-]\d+\.\d+\]")
"""A difference and its interval."""
ENDPOINT = re.compile(r"^primary endpoint of .*: mean over ([\d, ]+) shots, n = (\d+), (\d+ seeds?)$", re.MULTILINE)
PRIMARY = re.compile(
    r"^(\S+) - (\S+)( \(best baseline\))? +([+-]?[\d.]+) (\[[^\]]+\]) +(better|worse|no difference seen) *$",
    re.MULTILINE,
)
REGION = re.compile(
    r"^( *)<!-- (headline|table) ([\w.-]+): begin -->\n(.*?)^ *<!-- \2: end -->$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Endpoint:
    """A printed primary endpoint: `text` is the block from its title to the end of the command's output."""

    shots: str
    n: int
    seeds: str
    text: str

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """method, other, ' (best baseline)' or '', difference, interval and mark of each comparison."""
        found = [row.groups("") for row in PRIMARY.finditer(self.text)]
        if not found:
            raise ValueError("the page's primary endpoint has no comparison")
        return found


def endpoints(page: str) -> list[Endpoint]:
    """The primary endpoints that the page shows, in order."""
    return [
        Endpoint(found[1], int(found[2]), found[3], page[found.start() :].partition("```")[0])
        for found in ENDPOINT.finditer(page)
    ]


def headline(found: Endpoint) -> str:
    """One sentence on the comparisons of a primary endpoint, by their marks."""
    told = []
    for method, other, best, difference, interval, mark in found.rows:
        name = f"the best baseline `{other}`" if best else f"`{other}`"
        claim = f"no difference between `{method}` and {name} is seen"
        if mark != "no difference seen":
            claim = f"`{method}` is {mark} than {name}"
        told.append(f"{claim} ({difference} {interval})")
    many = len(told)
    rest = f"corrected for {many} comparisons" if many > 1 else "with the 95% interval of this one comparison"
    where = f"On {found.n:,} questions, mean over {found.shots} shots, {found.seeds}"
    return f"{where}: {'; '.join(told)}; points of accuracy, {rest}."


def table(found: Endpoint) -> str:
    """The methods of a primary endpoint as they are printed, as Markdown."""
    lines = found.text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("method "))
    best = lines[start].split()[2]
    rows = [["", "accuracy", f"minus `{best}`", "gap closed", "copied", "prompts"], ["---"] + ["---:"] * 5]
    body = lines[start + 2 :]
    for number, line in enumerate(body):
        words = line.split()
        if len(words) != 6 or not all(re.fullmatch(r"-|[+-]?[\d.,]+", word) for word in words[1:]):
            continue
        method, *cells = words
        below = body[number + 1] if number + 1 < len(body) else ""
        ends = iter(re.findall(r"\[[^\]]+\]", below))
        name = f"{method}{below.split()[0]}" if below.startswith("+") else method
        shown = [cell if cell == "-" else f"{cell} {next(ends, '')}".strip() for cell in cells[:3]]
        bold = "**" if name == found.rows[0][0] else ""
        rows.append([f"{bold}`{name}`{bold}", *shown, *cells[3:]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def filled(text: str, pages: Path) -> str:
    """`text` with its regions written from the results pages in the folder `pages`."""

    def fill(match: re.Match[str]) -> str:
        indent, kind, name, _ = match.groups()
        found = endpoints((pages / f"{name}.md").read_text(encoding="utf-8"))
        if not found:
            raise ValueError(f"{name}.md shows no primary endpoint")
        made = table(found[0]) if kind == "table" else wrapped(headline(found[0]), 120 - len(indent))
        inside = textwrap.indent(f"<!-- {kind} {name}: begin -->\n{made}\n<!-- {kind}: end -->", indent)
        return inside

    return REGION.sub(fill, text)


def wrapped(text: str, width: int) -> str:
    """`text` in lines of `width`, no difference being cut from its interval."""
    whole = re.sub(r"[+-][\d.]+ \[[^\]]+\]", lambda found: found[0].replace(" ", "\0"), text)
    return "\n".join(textwrap.wrap(whole, width)).replace("\0", " ")


def contradictions(root: Path) -> list[str]:
    """`PAGE: FIGURE` for each quoted difference that no results page shows in printed output."""
    results = sorted((root / "docs" / "results").glob("*.md"))
    texts = {path: path.read_text(encoding="utf-8") for path in results}
    printed = {figure for text in texts.values() for figure in _figures("".join(FENCED.findall(text)))}
    # A difference in a table of methods stands above its interval.
    printed |= {figure for text in texts.values() for found in endpoints(text) for figure in _figures(table(found))}
    # What `leverplus report` wrote is output as a whole.
    printed |= {figure for path, text in texts.items() if path.with_name(f"{path.name}.files").is_dir()
                for figure in _figures(text)}  # fmt: skip
    pages = [path for path in sorted((root / "docs").glob("*.md")) if path.name not in OWN_FIGURES]
    quoting = [*(root / name for name in QUOTING), *pages, *results]
    quoted = [(path, figure) for path in quoting for figure in _figures(path.read_text(encoding="utf-8"))]
    return [f"{path.relative_to(root)}: {figure}" for path, figure in quoted if figure not in printed]


def _figures(text: str) -> list[str]:
    return [figure.lstrip("+") for figure in QUOTED.findall(" ".join(text.split()))]


def main() -> None:
    stale = []
    for name in QUOTING:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if (made := filled(text, ROOT / "docs" / "results")) != text:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(made, encoding="utf-8")
                print(f"wrote {name}")
    if stale and "--check" in sys.argv[1:]:
        sys.exit(f"out of date: {', '.join(stale)}. Run `python tools/headlines.py`.")
    if found := contradictions(ROOT):
        sys.exit(f"quoted, but printed on no results page: {'; '.join(found)}.")


if __name__ == "__main__":
    main()
