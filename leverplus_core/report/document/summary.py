"""The summary: sentences that follow from the facts, each by a rule that is stated here.

- A side is called better (worse) only for cells whose corrected interval lies above (below) zero, and the cell that is
  quoted is one of these: the one with the largest sample, and of these the largest difference.
- Where no interval leaves zero out, the sentence says that no difference was seen and what could have been: never that
  the two are the same. Sides of which this is true share it.
- The highest accuracy is named as the highest of how many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby

from leverplus_core.report.document.content import Content
from leverplus_core.report.document.language import Words
from leverplus_core.report.leaderboard import percent
from leverplus_core.report.pairing import Row
from leverplus_core.report.published import exact_texts


def summary(content: Content, words: Words) -> list[str]:
    """The sentences, in order."""
    return [
        *_compared(content, words),
        *_marks(content, words),
        *_highest(content, words),
        *_printed(content, words),
        *_headroom(content, words),
        *_balanced(content, words),
    ]


def caveats(content: Content, words: Words) -> list[str]:
    """What a reader of these results must know about the runs."""
    found = [words("left_out_runs", ids=words.listed(content.left_out))] if content.left_out else []
    seeds: dict[int, list[str]] = {}
    for configuration in content.configurations:
        found += [words("unfinished", **run) for run in configuration["runs"] if run["status"] != "done"]
        seeds.setdefault(len(configuration["runs"]), []).append(configuration["label"])
    for number, labels in seeds.items():
        if number > 1:
            phrase = "seeds_all" if len(seeds) == 1 else "seeds"
            found.append(words(phrase, count=number, **({} if len(seeds) == 1 else {"sides": words.names(labels)})))
    notes: dict[str, list[str]] = {}
    for configuration in content.configurations:
        if note := configuration["runs"][0]["note"]:
            notes.setdefault(note, []).append(configuration["label"])
    return found + [words("note", label=words.names(labels), note=note) for note, labels in notes.items()]


def _compared(content: Content, words: Words) -> Iterator[str]:
    sides = content.sides
    name = words("sides_one", name=sides[0]) if len(sides) == 1 else words("sides_many", count=len(sides))
    cells = [row for row in content.grid if row["baseline"] is not None]
    cells += [row for rows in content.unpaired for row in rows if row["verdict"]]
    yield words(
        "compared",
        sides=name,
        baseline=content.baseline,
        dataset=_all(content, "dataset", words),
        model=_all(content, "model", words),
        shots=words.listed(sorted({row["shots"] for row in cells})),
        sizes=words.listed(sorted({row["n"] for row in cells})),
    )
    if content.grid:
        count = content.grid[0]["comparisons"]
        yield words("family_one") if count == 1 else words("family", count=count)


def _all(content: Content, key: str, words: Words) -> str:
    return words.listed(dict.fromkeys(c[key] or words("unknown") for c in content.configurations))


def _marks(content: Content, words: Words) -> Iterator[str]:
    compared = [row for row in content.grid if row["baseline"] is not None]
    unseen: dict[int, list[list[Row]]] = {}
    for side, group in groupby(compared, key=lambda row: row["arm"]):
        cells = list(group)
        told = []
        for mark, sign in (("better", 1), ("worse", -1)):
            some = [row for row in cells if row["mark"] == mark]
            if some:
                shown = max(some, key=lambda row: (row["n"], sign * row["delta"]))
                told.append(
                    words(
                        f"seen_{mark}",
                        side=side,
                        baseline=content.baseline,
                        count=len(some),
                        cells=len(cells),
                        shots=words.shots(shown["shots"]),
                        n=shown["questions"],
                        delta=points(shown["delta"]),
                        interval=interval(shown["corrected_low"], shown["corrected_high"]),
                    )
                )
        rest = sum(row["mark"] == "no difference seen" for row in cells)
        if told:
            yield " ".join([*told, *([words("seen_elsewhere", count=rest)] if rest else [])])
        else:
            unseen.setdefault(len(cells), []).append(cells)
    for number, sides in unseen.items():
        largest = [row for cells in sides for row in cells if row["n"] == max(cell["n"] for cell in cells)]
        yield words(
            "seen_nothing",
            sides=words.names(cells[0]["arm"] for cells in sides),
            baseline=content.baseline,
            cells=number,
            detectable=detectable(largest, words),
        )


def _highest(content: Content, words: Words) -> Iterator[str]:
    """Of the largest sample, where all have answered the same questions."""
    if not content.grid:
        return
    n = max(row["n"] for row in content.grid)
    # Without demonstrations there is one cell, however many it stands against.
    cells = list({(r["arm"], r["method"] != ZERO_SHOT and r["shots"]): r for r in content.grid if r["n"] == n}.values())
    if len({row["questions"] for row in cells}) > 1 or len(cells) < 2:
        return
    most = max(row["accuracy"] for row in cells)
    best = [row for row in cells if row["accuracy"] > most - 1e-9]
    values = {"n": cells[0]["questions"], "accuracy": percent(most)}
    if len(best) > 1:
        yield words("highest_tie", cells_named=words.names(_cell_name(row, words) for row in best), **values)
        return
    low, high = best[0]["ci_low"], best[0]["ci_high"]
    yield words(
        "highest",
        interval=f"[{percent(low)}, {percent(high)}]",
        side=best[0]["arm"],
        shots=_shots(best[0], words),
        cells=len(cells),
        **values,
    )


def _cell_name(row: Row, words: Words) -> str:
    return f"{row['arm']} ({_shots(row, words)})"


def _shots(row: Row, words: Words) -> str:
    return words.shots(0 if row["method"] == ZERO_SHOT else row["shots"])


def _printed(content: Content, words: Words) -> Iterator[str]:
    for rows in content.unpaired:
        for side, group in groupby(rows, key=lambda row: row["a_name"]):
            some = list(group)
            cells = [row for row in some if row["verdict"]]
            (overall,) = (row for row in some if row["shots"] is None and row["n"] is None)
            a, b, delta = exact_texts(overall)
            yield words(
                "printed",
                side=side,
                baseline=content.baseline,
                cells=overall["cells"],
                above=overall["wins"],
                below=overall["losses"],
                level=overall["ties"],
                a=a,
                b=b,
                delta=delta if Decimal(delta) else "0",
            )
            verdicts = [row["verdict"] for row in cells]
            yield words(
                "printed_told",
                count=cells[0]["comparisons"],
                better=verdicts.count("a better"),
                worse=verdicts.count("b better"),
                unseen=verdicts.count("no difference seen"),
            )


def _headroom(content: Content, words: Words) -> Iterator[str]:
    """At the largest number of shots, of those that learned something where there are such; a sentence for each gap."""
    learned = [row for row in content.headroom if row["method"] in LEARNED] or content.headroom
    most = max((row["shots"] for row in learned), default=0)
    gaps: dict[tuple[str, str, int], list[Row]] = {}
    for row in learned:
        if row["shots"] == most:
            gaps.setdefault((percent(row["random"]), percent(row["oracle"]), row["n"]), []).append(row)
    for (random, oracle, n), rows in gaps.items():
        shares = [
            words("headroom_share", side=row["side"], share=percent(row["share"]), interval=share_interval(row))
            for row in rows
            if row["share"] is not None
        ]
        if shares:
            yield words(
                "headroom_some", shots=words.shots(most), n=n, random=random, oracle=oracle, shares=words.names(shares)
            )
        else:
            yield words("headroom_none", shots=words.shots(most), n=n)


ZERO_SHOT = "zero_shot"
LEARNED = ("sft", "rce", "grpo", "online", "adaptive")


def _balanced(content: Content, words: Words) -> Iterator[str]:
    for row in content.data:
        yield words(
            "balanced",
            labels=words.names(row["labels"]),
            before=count(row["before"]["questions"]),
            after=count(row["after"]["questions"]),
            candidates=f"{row['after']['candidates_per_question']:.2f}",
            share=f"{100 * row['after']['positive_rate']:.2f}",
        )


# Numbers as they are written everywhere in a report.


def points(value: float) -> str:
    """A difference in points; no sign on what rounds to nothing."""
    text = f"{100 * value:+.1f}"
    return "0.0" if Decimal(text) == 0 else text


def interval(low: float, high: float) -> str:
    """With as many digits as it takes that one which leaves zero out does not seem to touch it."""
    digits = next(
        (d for d in (1, 2, 3) if (round(100 * low, d) > 0) == (low > 0) and (round(100 * high, d) < 0) == (high < 0)), 4
    )
    return f"[{100 * low:+.{digits}f}, {100 * high:+.{digits}f}]"


def share_interval(row: Row) -> str:
    ends = (row["share_low"], row["share_high"])
    return f"[{', '.join('?' if end is None else percent(end) for end in ends)}]"


def detectable(rows: Sequence[Row], words: Words) -> str:
    """The smallest differences that cells would have shown, in points: one number, or the least and the most."""
    ends = [percent(pick(row["detectable"] for row in rows)) for pick in (min, max)]
    return ends[0] if ends[0] == ends[1] else words("from_to", low=ends[0], high=ends[1])


def count(value: float) -> str:
    """A count, or the mean of counts."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
