"""The summary: sentences that follow from the data, each by a rule that is stated here.

- The primary endpoint comes first: its difference, interval and mark, whatever they are, and how many seeds they rest
  on; with fewer than three the sentence after it says what that does not show.
- A contender is called better (worse) only for cells whose corrected interval lies above (below) zero, and the cell
  that is quoted is one of these: the one with the largest sample, and of these the largest difference.
- Where every interval contains zero, the sentence says that no difference was seen and what could have been: never
  that the two are the same. Contenders of which this is true share it.
- The highest accuracy is named as the highest of how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import reduce
from itertools import groupby

from leverplus_core.recipes.settings import ABLATED
from leverplus_core.report.document.blocks import Group
from leverplus_core.report.document.content import Content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.headline import SEEDS, SOURCES
from leverplus_core.report.headroom import share_text
from leverplus_core.report.methods import CEILING, UNTRAINED, ZERO_SHOT, Row
from leverplus_core.report.pairing import SAME
from leverplus_core.report.published import exact_texts
from leverplus_core.report.tables import bracket, count, interval, percent, points

TOLD = 3
"""Arms with a mark that have a sentence of their own each; more of them share one."""


def compared(content: Content, say: Translator) -> str:
    """What is compared with what, on which questions."""
    return next(_compared(content, say))


def conclusions(content: Content, say: Translator) -> list[Group]:
    """The sentences by what they are about, in order; a group about which there is nothing to say is left out."""
    parts: tuple[tuple[str, tuple[Callable[[Content, Translator], Iterable[str]], ...]], ...] = (
        ("about_primary", (_endpoint, _best)),
        ("about_grid", (_family, _marks, _highest, _printed)),
        ("about_headroom", (_headroom,)),
        ("about_training", (_unchanged, _balanced)),
        ("about_care", (_asked, caveats)),
    )
    found = [(name, tuple(one for part in some for one in part(content, say))) for name, some in parts]
    return [Group(say(name), sentences) for name, sentences in found if sentences]


def summary(content: Content, say: Translator) -> list[str]:
    """What is compared, and all conclusions, in order."""
    return [compared(content, say), *(one for group in conclusions(content, say) for one in group.sentences)]


def caveats(content: Content, say: Translator) -> list[str]:
    """What a reader must know about the runs: which are left out or incomplete, seeds, notes."""
    found = [say("left_out_runs", ids=say.listed(content.left_out))] if content.left_out else []
    seeds: dict[int, list[str]] = {}
    notes: dict[str, list[str]] = {}
    for configuration in content.configurations:
        label, runs = configuration["label"], configuration["runs"]
        found += [say("unfinished", **run) for run in runs if run["status"] != "done"]
        seeds.setdefault(len(runs), []).append(label)
        if runs[0]["note"]:
            notes.setdefault(runs[0]["note"], []).append(label)
    for number, labels in seeds.items():
        if number > 1:
            everyone = say("seeds_all", count=number)
            found.append(everyone if len(seeds) == 1 else say("seeds", count=number, names=say.names(labels)))
    return found + [say("note", label=say.names(labels), note=note) for note, labels in notes.items()]


def _compared(content: Content, say: Translator) -> Iterator[str]:
    names = content.contenders
    cells = content.compared + [row for rows in content.unpaired for row in rows if row["verdict"]]
    who = say("names_one", name=names[0]) if len(names) == 1 else say("names_many", count=len(names))
    shots, sizes = (sorted({row[key] for row in cells}) for key in ("shots", "n"))
    dataset, model = (
        say.listed(dict.fromkeys(c[key] or say("unknown") for c in content.configurations))
        for key in ("dataset", "model")
    )
    numbers = sorted({len(c["runs"]) for c in content.configurations if not c["published"]})
    yield say(
        "compared", names=who, baseline=content.baseline, shots=say.over(shots), sizes=say.listed(sizes),
        dataset=dataset, model=model, seeds=say.listed(say.seeds(number) for number in numbers) or say("unknown"),
    )  # fmt: skip


def _endpoint(content: Content, say: Translator) -> Iterator[str]:
    """The comparisons of the primary families: with the best baseline and what the recipe names, and of arms."""
    known = {(row["arm"], row["baseline"]) for row in content.endpoints}
    rows = [row for row in content.primary if row["counts"] and (row["arm"], row["baseline"]) not in known]
    every = [*content.endpoints, *rows]
    for some in (content.endpoints, rows):
        yield from (_endpoint_of(row, say) for row in some) if len(some) <= TOLD else _endpoints(some, say)
    # Of other harnesses' logs nothing was trained, so that there are no seeds to miss.
    numbers = {len(c["runs"]) for c in content.configurations if not (c["published"] or c["imported"])}
    few = sorted(number for number in numbers if number < SEEDS) if every else []
    yield from (say("one_seed") if number == 1 else say("few_seeds", count=number) for number in few)


def _endpoint_of(row: Row, say: Translator) -> str:
    first = say("endpoint", **_over(row, say), **_difference(row, say))
    if row["mark"] != "no difference seen":
        return first
    return say("then", first=first, second=say("endpoint_unseen", detectable=percent(row["detectable"])))


def _endpoints(rows: Sequence[Row], say: Translator) -> Iterator[str]:
    """More than `TOLD` share a sentence, of those with the same shots, questions and seeds."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(say("endpoint_of", **_over(row, say)), []).append(
            say("endpoint_one", **_difference(row, say))
        )
    yield from (say("endpoint_list", of=of, list=say.names(some)) for of, some in groups.items())


