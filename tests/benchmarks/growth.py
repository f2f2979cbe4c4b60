"""How time grows with the amount of work: curves on logarithmic scales."""

import matplotlib

matplotlib.use("svg")
# The same numbers give the same file.
matplotlib.rcParams.update({"svg.hashsalt": "ikat", "svg.fonttype": "none", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402

COLOURS = ["#0072b2", "#d55e00", "#009e73"]


def draw(path, panels):
    """Writes an SVG with a panel for each of `panels`: a title, what is counted, and for each line its name and the
    seconds by count. Grey lines show how work grows that is linear, or quadratic."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.4), squeeze=False)
    for axis, (title, counted, lines) in zip(axes[0], panels):
        counts = sorted({count for line in lines.values() for count in line})
        for (name, line), colour in zip(lines.items(), COLOURS):
            axis.plot(list(line), list(line.values()), marker="o", markersize=4, color=colour, label=name)
        first = next(iter(lines.values()))
        begin = min(first)
        for power, style in [(1, "--"), (2, ":")]:
            slope = [first[begin] * (count / begin) ** power for count in counts]
            name = ["linear", "quadratic"][power - 1]
            axis.plot(counts, slope, style, color="#999999", linewidth=1, label=name, zorder=0)
        axis.set(xscale="log", yscale="log", xlabel=counted, ylabel="seconds", title=title)
        axis.set_xticks(counts)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}".replace(",", " ")))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.tick_params(axis="x", labelrotation=30)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
