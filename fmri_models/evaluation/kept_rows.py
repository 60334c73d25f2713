"""Rows that wait to be scored, in a quarter of the memory."""

from collections.abc import Sequence

import torch

from .row_data import RowData


def kept(row: RowData) -> RowData:
    """The row with the 256 levels of its pictures as bytes, which is all that is scored of them."""
    images = row.images
    if images is not None:
        images = (images.cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return RowData(images, row.retrieval_embeds)


def joined(rows: Sequence[RowData]) -> RowData:
    """Kept rows of several subjects and folds as one, with pictures as they are scored."""
    images = [row.images for row in rows if row.images is not None]
    embeds = [row.retrieval_embeds for row in rows if row.retrieval_embeds is not None]
    return RowData(
        torch.cat(images).float() / 255 if len(images) == len(rows) else None,
        torch.cat(embeds) if len(embeds) == len(rows) else None,
    )