def _over(row: Row, say: Translator) -> dict[str, object]:
    return {"shots": say.over(row["over"]), "n": row["questions"], "seeds": say.seeds(row["seeds"])}


def _difference(row: Row, say: Translator) -> dict[str, object]:
    ends = interval(row["corrected_low"], row["corrected_high"])
    return {"name": row["arm"], "baseline": row["baseline"], "delta": points(row["delta"]), "interval": ends,
            "mark": say(row["mark"])}  # fmt: skip


def _best(content: Content, say: Translator) -> Iterator[str]:
    """How the baseline to beat was found; configurations of one answer share the sentence."""
    told = []
    imported = {c["label"] for c in content.configurations if c["imported"]}
    for head in content.headlines:
        best = head["best"]
        if head["label"] in imported:
            continue  # the baseline is the log that was named, or came first
        if best is not None and best["source"] is None:
            told.append(say("best_none", name=best["name"]))
        elif best is not None:
            source = best["source"] if best["source"] in SOURCES else "folds"
            told.append(say(f"best_{source}", name=best["name"], count=best["questions"]))
    yield from dict.fromkeys(told)


def _unchanged(content: Content, say: Translator) -> Iterator[str]:
    told: dict[str, list[str]] = {}
    for head in content.headlines:
        for row in head["unchanged"]:
            sentence = say("unchanged" if row["start"] else "unchanged_untrained", **row)
            told.setdefault(sentence, []).append(head["label"])
        for row in head["untrained"]:
            told.setdefault(say("untrained", **row), []).append(head["label"])
    for sentence, labels in told.items():
        everyone = len(labels) == len(content.headlines)
        yield sentence if everyone else say("in_arms", names=say.names(labels), sentence=sentence)


def _asked(content: Content, say: Translator) -> Iterator[str]:
    if content.asked is not None:
        yield say("asked_one") if content.asked == 1 else say("asked", count=content.asked)


def _family(content: Content, say: Translator) -> Iterator[str]:
    if content.grid:
        yield family(content, say)


def family(content: Content, say: Translator) -> str:
    """How many comparisons were made, and what that means for intervals and marks."""
    comparisons = content.grid[0]["comparisons"]
    return say("family_one") if comparisons == 1 else say("family", count=comparisons)


def _marks(content: Content, say: Translator) -> Iterator[str]:
    """An arm with a mark has a sentence of its own; more than `TOLD` of one mark share one."""
    marked: dict[str, list[list[Row]]] = {"better": [], "worse": []}
    unseen: dict[int, list[list[Row]]] = {}
    for _, group in groupby(content.compared, key=lambda row: row["arm"]):
        cells = list(group)
        marks = {row["mark"] for row in cells}
        for mark, arms in marked.items():
            arms += [cells] if mark in marks else []
        if not marks & marked.keys():
            unseen.setdefault(len(cells), []).append(cells)
    told: list[list[Row]] = []
    for mark, arms in marked.items():
        if len(arms) > TOLD:
            yield _many(mark, arms, content, say)
        else:
            yield from (_one(cells, content, say) for cells in arms if cells not in told)
            told += arms
    for number, contenders in unseen.items():
        largest = [row for cells in contenders for row in cells if row["n"] == max(cell["n"] for cell in cells)]
        names = say.names(cells[0]["arm"] for cells in contenders)
        seen = detectable(largest, say)
        yield say("seen_nothing", names=names, baseline=content.baseline, cells=number, detectable=seen)


def _shown(mark: str, cells: Sequence[Row]) -> Row:
    """The cell that is quoted: one that has the mark, of the largest sample the largest difference."""
    sign = 1 if mark == "better" else -1
    return max((row for row in cells if row["mark"] == mark), key=lambda row: (row["n"], sign * row["delta"]))


def _quoted(row: Row, say: Translator) -> dict[str, object]:
    return {
        "shots": say.shots(row["shots"]), "n": row["questions"], "seeds": say.seeds(row["seeds"]),
        "delta": points(row["delta"]), "interval": interval(row["corrected_low"], row["corrected_high"]),
    }  # fmt: skip


def _one(cells: Sequence[Row], content: Content, say: Translator) -> str:
    sentences = []
    for mark in ("better", "worse"):
        if some := [row for row in cells if row["mark"] == mark]:
            values = {"name": cells[0]["arm"], "baseline": content.baseline, "count": len(some), "cells": len(cells)}
            sentences.append(say(f"seen_{mark}", **values, **_quoted(_shown(mark, cells), say)))
    rest = sum(row["mark"] == "no difference seen" for row in cells)
    sentences += [say("seen_elsewhere", count=rest)] if rest else []
    return reduce(lambda first, second: say("then", first=first, second=second), sentences)


