"""What a call of a pipeline asks for, passed whole."""

from dataclasses import dataclass, field, replace

import torch

from .drawing_settings import DrawingSettings
from .errors import FmriModelsError
from .generation.image_generator import ImageGenerator
from .generation.step_callback import StepCallback
from .seeds import checked_generators


@dataclass(frozen=True)
class DrawingRequest:
    """How pictures are drawn and chosen, and what is returned of them.

    Args:
        settings: What is drawn with.
        true_images: (N, C, H, W) in [0, 1], by which an oracle chooses; None where none does.
        generator: One source of noise for all, or one a pattern.
        output_type: `"pil"`, `"np"`, `"pt"` or `"latent"`.
        on_step_end: What the caller does at the end of each denoising step.
    """

    settings: DrawingSettings
    true_images: torch.Tensor | None = None
    generator: torch.Generator | list[torch.Generator] | None = None
    output_type: str = "pil"
    on_step_end: StepCallback = field(default_factory=StepCallback)

    @property
    def selection(self) -> str:
        """Who chooses among candidates: `"brain"`, `"oracle"` or `"first"`."""
        return self.settings.selection if self.true_images is None else "oracle"

    def of_patterns(self, number: int, image_generator: ImageGenerator) -> "DrawingRequest":
        """The request of so many patterns.

        Raises:
            FmriModelsError: The sources of noise or the true pictures are not one of each.
        """
        generator = checked_generators(self.generator, number)
        if self.true_images is not None:
            _check_true_images(self.true_images, number, image_generator)
        return replace(self, generator=generator)


def _check_true_images(true_images: torch.Tensor, number: int, image_generator: ImageGenerator) -> None:
    """Refuses true pictures that are not one of each pattern (a single one would be taken for that of all), or none.

    Whether there is anything to choose from does not matter.
    """
    found = tuple(true_images.shape) if isinstance(true_images, torch.Tensor) else type(true_images).__name__
    if not isinstance(true_images, torch.Tensor) or true_images.ndim != 4 or len(true_images) != number:
        raise FmriModelsError(
            f"true_images is {found} for {number} patterns; expected a tensor ({number}, C, H, W), the picture that "
            "belongs to each."
        )
    image_generator.check_images(true_images, any_size=image_generator.embeds_any_size)
