"""Stimuli that move: where a clip is, and its frames where a table has them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FmriModelsError
from ..names import check_line
from ..plain_values import ShortRepr
from . import schema
from .pictures import decode_picture


@dataclass(frozen=True, repr=False)
class Clip(ShortRepr):
    """A stimulus that moves.

    Attributes:
        stimulus_id: Its id.
        file: The file that it is part of, as the release names it; empty where only frames are there.
        start: Its first second in the file; None where unknown.
        seconds: How long it is; None where unknown.
        frames: Encoded pictures, in order; empty where the table has none, or they were not asked for.
    """

    stimulus_id: str
    file: str = ""
    start: float | None = None
    seconds: float | None = None
    frames: tuple[bytes, ...] = ()

    @classmethod
    def of_row(cls, stimulus_id: str, row: Mapping[str, Any]) -> "Clip":
        """As its column has it.

        Raises:
            FmriModelsError: A frame is missing, there are too many, or the file's name is no line of text.
        """
        frames = row.get("frames") or []
        if len(frames) > schema.MAX_FRAMES or any(frame is None or frame["bytes"] is None for frame in frames):
            raise FmriModelsError(
                f"The clip of {stimulus_id} has {len(frames)} frames, or one that is missing; expected "
                f"{schema.MAX_FRAMES} at most; prepare the table again."
            )
        return cls(
            stimulus_id,
            check_line(row.get("file") or "", f"file of the clip of {stimulus_id}"),
            row.get("start"),
            row.get("seconds"),
            tuple(frame["bytes"] for frame in frames),
        )

    def pixels(self) -> np.ndarray:
        """The frames, uint8 (frames, H, W, C).

        Raises:
            FmriModelsError: There are none, one can't be decoded, or their sizes differ.
        """
        if not self.frames:
            where = f", a part of {self.file}" if self.file else ""
            raise FmriModelsError(
                f"The table has no frames of the clip {self.stimulus_id}{where}; ask for them with frames=True, or "
                "prepare the table with frames."
            )
        decoded = [
            decode_picture(data, f"frame {number} of {self.stimulus_id}") for number, data in enumerate(self.frames)
        ]
        if len({frame.shape[:2] for frame in decoded}) > 1:
            raise FmriModelsError(f"The frames of the clip {self.stimulus_id} have several sizes; prepare it again.")
        channels = max(frame.shape[2] for frame in decoded)
        return np.stack([np.repeat(f, 3, axis=2) if f.shape[2] < channels else f for f in decoded])
