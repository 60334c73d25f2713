"""Where a subject's voxels lie, and what a number of each says, on a glass brain."""

import importlib.util
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from ..data.table_voxels import Voxels
from ..errors import FmriModelsError

_MOST_VOXELS = 3000
_INCHES = (9.0, 3.2)
_COLOURS = "viridis"
# (left, bottom, width, height) as shares of the figure: numbers beside the colours stand on no brain.
_BRAINS, _BAR = (0.0, 0.0, 0.9, 1.0), (0.92, 0.12, 0.012, 0.76)


def voxel_values(voxels: Voxels, contributions: Mapping[str, float] | None) -> tuple[np.ndarray, str]:
    """(V,) number of each voxel and what it is: its region's contribution, else its noise ceiling."""
    if contributions is not None:
        return np.array([contributions.get(name, np.nan) for name in voxels.roi]), "contribution of the voxel's region"
    if voxels.noise_ceiling is not None:
        return voxels.noise_ceiling, f"noise ceiling ({voxels.source})"
    names = list(dict.fromkeys(voxels.roi))
    return np.array([names.index(name) for name in voxels.roi], dtype=float), f"region, of {len(names)}"


def voxel_map(voxels: Voxels, values: np.ndarray) -> Image.Image | None:
    """A picture of the voxels from the left, from behind, from above and from the right; None without coordinates.

    Args:
        voxels: The voxels; of more than 3,000, a part is drawn, evenly spaced in their order.
        values: (V,) number of each.

    Raises:
        FmriModelsError: nilearn or Matplotlib is not installed.
    """
    if voxels.coordinates is None:
        return None
    known = np.flatnonzero(np.isfinite(voxels.coordinates).all(axis=1) & np.isfinite(values))
    if not len(known):
        return None
    known = known[:: -(-len(known) // _MOST_VOXELS)]
    for needed in ("nilearn", "matplotlib"):
        if importlib.util.find_spec(needed) is None:
            raise FmriModelsError(f"{needed} is not installed; install it with `pip install 'fmri_models[space]'`.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from nilearn import plotting

    # A figure of its own: pyplot's are shared by all threads.
    figure = Figure(figsize=_INCHES, facecolor="white")
    FigureCanvasAgg(figure)
    plotting.plot_markers(
        values[known],
        voxels.coordinates[known],
        node_size=6,
        node_cmap=_COLOURS,
        display_mode="lyrz",
        figure=figure,
        axes=_BRAINS,
        colorbar=False,
    )
    scale = ScalarMappable(Normalize(values[known].min(), values[known].max()), _COLOURS)
    figure.colorbar(scale, cax=figure.add_axes(_BAR))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return Image.open(buffer).convert("RGB")
