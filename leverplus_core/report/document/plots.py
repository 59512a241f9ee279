"""The plots of a report, as SVG whose text stays text: accuracy, differences, training curves, headroom, cost.

Readable without color: Okabe and Ito's palette ("Color universal design", 2008), and each line has its own marker and
dash and is named in the legend. Ink is one color, which a page may replace by that of its text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from leverplus_core.errors import needs_extra
from leverplus_core.report.document.blocks import Plot
from leverplus_core.report.document.content import Content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.lead import ceiling, lead_rows
from leverplus_core.report.methods import CEILING, FLOOR, Row
from leverplus_core.report.pairing import SAME
from leverplus_core.text import shown, shown_values

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1f2328"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
WIDTH = 4.8
"""Inches: at 96 per inch a little wider than a phone, so that text stays readable on one."""
LABEL = 75
"""Characters of a name; with longer ones there is no space left for what they name."""
IN_A_PANEL = 4
"""Lines beside the baseline's; more are distributed over panels."""
FONTS = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"


MARKS = {"better": ("^", PALETTE[0], PALETTE[0]), "worse": ("v", PALETTE[1], PALETTE[1]),
         "no difference seen": ("o", INK, "none")}  # fmt: skip
"""mark -> symbol, color, color of its face"""
ROLES: dict[str, tuple[Any, str, str]] = {
    "baseline": ("x", INK, INK), "beside": ("|", INK, INK), "arm": ("o", INK, "none"), "ceiling": (5, INK, INK),
}  # fmt: skip
"""role of a row without a mark -> the same"""


def draw(content: Content, say: Translator) -> list[Plot]:
    """The plots for which there is data, in order. Raises LeverplusError where matplotlib is not installed."""
    with needs_extra("report"):
        from matplotlib import rc_context

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "leverplus", "font.size": 10, "font.family": "sans-serif",
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
        "grid.color": INK, "grid.alpha": 0.15, "axes.titlesize": 10, "legend.frameon": False, "legend.fontsize": 10,
        "lines.linewidth": 1.6, "lines.markersize": 6, "text.parse_math": False,
    }  # fmt: skip
    content = Content(**shown_values(vars(content), _labels()))
    with rc_context(settings), warnings.catch_warnings():
        # The font that text is measured with may lack the glyphs; the reader's has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Names that leave no space at all are in the tables as well.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        plots = (_lead, _spent, _accuracy, _differences, _headroom, _curves, _cost)
        figures = (figure for plot in plots for figure in plot(content, say))
        return [Plot(name, title, _svg(figure, name, title)) for name, title, figure in figures]


def _labels() -> Callable[[str], str]:
    """How a text is written into a picture: shown, on one line, its middle cut where it is long, and like no other.

    matplotlib leaves labels that begin with `_` out of a legend; behind a hair space they are as others.
    """
    known: dict[str, str] = {}

    def label(text: str) -> str:
        if text not in known:
            line, taken = shown(" ".join(text.split())), set(known.values())
            line = line if len(line) <= LABEL else f"{line[: LABEL * 2 // 3]} ... {line[-LABEL // 3 :]}"
            line = f"\u200a{line}" if line.startswith("_") else line
            known[text] = next(one for i in count(1) if (one := line if i == 1 else f"{line} ({i})") not in taken)
        return known[text]

    return label


Drawn = Iterator[tuple[str, str, "Figure"]]


