"""Pictures of a table's stimuli to look at: each in its own size, and nothing where the table has none."""

from collections.abc import Sequence

from PIL import Image

from .pictures import decode_picture
from .table import TrialTable


def stimulus_pictures(table: TrialTable, ids: Sequence[str]) -> list[Image.Image | None]:
    """The picture of each stimulus; None where there is none.

    Args:
        table: The table.
        ids: Stimuli; an empty id stands for none.

    Raises:
        FmriModelsError: An id isn't there, or a picture can't be read.
    """
    encoded = dict(table.stimuli.encoded(sorted({name for name in ids if name})))
    return [_picture(encoded.get(name), name) for name in ids]


def _picture(data: bytes | None, name: str) -> Image.Image | None:
    if data is None:
        return None
    pixels = decode_picture(data, f"stimulus {name}")
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