def _many(mark: str, arms: Sequence[Sequence[Row]], content: Content, say: Translator) -> str:
    counts = [(cells[0]["arm"], sum(row["mark"] == mark for row in cells), len(cells)) for cells in arms]
    names = say.names(say("seen_count", name=name, count=some, cells=every) for name, some, every in counts)
    most = _shown(mark, [_shown(mark, cells) for cells in arms])
    values = {"count": len(arms), "baseline": content.baseline, "names": names, "name": most["arm"]}
    return say(f"seen_{mark}_many", **values, **_quoted(most, say))


def _highest(content: Content, say: Translator) -> Iterator[str]:
    """Of the largest sample, where all have answered the same questions."""
    if not content.grid:
        return
    n = max(row["n"] for row in content.grid)
    # Without demonstrations there is one cell, however many it is compared with.
    cells = list({(r["arm"], r["method"] != ZERO_SHOT and r["shots"]): r for r in content.grid if r["n"] == n}.values())
    if len({row["questions"] for row in cells}) > 1 or len(cells) < 2:
        return
    most = max(row["accuracy"] for row in cells)
    best = [row for row in cells if row["accuracy"] > most - SAME]
    shots = [say.shots(0 if row["method"] == ZERO_SHOT else row["shots"]) for row in best]
    values = {"n": cells[0]["questions"], "accuracy": percent(most)}
    if len(best) > 1:
        named = say.names(say("cell", name=row["arm"], shots=s) for row, s in zip(best, shots, strict=True))
        yield say("highest_tie", cells_named=named, **values)
    else:
        ends = bracket(best[0]["ci_low"], best[0]["ci_high"])
        yield say("highest", interval=ends, name=best[0]["arm"], shots=shots[0], cells=len(cells), **values)


def _printed(content: Content, say: Translator) -> Iterator[str]:
    for rows in content.unpaired:
        for name, group in groupby(rows, key=lambda row: row["a_name"]):
            some = list(group)
            verdicts = [row["verdict"] for row in some if row["verdict"]]
            (overall,) = (row for row in some if row["shots"] is None and row["n"] is None)
            a, b, delta = exact_texts(overall)
            values = {
                "cells": overall["cells"], "above": overall["wins"], "below": overall["losses"],
                "level": overall["ties"], "a": a, "b": b, "delta": delta if Decimal(delta) else "0",
            }  # fmt: skip
            yield say("printed", name=name, baseline=content.baseline, **values)
            better, worse, unseen = map(verdicts.count, ("a better", "b better", "no difference seen"))
            yield say("printed_marks", count=some[0]["comparisons"], better=better, worse=worse, unseen=unseen)


def _headroom(content: Content, say: Translator) -> Iterator[str]:
    """At the largest number of shots, for trained methods where there are such; a sentence for each gap."""
    learned = [row for row in content.headroom if row["method"] not in UNTRAINED and ABLATED not in row["method"]]
    rows = learned or content.headroom
    most = max((row["shots"] for row in rows), default=0)
    gaps: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in rows:
        if row["shots"] == most:
            ends = (row["baseline"], percent(row["baseline_accuracy"]), percent(row[CEILING]), row["n"])
            gaps.setdefault(ends, []).append(row)
    for (baseline, low, oracle, n), some in gaps.items():
        texts = {row["contender"]: share_text(row) for row in some if row["share"] is None or row["share"] > 0}
        told = [say("headroom_share", name=name, share=text) for name, text in texts.items() if text]
        # How far below the baseline an arm is in shares of a gap says little: the table has it.
        if below := [row["contender"] for row in some if row["contender"] not in texts]:
            told.append(say("headroom_below", names=say.listed(below)))
        shares = say.names(told)
        if shares:
            ends_ = {"baseline": baseline, "low": low, "oracle": oracle}
            yield say("headroom_some", shots=say.shots(most), n=n, shares=shares, **ends_)
        else:
            yield say("headroom_none", shots=say.shots(most), n=n, baseline=baseline)


def _balanced(content: Content, say: Translator) -> Iterator[str]:
    for row in content.data:
        before, after = row["before"], row["after"]
        values = {
            "before": count(before["questions"]), "after": count(after["questions"]),
            "candidates": f"{after['candidates_per_question']:.1f}", "share": f"{100 * after['positive_rate']:.1f}",
        }  # fmt: skip
        yield say("balanced", labels=say.names(row["labels"]), **values)


def detectable(rows: Sequence[Row], say: Translator) -> str:
    """The smallest differences that cells would have shown, in points: one number, or the least and the most."""
    low, high = (percent(pick(row["detectable"] for row in rows)) for pick in (min, max))
    return low if low == high else say("from_to", low=low, high=high)
