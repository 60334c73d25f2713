"""What stands in the place of the image generator where a recipe has none: it takes nothing and draws nothing."""

from diffusers.configuration_utils import register_to_config

from ..conditions import GUIDES
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from .recipe import Recipe
from .stage_objectives import gradient_objective


class NoImageGenerator(ImageGenerator):
    """No image generator: without embeddings, latents, pictures, or anything that could learn."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()

    @property
    def image_size(self) -> tuple[int, int, int]:
        raise FmriModelsError("The recipe has no image generator, so that there are no pictures; name one (generator).")


def check_needs_no_generator(recipe: Recipe) -> None:
    """Refuses a recipe without an image generator one of whose stages learns from pictures.

    Raises:
        FmriModelsError: Names the stage.
    """
    for stage in recipe.stages:
        if stage.training is None and recipe.targets == [GUIDES]:
            continue
        targets = None if stage.training is None else gradient_objective(recipe, stage).targets
        if targets is None or targets:
            learned = "what is decoded of pictures" if targets is None else ", ".join(targets)
            raise FmriModelsError(
                f"The recipe has no image generator (generator: null), and its stage {stage.name!r} learns from "
                f"{learned}; name one, such as generator=embedded, decode guides alone (targets: [guides]), or leave "
                "the stage out."
            )
