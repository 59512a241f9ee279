"""Write what README and CHANGELOG say about results from the results pages, or with --check say what is out of date.

    python tools/headlines.py [--check]

`<!-- headline PAGE: begin -->` ... `<!-- headline: end -->` holds the sentence that follows from the primary endpoint
that docs/results/PAGE.md shows first, as `leverplus run` prints it; `<!-- table PAGE: begin -->` ...
`<!-- table: end -->` its table of methods. A page without one has the sentence and table of its first
`leverplus compare`. All are computed from the printed output of the commands on that page and from nothing else.

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
OWN_FIGURES = ("tutorial.md",)
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
ROW = re.compile(
    r"^ *(\d+) +(\d+) +([\d.]+) +([\d.]+) +([+-]?[\d.]+) (\[[^\]]+\]) +\S+ (a better|b better|no difference seen)$",
    re.MULTILINE,
)
GAP = re.compile(r"^ *(\d+) +\d+ .* ([\d.-]+) \[([\d.-]+), ([\d.-]+)\]$", re.MULTILINE)


@dataclass(frozen=True)
class Compared:
    """A row of a printed comparison; `difference` in points, with its corrected `interval` as printed."""

    shots: int
    n: int
    difference: float
    interval: str
    verdict: str


def transcript(page: str, command: str) -> str:
    """The printed output of the first `leverplus COMMAND ...` on the page. Raises ValueError where there is none."""
    found = re.search(rf"^\$ leverplus {command}\b[^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"the page shows no `leverplus {command}`")
    return found[1]


def comparison(page: str) -> tuple[str, str, list[Compared]]:
    """The two methods of the first comparison on the page, and its rows at the largest sample."""
    text = transcript(page, "compare")
    a, b = (re.search(rf"^{name} = .*:(\S+)$", text, re.MULTILINE) for name in "ab")
    rows = [Compared(int(r[1]), int(r[2]), float(r[5]), r[6], r[7]) for r in ROW.finditer(text)]
    if a is None or b is None or not rows:
        raise ValueError("the page's first comparison is not one of two methods")
    largest = max(row.n for row in rows)
    return a[1], b[1], [row for row in rows if row.n == largest]


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


def endpoint(page: str) -> Endpoint | None:
    """The first primary endpoint that the page shows."""
    found = ENDPOINT.search(page)
    return Endpoint(found[1], int(found[2]), found[3], page[found.start() :].partition("```")[0]) if found else None


def endpoint_headline(found: Endpoint) -> str:
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


def endpoint_table(found: Endpoint) -> str:
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


def headline(page: str) -> str:
    """One sentence on the primary endpoint of the page, or its first comparison, by the verdicts of its rows."""
    if (found := endpoint(page)) is not None:
        return endpoint_headline(found)
    a, b, rows = comparison(page)
    family = len(ROW.findall(transcript(page, "compare")))
    told = []
    for verdict, claim in (
        ("a better", f"`{a}` outperforms `{b}` at"),
        ("b better", f"`{a}` is outperformed by `{b}` at"),
        ("no difference seen", f"no difference between `{a}` and `{b}` is seen at"),
    ):
        if some := [row for row in rows if row.verdict == verdict]:
            differences = ", ".join(f"{row.difference:+.1f} {row.interval}" for row in some)
            told.append(f"{claim} {_shots(some)} ({differences})")
    units = "accuracy of the first minus the second in points"
    return f"On {rows[0].n:,} questions {'; '.join(told)}: {units}, with intervals corrected for {family} comparisons."


def _shots(rows: list[Compared]) -> str:
    shots = [row.shots for row in rows]
    if len(shots) > 2 and shots == list(range(shots[0], shots[-1] + 1)):
        return f"{shots[0]} to {shots[-1]} shots"
    return f"{' and '.join(map(str, shots))} shot{'' if shots == [1] else 's'}"


def table(page: str) -> str:
    """The methods of the page's primary endpoint; without one accuracies by shots, its first comparison and the shares
    of the gap. As Markdown."""
    if (found := endpoint(page)) is not None:
        return endpoint_table(found)
    a, b, rows = comparison(page)
    lines = transcript(page, "leaderboard").splitlines()
    head = next(line for line in lines if line.startswith("method "))
    columns = [int(shots) for shots in re.findall(r"(\d+) shots?", head)]
    accuracies = {
        line.split()[0]: dict(zip(columns, line.split()[1:], strict=True)) for line in lines if _is_row(line, columns)
    }
    shots = [row.shots for row in rows]
    shares = {int(r[1]): f"[{float(r[3]):.0f}, {float(r[4]):.0f}]" for r in GAP.finditer(transcript(page, "headroom"))}
    found = [["", *(f"{s} shot{'' if s == 1 else 's'}" for s in shots)], ["---"] + ["---:"] * len(shots)]
    for method in ("random", "text_knn", "image_knn", a, "oracle"):
        values = [accuracies[method][s] for s in shots]
        found.append([f"`{method}`", *(f"**{value}**" if method == a else value for value in values)])
    found.append([f"`{a}` minus `{b}`, corrected interval", *(row.interval for row in rows)])
    found.append(["share of the gap from random to oracle, 95%", *(shares[s] for s in shots)])
    return "\n".join(f"| {' | '.join(row)} |" for row in found)


def _is_row(line: str, columns: list[int]) -> bool:
    words = line.split()
    return len(words) == len(columns) + 1 and all(re.fullmatch(r"-|[\d.]+", word) for word in words[1:])


def filled(text: str, pages: Path) -> str:
    """`text` with its regions written from the results pages in the folder `pages`."""

    def fill(match: re.Match[str]) -> str:
        indent, kind, name, _ = match.groups()
        page = (pages / f"{name}.md").read_text(encoding="utf-8")
        made = table(page) if kind == "table" else wrapped(headline(page), 120 - len(indent))
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
    if found := contradictions(ROOT):
        sys.exit(f"quoted, but printed on no results page: {'; '.join(found)}.")
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


if __name__ == "__main__":
    main()
