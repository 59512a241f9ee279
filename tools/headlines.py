"""Write what README and CHANGELOG say about results from the results pages, or with --check say what is out of date.

    python tools/headlines.py [--check]

`<!-- headline PAGE: begin -->` ... `<!-- headline: end -->` holds the sentence that follows from the first comparison
that docs/results/PAGE.md shows; `<!-- table PAGE: begin -->` ... `<!-- table: end -->` its accuracies, differences and
shares of the gap. Both are computed from the printed output of the commands on that page and from nothing else.
"""

from __future__ import annotations

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUOTING = ("README.md", "CHANGELOG.md")
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


def headline(page: str) -> str:
    """One sentence on the first comparison of the page, by the verdicts of its rows."""
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
    """Accuracies by shots, the first comparison of the page and the shares of the gap, as Markdown."""
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


if __name__ == "__main__":
    main()
