"""How one run draws: a pipeline's settings, and what is none of its properties, the seed and the precision."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..seeds import check_seed

# Between the seeds of an item's first picture and of its second, so that no two pictures of an evaluation share one.
SAMPLE_STRIDE = 1_000_000
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class SeededDrawing:
    """How every generated row is drawn, so that rows differ by what was decoded alone.

    Args:
        settings: What is drawn with.
        seed: Item i is drawn from `seed + i`.
        precision: What pictures are computed in: `"float32"`, or `"bfloat16"`, which a processor with instructions
            for it computes twice as fast.

    Raises:
        FmriModelsError: Another precision, or no seed.
    """

    settings: DrawingSettings
    seed: int = 0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        # Python's own number: PyTorch takes none of NumPy.
        object.__setattr__(self, "seed", check_seed(self.seed))
        if self.precision not in get_args(Precision):
            raise FmriModelsError(f"precision is {self.precision!r}; expected {' or '.join(get_args(Precision))}.")

    def computing(self, device: torch.device) -> torch.autocast:
        """A context in which pictures are computed in `precision`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def sources(self, items: int | range, samples: int = 1) -> list[torch.Generator]:
        """A source of noise for each item, the same for every row and however many are drawn together.

        Args:
            items: How many, or their numbers.
            samples: How many pictures of each; those of the second come after all first ones, from seeds that are
                `SAMPLE_STRIDE` higher.
        """
        numbers = range(items) if isinstance(items, int) else items
        seeds = [self.seed + SAMPLE_STRIDE * sample + index for sample in range(samples) for index in numbers]
        return [torch.Generator().manual_seed(seed) for seed in seeds]
