"""Image generators by name."""

import json
from importlib import import_module
from pathlib import Path

from ..errors import FmriModelsError
from .image_generator import ImageGenerator

# Name in recipes ▶ module and class; a generator may take the size of the stimuli as its own.
IMAGE_GENERATORS = {
    "embedded": ("embedded", "EmbeddedImageGenerator"),
    "pixels": ("pixels", "PixelsImageGenerator"),
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
        return _class(*IMAGE_GENERATORS[name]).for_stimuli(image_size)
    index = Path(name) / "model_index.json"
    if not index.is_file() and "/" not in name:
        raise FmriModelsError(
            f"There is no image generator {name!r}; give {', '.join(IMAGE_GENERATORS)}, a folder, or a Hub repository."
        )
    if index.is_file():
        class_name = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    else:
        class_name = ImageGenerator.load_config(name).get("_class_name")
    known = {found: (module, found) for module, found in IMAGE_GENERATORS.values()}
    if class_name not in known:
        raise FmriModelsError(f"{name} holds a {class_name!r}, which is no image generator of this package.")
    return _class(*known[class_name]).from_pretrained(name)


def _class(module: str, name: str) -> type[ImageGenerator]:
    return getattr(import_module(f".{module}", __package__), name)
