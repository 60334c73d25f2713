"""What a row of a report has for each item: pictures and embeddings."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class RowData:
    """What one row of a report has for each item.

    Args:
        images: (N, C, H, W) float in [0, 1], of the size of the true pictures, or of one that the protocol makes the
            same; None for a row without pictures.
        retrieval_embeds: (N, ...) predicted embeddings; None for a row that retrieves nothing.
    """

    images: Tensor | None = None
    retrieval_embeds: Tensor | None = None
