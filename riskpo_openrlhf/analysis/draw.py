"""Draw panels as pictures whose lines differ in colour, style and marker, for grey print and colour blindness."""

from __future__ import annotations

import io
import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from riskpo_openrlhf.analysis.curves import STEP, Panel

# Okabe and Ito's colours, which colour-blind readers can tell apart; without the pale yellow and black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_INK, _GREY = "#1a1a1a", "#767676"
_LINES = ("-", "--", ":", "-.")
_MARKERS = "os^Dv*"
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": _GREY,
    "svg.hashsalt": "riskpo",
    "text.parse_math": False,  # names of data sources may hold a $
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


def draw(rows: Sequence[Sequence[Panel]], out: str | os.PathLike, caption: str = "") -> list[Path]:
    """Draw rows of panels to `out` (.png or .svg) and to the same name in the other format; return both files.

    Raises:
        ValueError: `out` has another suffix, or there is nothing to draw.
    """
    out = Path(out)
    if out.suffix not in (".png", ".svg"):
        raise ValueError(f"--out {out} must end in .png or .svg")
    if not any(rows):
        raise ValueError(
            "none of the runs has an evaluation (--eval.dataset, --eval.steps), and this picture needs one"
        )
    plt = _pyplot()
    series = [one for row in rows for panel in row for one in panel.series]
    runs = list(dict.fromkeys(one.run for one in series))
    named = any(one.name for one in series)
    with plt.rc_context(_STYLE):
        columns = max(map(len, rows))
        figure, grid = plt.subplots(
            len(rows), columns, figsize=(3.6 * columns, 2.8 * len(rows) + 0.5), layout="constrained", squeeze=False
        )
        for axes, row in zip(grid, rows, strict=True):
            for ax, panel in zip(axes, row, strict=False):
                _panel(ax, panel, runs, named)
            for ax in axes[len(row) :]:
                ax.set_axis_off()
        if len(runs) > 1:
            looks = (_look(place, 0 if named else place) for place in range(len(runs)))
            handles = [plt.Line2D([], [], **look) for look in looks]
            figure.legend(handles, runs, loc="outside upper center", ncols=columns, frameon=False)
        if caption:
            figure.supxlabel(textwrap.fill(caption, 60 * columns), fontsize=8, color=_GREY)
        out.parent.mkdir(parents=True, exist_ok=True)
        files = [out.with_suffix(".png"), out.with_suffix(".svg")]
        for file in files:
            figure.savefig(file, dpi=150)
        plt.close(figure)
    return files


def inline_svg(panel: Panel) -> str:
    """Draw one panel as SVG for a page: transparent, in the page's font and colours (`currentColor`, `var(--c0)`)."""
    plt = _pyplot()
    with plt.rc_context({**_STYLE, "svg.fonttype": "none"}):
        figure, ax = plt.subplots(figsize=(3.5, 2.4), layout="constrained")
        _panel(ax, panel, list(dict.fromkeys(one.run for one in panel.series)), named=True, title=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor").replace(_GREY, "var(--grey)")
    for place, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--c{place})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Group names repeat from picture to picture; definitions are named by their content, so they may repeat.
    return re.sub(r'<g id="[^"]*"', "<g", svg)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _look(place: int, line: int) -> dict:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linestyle": _LINES[line % len(_LINES)],
        "linewidth": 1.5,
        "markersize": 4,
    }


def _panel(ax, panel: Panel, runs: list[str], named: bool, title: bool = True) -> None:
    """Draw one panel. `runs` are those of the whole picture: with one, each name has a look of its own; with several,
    each run has, and each name a line style if the picture is `named`."""
    ax.set(title=panel.title if title else "", xlabel=panel.x_label, ylabel=panel.unit)
    if not panel.series:
        ax.text(0.5, 0.5, "not logged", transform=ax.transAxes, ha="center", va="center", color=_GREY)
        ax.set(xticks=[], yticks=[])
        return
    for low, high in panel.regions:
        ax.axvspan(low, high, color=_GREY, alpha=0.12, linewidth=0)
    for level in panel.levels:
        ax.axhline(level, color=_GREY, linewidth=1, linestyle=(0, (6, 3)))
    names = list(dict.fromkeys(one.name for one in panel.series))
    for one in panel.series:
        by_run, by_name = runs.index(one.run), names.index(one.name)
        place = by_run if len(runs) > 1 else by_name
        look = _look(place, by_name if named else by_run)
        every = max(1, len(one.x) // 8)
        if len(panel.series) == 1 and every > 1:
            look["marker"] = None  # a single line needs none
        if one.raw is not None:
            ax.plot(one.x, one.raw, color=look["color"], linewidth=0.7, alpha=0.35)
        ax.plot(one.x, one.y, **look, markevery=(place * every // len(_MARKERS) % every, every))
        if one.half is not None:
            half = np.nan_to_num(one.half)
            ax.fill_between(one.x, one.y - half, one.y + half, color=look["color"], alpha=0.18, linewidth=0)
    low, high = ax.get_ylim()
    if low < 0 <= min(np.fmin.reduce(one.y) for one in panel.series):
        ax.set_ylim(bottom=-0.03 * high)  # a band or the margin would reach far below 0, where no value is
    if panel.x_label == STEP:
        ax.xaxis.get_major_locator().set_params(integer=True)
    if panel.missing:
        note = "not logged: " + ", ".join(panel.missing)
        ax.text(0.99, 0.02, note, transform=ax.transAxes, ha="right", va="bottom", fontsize=7, color=_GREY)
    if len(names) > 1:
        handles = [
            ax.plot([], [], **_look(place, place) | ({"color": _GREY, "marker": None} if len(runs) > 1 else {}))[0]
            for place in range(len(names))
        ]
        ax.legend(
            handles, names, frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22),
            ncols=3 if max(map(len, names)) < 12 else 2,
        )  # fmt: skip
