"""Image generators by name."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..errors import FmriModelsError
from .image_generator import ImageGenerator


def _embedded(image_size: tuple[int, int, int]) -> ImageGenerator:
    from .embedded import EmbeddedImageGenerator

    return EmbeddedImageGenerator.from_assets()


def _pixels(image_size: tuple[int, int, int]) -> ImageGenerator:
    from .pixels import PixelsImageGenerator

    return PixelsImageGenerator(*image_size)


IMAGE_GENERATORS: dict[str, Callable[[tuple[int, int, int]], ImageGenerator]] = {
    "embedded": _embedded,
    "pixels": _pixels,
}


def load_image_generator(name: str, image_size: tuple[int, int, int]) -> ImageGenerator:
    """Makes a generator by name, or loads one.

    Args:
        name: `"embedded"`, `"pixels"`, a folder, or a Hub repository.
        image_size: Channels, height and width of the stimuli, which generators without a size of their own take.

    Raises:
        FmriModelsError: There is no such generator.
    """
    if name in IMAGE_GENERATORS:
        return IMAGE_GENERATORS[name](image_size)
    index = Path(name) / "model_index.json"
    if not index.is_file() and "/" not in name:
        raise FmriModelsError(
            f"There is no image generator {name!r}; give {', '.join(IMAGE_GENERATORS)}, a folder, or a Hub repository."
        )
    if index.is_file():
        class_name = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    else:
        class_name = ImageGenerator.load_config(name).get("_class_name")
    generator_class = getattr(import_module("fmri_models"), str(class_name), None)
    if not (isinstance(generator_class, type) and issubclass(generator_class, ImageGenerator)):
        raise FmriModelsError(f"{name} holds a {class_name!r}, which is no image generator of this package.")
    return generator_class.from_pretrained(name)
