"""A network that judges reconstructions may not have chosen them."""

from collections.abc import Iterable

from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..names import listed
from .extractors import EXTRACTORS


def check_judges(extractors: Iterable[str], generator: ImageGenerator, settings: DrawingSettings) -> None:
    """Refuses extractors that choose among candidates which they score afterwards.

    The brain's choice among candidates is the one whose embedding, by the image generator's own encoder, is nearest to
    the decoded embedding. Where that encoder is the network of a metric, the best of several draws by the metric's own
    eyes would be scored.

    Args:
        extractors: Names of those that score.
        generator: Draws and embeds candidates.
        settings: How many candidates there are, and how one is chosen.

    Raises:
        FmriModelsError: Names the networks that would do both.
    """
    space = generator.image_embedding_space
    if space is None or settings.num_candidates < 2 or settings.selection != "brain":
        return
    both = [
        name
        for name in extractors
        if name in EXTRACTORS and any(network in space.encoder for network in EXTRACTORS[name].networks)
    ]
    if both:
        raise FmriModelsError(
            f"One of {settings.num_candidates} candidates would be chosen by {space.encoder}, the network that "
            f"{listed(both)} scores with, too; evaluate with --selection first or --candidates 1, or leave it out: "
            f"--without {','.join(both)}."
        )
