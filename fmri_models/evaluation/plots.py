"""Plots of a report as SVG that follows a page's colours, light or dark."""

import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..plain_values import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# No plot has this colour of its own; the page's text colour takes its place.
_TEXT = "#010203"
COLOURS = ("#3b7dd8", "#d9822b", "#3d9970", "#b0519e", "#8a8f98")
"""Of lines and bars, told apart on light and on dark pages: brain, ridge, control, a fourth, what is given."""
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "text.color": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}


def plotted(
    draw: "Callable[[Mapping[str, Any], Axes], None]", content: Mapping[str, Any], size: tuple[float, float] = (7, 3.2)
) -> Markup | None:
    """A plot as SVG; None where matplotlib is not installed.

    Args:
        draw: Draws the content.
        content: Of a report.
        size: Width and height in inches.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    # Several plots stand on one page, where what one defines must not be what another one finds.
    salt = f"{draw.__module__} {json.dumps(plain(content))}"
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(content, axes)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    svg = file.getvalue()
    return Markup(svg[svg.index("<svg") :].replace(_TEXT, "currentColor"))
