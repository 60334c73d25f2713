"""Plots of a report as SVG that follows a page's colours, light or dark."""

import io
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..names import one_line
from ..plain_values import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches from which a plot has no place on a phone in its own size.
_WIDE = 4.5
# No plot has this colour of its own; the page's text colour takes its place.
_TEXT = "#010203"
COLOURS = ("#3b7dd8", "#d9822b", "#3d9970", "#b0519e", "#8a8f98")
"""Of lines and bars, told apart on light and on dark pages: brain, ridge, control, a fourth, what is given."""
_STYLE_OF_ALL = re.compile(r"<style\b[^>]*>\s*\*\s*\{[^}]*\}\s*</style>")
_NAMESPACES = re.compile(r' xmlns(:\w+)?="[^"]*"')
_GROUP_NAMES = re.compile(r'<g id="[^"]*"')
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_STYLE = {
    "svg.fonttype": "none",
    # What names have is text, also between dollar signs.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "axes.axisbelow": True,
    "axes.edgecolor": _TEXT,
    "axes.grid": True,
    "axes.labelcolor": _TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.alpha": 0.13,
    "grid.color": _TEXT,
    "legend.frameon": False,
    "text.color": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}


def plotted(
    draw: "Callable[[Mapping[str, Any], Axes], None]",
    content: Mapping[str, Any],
    size: tuple[float, float] = (5.8, 3.3),
    label: str = "Plot",
) -> Markup | None:
    """A plot as SVG; None where matplotlib is not installed.

    Args:
        draw: Draws the content.
        content: Of a report.
        size: Width and height in inches; pages shrink wide ones where there is no room, with all their text.
        label: What it shows, for those who can't see it.
    """
    try:
        import matplotlib
        from cycler import cycler
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    # Several plots stand on one page, where what one defines must not be what another one finds.
    salt = f"{draw.__module__} {json.dumps(plain(content))}"
    style = {
        **_STYLE,
        "axes.prop_cycle": cycler(color=COLOURS),
        # Wide plots become smaller on a phone.
        "font.size": 10 if size[0] < _WIDE else 11,
        "svg.hashsalt": salt,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(content, axes)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata=_NO_METADATA)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") + len("<svg") :].replace(_TEXT, "currentColor")
    # Its style is one for all that stands on the page.
    svg = _STYLE_OF_ALL.sub("", svg)
    # A page knows what SVG is, and names no address.
    svg = _NAMESPACES.sub("", svg).replace("xlink:href", "href")
    # Groups are called alike in all plots, and nothing refers to them.
    svg = _GROUP_NAMES.sub("<g", svg)
    return Markup('<svg class="plot" role="img" aria-label="{}"').format(one_line(label, 2000)) + Markup(svg)