def _figure(heights: Sequence[float], legend: int, columns: int = 1, share: bool = False) -> tuple[Figure, Any]:
    """A figure of panels of these heights, in inches, one below the other, with space for a legend of `legend` lines;
    `share`: on the same scales."""
    from matplotlib.figure import Figure

    total = sum(heights) + 0.55 * len(heights) + 0.2 * legend + 0.3
    figure = Figure(figsize=(WIDTH, total), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots(
        len(heights), columns, squeeze=False, height_ratios=list(heights), sharex=share, sharey=share
    )
    for ax in axes.flat:
        ax.patch.set_alpha(0)
    return figure, axes if columns > 1 else axes[:, 0]


def _style(place: int) -> dict[str, Any]:
    return {
        "color": PALETTE[place % len(PALETTE)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[(place // len(PALETTE) + place) % len(DASHES)],
        "markerfacecolor": "none" if place % 2 else PALETTE[place % len(PALETTE)],
    }


def _legend(figure: Figure, axes: Sequence[Axes]) -> Figure:
    """The figure with a legend of what its axes show."""
    named: dict[str, Artist] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    # One column: labels of other alphabets are wider than they are measured.
    figure.legend(list(named.values()), list(named), loc="outside lower left", ncols=1)
    return figure


def _panels(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[i : i + IN_A_PANEL] for i in range(0, len(names), IN_A_PANEL)]


def _in_panels(title: str, panels: Sequence[Any], say: Translator, key: str = "in_panels") -> str:
    """The title, which says so where lines are distributed over panels."""
    return title if len(panels) == 1 else title + say(key, count=len(panels))


def _lead(content: Content, say: Translator) -> Drawn:
    """A row for each accuracy on the primary endpoint, so that a reader compares intervals with the baseline's line."""
    rows = lead_rows(content)
    if not rows:
        return
    figure, (ax,) = _figure([0.27 * len(rows) + 0.1], 0)
    for place, row in enumerate(rows):
        mark, role = row["mark"], row["role"]
        symbol, color, face = MARKS[mark] if mark else ROLES[role]
        low, high, at = (100 * row[key] for key in ("ci_low", "ci_high", "accuracy"))
        dash = ":" if role == "ceiling" else "-"
        ax.plot([low, high], [place, place], color=color, linewidth=2.2 if mark else 1.3, linestyle=dash)
        ax.plot([at], [place], color=color, marker=symbol, markerfacecolor=face, markersize=8 if mark else 6)
        ax.annotate(
            f"{at:.1f}", (1.01, place), xycoords=("axes fraction", "data"), va="center",
            fontweight="bold" if mark else "normal",
        )  # fmt: skip
    own = next((row for row in rows if row["role"] == "baseline"), None)
    if own:
        ax.axvline(100 * own["accuracy"], color=INK, linewidth=1, alpha=0.6, linestyle=(0, (4, 3)), zorder=0)
    ax.set_yticks(range(len(rows)), [_role_name(row, say) for row in rows])
    for row, label in zip(rows, ax.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if row["mark"] else "normal")
    ax.set_ylim(len(rows) - 0.5, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(say("axis_accuracy"))
    yield "lead", say("plot_lead", shots=say.over(rows[0]["over"]), n=rows[0]["n"]), figure


def _role_name(row: dict[str, Any], say: Translator) -> str:
    told = {"baseline": "baseline", "beside": "best_baseline", "ceiling": "ceiling_short"}.get(row["role"])
    return f"{row['label']} ({say(told)})" if told else str(row["label"])


def _spent(content: Content, say: Translator) -> Drawn:
    """Accuracy against prompts, each method a point; logarithmic from one prompt on, with zero at its left."""
    rows = content.spent
    if not rows:
        return
    from matplotlib.transforms import ScaledTranslation

    figure, (ax,) = _figure([2.8], len(rows))
    aside = _aside([row["prompts"] for row in rows])
    for place, row in enumerate(rows):
        y = 100 * row["accuracy"]
        ends = [[y - 100 * row["ci_low"]], [100 * row["ci_high"] - y]]
        style = _style(place) | {"linestyle": ""}
        beside = ScaledTranslation(aside[place] / 72, 0, figure.dpi_scale_trans)
        ax.errorbar(
            [row["prompts"]], [y], yerr=ends, label=row["label"], capsize=2, elinewidth=1,
            transform=ax.transData + beside, **style,
        )  # fmt: skip
    most = max(row["prompts"] for row in rows)
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = [0, *(10**power for power in range(0, int(np.ceil(np.log10(max(most, 1)))) + 1, 2))]
    ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ax.set_xlim(-0.4, max(most, 1) * 3)
    low, high = 100 * min(row["ci_low"] for row in rows), 100 * max(row["ci_high"] for row in rows)
    ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.set_xlabel(say("prompts"))
    ax.set_ylabel(say("axis_accuracy"))
    yield "spent", say("plot_spent"), _legend(figure, [ax])


def _aside(prompts: Sequence[float]) -> list[float]:
    """How far to draw each point from its number of prompts, in points of 1/72 inch: those within a tenth of each other
    would hide one another's intervals, so they stand side by side in their order."""
    groups: list[list[int]] = []
    for place in sorted(range(len(prompts)), key=lambda place: prompts[place]):
        near = groups and prompts[place] <= 1.1 * prompts[groups[-1][0]]
        groups[-1].append(place) if near else groups.append([place])
    found = [0.0] * len(prompts)
    for group in groups:
        step = min(7.0, 42 / len(group))
        for i, place in enumerate(sorted(group)):
            found[place] = (i - (len(group) - 1) / 2) * step
    return found


def _accuracy(content: Content, say: Translator) -> Drawn:
    compared, n = content.largest
    if not compared:
        return
    names = list(dict.fromkeys(row["arm"] for row in compared))
    panels = _panels(names)
    figure, axes = _figure([2.6] * len(panels), len(names) + 1 + len(content.ceilings), share=True)
    base = [row for row in content.grid if row["baseline"] is None and row["n"] == n]
    shots = sorted({row["shots"] for row in compared})
    for ax, held in zip(axes, panels, strict=True):
        lines: list[tuple[str, list[Row], dict[str, Any]]]
        base_name = say("cell", name=content.baseline, shots=say("baseline"))
        lines = [(base_name, base, {"color": INK, "marker": "x", "linestyle": ":"})]
        for found in content.ceilings:
            cells = [row for row in found["cells"] if row["n"] == n and row["shots"] in shots]
            lines.append((ceiling(found, content, say), cells, {"color": INK, "marker": 6, "linestyle": (0, (1, 3))}))
        lines += [(name, [r for r in compared if r["arm"] == name], _style(names.index(name))) for name in held]
        step = 0.5 / max(len(lines), 2)
        for i, (label, some, style) in enumerate(lines):
            x = [row["shots"] + (i - (len(lines) - 1) / 2) * step for row in some]
            low, y, high = ([100 * row[key] for row in some] for key in ("ci_low", "accuracy", "ci_high"))
            ends = abs(np.array([low, high]) - y)
            ax.errorbar(x, y, yerr=ends, label=label, capsize=2, elinewidth=1, **style)
        ax.set_xticks(shots)
        ax.set_ylabel(say("axis_accuracy"))
    axes[-1].set_xlabel(say("shots"))
    yield "accuracy", _in_panels(say("plot_accuracy", n=n), panels, say), _legend(figure, axes)


def _differences(content: Content, say: Translator) -> Drawn:
    """A row per interval, so that a reader compares them with zero."""
    rows, n = content.largest
    if not rows:
        return
    figure, (ax,) = _figure([0.24 * (len(rows) + len({row["arm"] for row in rows})) + 0.2], 3)
    for mark, (symbol, color, face) in MARKS.items():
        # Marks that do not occur are in the legend too: their absence is information.
        ax.plot([], [], symbol, color=color, label=say(mark), markerfacecolor=face)
    place, ticks = 0, []
    for name, group in groupby(rows, key=lambda row: row["arm"]):
        ax.annotate(name, (0, place), xycoords=("axes fraction", "data"), fontweight="bold", va="center")
        for row in group:
            place += 1
            symbol, color, face = MARKS[row["mark"]]
            low, high = 100 * row["corrected_low"], 100 * row["corrected_high"]
            ax.plot([low, high], [place, place], color=color, linewidth=1.4)
            ax.plot([100 * row["delta"]], [place], symbol, color=color, markerfacecolor=face)
            ticks.append((place, say.shots(row["shots"])))
        place += 1
    ax.axvline(0, color=INK, linewidth=1, alpha=0.6)
    ax.set_yticks(*zip(*ticks, strict=True))
    ax.set_ylim(place - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(say("axis_difference"))
    yield "differences", say("plot_differences", baseline=content.baseline, n=n), _legend(figure, [ax])


def _headroom(content: Content, say: Translator) -> Drawn:
    """For each number of shots a scale from random, or the best baseline, to the oracle, with the contenders on it."""
    rows = content.headroom
    if not rows:
        return
    names = list(dict.fromkeys(row["contender"] for row in rows))
    shots = sorted({row["shots"] for row in rows})
    panels = _panels(names)
    figure, axes = _figure([0.5 * len(shots) + 0.3] * len(panels), len(names) + 3, share=True)
    for ax, held in zip(axes, panels, strict=True):
        for i, s in enumerate(shots):
            here = [row for row in rows if row["shots"] == s and row["contender"] in held]
            # Each configuration has its own random, best baseline and oracle; equal ones are drawn once.
            low = min(row[key] for row in here for key in (FLOOR, "baseline_accuracy") if row[key] is not None)
            high = max(row[CEILING] for row in here)
            ax.plot([100 * low, 100 * high], [i, i], color=INK, alpha=0.35, linewidth=5, solid_capstyle="butt")
            best = say("best_baseline")
            for key, name, symbol in ((FLOOR, FLOOR, 4), ("baseline_accuracy", best, "|"), (CEILING, CEILING, 5)):
                ends = sorted({row[key] for row in here if row[key] is not None})
                kept = [v for j, v in enumerate(ends) if j == 0 or v - ends[j - 1] > SAME]
                label = name if i == 0 else None
                ax.plot([100 * v for v in kept], [i] * len(kept), color=INK, marker=symbol, linestyle="", label=label)
            for row in here:
                place = names.index(row["contender"])
                style = _style(place) | {"linestyle": ""}
                off = (held.index(row["contender"]) - (len(held) - 1) / 2) * 0.14
                ax.plot([100 * row["accuracy"]], [i + off], label=row["contender"] if i == 0 else None, **style)
        ax.set_yticks(range(len(shots)), [say.shots(s) for s in shots])
        ax.set_ylim(len(shots) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
    axes[-1].set_xlabel(say("axis_accuracy"))
    title = say("plot_headroom", n=max(row["n"] for row in rows))
    yield "headroom", _in_panels(title, panels, say, "in_panels_ends"), _legend(figure, axes)


JUDGED = ("accuracy", "log_probability")
"""The metrics of a training curve that choose its epoch."""


def _curves(content: Content, say: Translator) -> Drawn:
    lines = [line for line in content.curves if line["metric"] in (*JUDGED, "loss")]
    if not lines:
        return
    from matplotlib.ticker import MaxNLocator

    stages = list(dict.fromkeys(line["stage"] for line in lines))
    names = list(dict.fromkeys(say.names(line["labels"]) for line in lines))
    figure, axes = _figure([1.5] * len(stages), len(names), columns=2)
    for line in lines:
        ax = axes[stages.index(line["stage"])][0 if line["metric"] in JUDGED else 1]
        label = say.names(line["labels"])
        x, y = zip(*line["points"], strict=True)
        style = _style(names.index(label))
        ax.plot(x, y, label=label, markevery=max(1, len(x) // 6), **style)
        if line["chosen"] in x and line["metric"] in JUDGED:
            ax.plot(
                [line["chosen"]],
                [y[x.index(line["chosen"])]],
                "o",
                color=INK,
                markerfacecolor="none",
                markersize=11,
                clip_on=False,
            )
    kept = [{row["method"] for row in head["unchanged"]} for head in content.headlines]
    for stage, row in zip(stages, axes, strict=True):
        for ax, metric in zip(row, ("validation", "loss"), strict=True):
            same = metric == "validation" and kept and all(stage in methods for methods in kept)
            title = f"{stage}: {say(metric)}"
            told = [title, say("unchanged_curve")] if same else [title]
            ax.set_title(", ".join(told), loc="left")
    for ax in axes.flat:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    for ax in axes[-1]:
        ax.set_xlabel(say("axis_epoch"))
    ringed = any(line["chosen"] is not None for line in lines)
    yield "curves", say("plot_curves") + say("plot_chosen") * ringed, _legend(figure, axes.flat)


def _cost(content: Content, say: Translator) -> Drawn:
    rows = [row for row in content.cost if row["seconds"] is not None]
    if not rows:
        return
    figure, (ax,) = _figure([0.26 * len(rows) + 0.2], 0)
    seconds = [row["seconds"] for row in rows]
    bars = ax.barh([row["stage"] for row in rows], seconds, color=PALETTE[5], edgecolor=INK, linewidth=0.8, height=0.7)
    ax.bar_label(bars, [f"{s:,.1f}" for s in seconds], padding=3)
    ax.set_xlim(0, max(seconds) * 1.18 or 1)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(say("seconds"))
    yield "cost", say("plot_cost"), figure


def _svg(figure: Figure, name: str, title: str) -> str:
    """The element alone: as wide as its container, named, with ids of its own and without metadata."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    fonts = FONTS.replace("'", "&apos;")

    def tag(found: re.Match[str]) -> str:
        own = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", found[0])
        return re.sub(r"font: ([^;\"]*?)(\d[\d.]*px) [^;\"]*", rf"font: \g<1>\g<2> {fonts}", own)

    text = re.sub(r"<[^>]*>", tag, text)  # in tags alone: text may say what these look for
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1) + "\n"
