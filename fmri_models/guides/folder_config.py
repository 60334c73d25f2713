"""The `config.json` of a folder with a network, of which nothing is built before its sizes are bounded."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FmriModelsError
from ..names import one_line
from ..reading import MEBIBYTE, read_object

CONFIG_NAME = "config.json"
# Published configurations have some kilobytes, 24 layers and lists of a few entries; each layer and entry is a module.
_MAX_BYTES = MEBIBYTE
_MOST_LAYERS = 512
_MOST_ENTRIES = 1024
_LARGEST_NUMBER = 2**31
# What tensors don't tell, and what is computed depends on.
_COMPUTED_WITH = (
    "attention_dropout", "backbone_out_indices", "hidden_act", "image_size", "layer_norm_eps", "num_attention_heads",
    "num_hidden_layers", "patch_size", "readout_type",
)  # fmt: skip


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """The values in the `config.json` of a folder, with which a network can be built in bounded time.

    Args:
        folder: Where it lies.
        what: Whose configuration it is, such as `"CLIP's configuration"`.

    Raises:
        FmriModelsError: It is no JSON object, or has more layers or larger numbers than any published network.
    """
    values = read_object(folder / CONFIG_NAME, what, "take another copy of its folder", _MAX_BYTES)
    _check_bounds(values, f"The {what} {one_line(folder / CONFIG_NAME)}")
    return values


@contextmanager
def in_one_sentence(folder: Path, published: str) -> Iterator[None]:
    """Whatever a network's library raises while it is built or run becomes a sentence about its folder.

    Args:
        folder: The folder.
        published: Where such a folder is published.

    Raises:
        FmriModelsError: Something was raised.
    """
    try:
        yield
    except FmriModelsError:
        raise
    except Exception as error:
        reason = one_line(error, 200).rstrip(".") or type(error).__name__
        raise FmriModelsError(
            f"The network in {one_line(folder)} can't be built as its {CONFIG_NAME} says ({reason}); take the folder "
            f"of {published} again."
        ) from error


def settings_of(config: Any) -> dict[str, Any]:
    """What is computed of the same tensors differs by: heads, activation and the like, of a library's configuration."""
    return {name: getattr(config, name) for name in _COMPUTED_WITH if hasattr(config, name)}


def _check_bounds(values: Any, what: str, name: str = "") -> None:
    inside: Iterable[tuple[str, Any]] = ()
    if isinstance(values, Mapping):
        inside = values.items()
    elif isinstance(values, list):
        inside = ((name, each) for each in values)
        if len(values) > _MOST_ENTRIES:
            raise FmriModelsError(
                f"{what} has {len(values)} entries in {one_line(name, 80)}; expected {_MOST_ENTRIES} at most: take "
                "another copy of its folder."
            )
    elif isinstance(values, int):
        most = _MOST_LAYERS if name == "num_hidden_layers" else _LARGEST_NUMBER
        if abs(values) > most:
            raise FmriModelsError(
                f"{what} has {one_line(values, 40)} as {one_line(name, 80)}; expected {most} at most: take another "
                "copy of its folder."
            )
    for key, each in inside:
        _check_bounds(each, what, str(key))
