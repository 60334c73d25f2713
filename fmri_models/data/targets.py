"""The cache of embeddings, latents and guides, computed once for each picture or caption, encoder and preprocessing."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, get_args

import filelock
import numpy as np
import torch
from numpy.lib import format as npy
from torch import nn

from ..conditions import CONDITION_SPACES
from ..deprecation import renamed_argument
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError, system_errors_as_sentences
from ..generation.weights_digest import weights_digest
from ..guides.guide_set import GuideSet, network_and_layer
from ..names import one_line
from ..progress import bar
from ..reading import read_array
from ..swapping import PARTIAL_PREFIX
from .cache import cache_folder, make_cache_folder
from .generator_pictures import pictures_to_embed, prepare_pictures
from .table import TrialTable
from .target_options import DEFAULT_TARGET_OPTIONS, TargetOptions, captions_with_words
from .target_settings import settings_digest

if TYPE_CHECKING:
    from ..generation.image_generator import ImageGenerator

Target = Literal["image_embeds", "latents", "text_embeds"]
"""What is learned of a stimulus, by name."""
TARGET_SPACES: dict[Target, str] = {target: CONDITION_SPACES[target] for target in get_args(Target)}
# What a model learns unless its recipe names targets. Captions are for recipes that ask for them: a table need not have
# any, and no shipped method gets better by them unasked.
DEFAULT_TARGETS: tuple[Target, ...] = ("image_embeds", "latents")
_STIMULI_A_BATCH = 128
# Of all layers together: half a gigabyte in single precision.
_VALUES_A_BATCH = 2**27
# Larger target matrices are stored in half precision, as 9,000 pictures × 257 × 768 values are 7 GB in single.
_SINGLE_PRECISION_BYTES = 2**31

_Encode = Callable[[range], torch.Tensor]
# Positions of stimuli ▶ name of each file ▶ their targets.
_EncodeAll = Callable[[range], Mapping[str, torch.Tensor]]


class KnownPictures(Protocol):
    """Pictures by their ids, of which is known what they show; the stimuli of a table are some."""

    ids: list[str]

    def images(self, ids: Sequence[str], /) -> np.ndarray:
        """uint8 (N, H, W, C)."""

    def content_hashes(self, ids: Sequence[str], /) -> list[str | None]:
        """SHA-256 of each picture's pixels."""


@renamed_argument("kind", "target", since="0.1")
def cached_targets(
    table: TrialTable,
    generator: "ImageGenerator",
    target: Target,
    stimulus_ids: Sequence[str] | None = None,
    options: TargetOptions = DEFAULT_TARGET_OPTIONS,
) -> np.ndarray:
    """Embeddings or latents of the stimuli of a table.

    They are kept by what they were made from: the content of pictures or captions, the generator's weights, what its
    space states, and the options. An interrupted computation goes on where it was; several processes may ask at once.

    Args:
        table: The trial table.
        generator: Embeds or encodes the stimuli.
        target: `"image_embeds"`, `"latents"`, or `"text_embeds"`.
        stimulus_ids: Of these stimuli alone; None takes all, `table.stimuli.ids`.
        options: Which captions, and whether latents are drawn.

    Returns:
        (stimuli, values) memory map, in the order of the ids; float32, or float16 beyond 2 GiB.

    Raises:
        FmriModelsError: The generator has no such space, no posterior to draw from, or gives no finite numbers, a
            picture or caption is missing, or the cache can't be written.
    """
    ids = list(table.stimuli.ids if stimulus_ids is None else stimulus_ids)
    _check_has_space(generator, target)
    if target == "text_embeds":
        content, encode = _captions(table, generator, ids, options)
    elif target == "latents" and options.posterior == "sample":
        content, encode = _drawn_latents(table.stimuli, generator, ids, options)
    else:
        content, encode = _pictures(table.stimuli, generator, target, ids)
    return _cached(generator, target, len(ids), content, encode)


def cached_targets_of_pictures(pictures: KnownPictures, generator: "ImageGenerator", target: Target) -> np.ndarray:
    """Embeddings or latents of pictures that are in no table, kept as those of [`cached_targets`] are.

    Args:
        pictures: All of them are embedded or encoded, a few at a time.
        generator: Embeds or encodes them.
        target: `"image_embeds"` or `"latents"`.

    Returns:
        (pictures, values) memory map, in the order of `pictures.ids`.

    Raises:
        FmriModelsError: As of [`cached_targets`].
    """
    _check_has_space(generator, target)
    content, encode = _pictures(pictures, generator, target, list(pictures.ids))
    return _cached(generator, target, len(pictures.ids), content, encode)


def _check_has_space(generator: "ImageGenerator", target: Target) -> None:
    if getattr(generator, TARGET_SPACES[target]) is None:
        raise FmriModelsError(f"{type(generator).__name__} has no {target}; choose another generator.")


def cached_guides(
    table: TrialTable, guides: GuideSet, stimulus_ids: Sequence[str] | None = None, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Guides of the stimuli of a table, kept as targets of [`cached_targets`] are: by pictures, weights and layer.

    All layers of a network are computed in one pass; what is kept already needs no network.

    Args:
        table: The trial table.
        guides: Their networks.
        stimulus_ids: Of these stimuli alone; None takes all.
        names: Of these guides alone; None takes all.

    Returns:
        Guide ▶ (stimuli, values) memory map, in the order of the ids; float32, or float16 beyond 2 GiB.

    Raises:
        FmriModelsError: Weights or a picture are missing, a layer gives no finite numbers, or the cache can't be
            written.
    """
    return guides_in_spaces(table, guides.spaces, guides, stimulus_ids, names)


def guides_in_spaces(
    table: TrialTable,
    spaces: Mapping[str, EmbeddingSpace],
    guides: GuideSet,
    stimulus_ids: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """[`cached_guides`] of spaces that are known, such as a model's: networks are asked for what is not kept alone."""
    ids = list(table.stimuli.ids if stimulus_ids is None else stimulus_ids)
    chosen = list(spaces if names is None else names)
    content: dict[str, object] = {"pictures": table.stimuli.content_hashes(ids)}
    found: dict[str, np.ndarray] = {}
    for network in dict.fromkeys(network_and_layer(name)[0] for name in chosen):
        own = [name for name in chosen if network_and_layer(name)[0] == network]
        files = {name: _Stored.of(content, spaces[name], spaces[name].revision or "", len(ids)) for name in own}

        def encode(
            positions: range, network: str = network, files: Mapping[str, "_Stored"] = files
        ) -> dict[str, torch.Tensor]:
            missing = [name for name, each in files.items() if not each.is_complete]
            pictures = table.stimuli.images(ids[positions.start : positions.stop])
            pixels = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 255
            layers = {name: network_and_layer(name)[1] for name in missing}
            values = guides.features(network, pixels, list(layers.values()))
            return {name: values[layer] for name, layer in layers.items()}

        if not all(each.is_complete for each in files.values()):
            guides.check_spaces({name: spaces[name] for name in own})
        found |= _stored(files, encode, f"layers of {network}")
    return {name: found[name] for name in chosen}


@dataclass(frozen=True)
class _Stored:
    """A file of the cache.

    Args:
        path: Where.
        shape: (stimuli, values).
        dtype: Of its values.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype

    @classmethod
    def of(cls, content: dict[str, object], space: EmbeddingSpace, weights: str, count: int) -> "_Stored":
        """The file of what is made of some content, in a space, with some weights."""
        described = {"content": content, "space": space.to_dict(), "weights": weights}
        key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
        shape = (count, space.size)
        dtype = np.dtype(np.float32 if shape[0] * shape[1] * 4 <= _SINGLE_PRECISION_BYTES else np.float16)
        return cls(cache_folder() / "targets" / f"{key}.npy", shape, dtype)

    @property
    def is_complete(self) -> bool:
        """Whether it is there, as it should be."""
        try:
            found = self.read()
        except FmriModelsError:
            return False
        return found.shape == self.shape and found.dtype == self.dtype

    def read(self) -> np.ndarray:
        """Its values, as a memory map."""
        return read_array(self.path, "cached targets", "delete them", memory_map=True)


def _cached(
    generator: "ImageGenerator", target: Target, count: int, content: dict[str, object], encode: _Encode
) -> np.ndarray:
    """(count, values) memory map of what is kept of this content, made where it is not there."""
    space: EmbeddingSpace = getattr(generator, TARGET_SPACES[target])
    tokenizer = getattr(generator, "tokenizer", None) if target == "text_embeds" else None
    content = content | {"settings": settings_digest(_networks_of_target(generator, target), tokenizer)}
    file = _Stored.of(content, space, target_weights_digest(generator, target), count)
    return _stored({target: file}, lambda chosen: {target: encode(chosen)}, target)[target]


def _stored(files: Mapping[str, _Stored], encode: _EncodeAll, what: str) -> dict[str, np.ndarray]:
    """Name ▶ memory map of each file; those that are not there are made together, under the lock of each."""
    missing = {name: file for name, file in files.items() if not file.is_complete}
    if missing:
        make_cache_folder(next(iter(missing.values())).path.parent)
        with ExitStack() as locks:
            # In one order, so that no two processes wait for each other.
            for file in sorted(missing.values(), key=lambda each: each.path):
                locks.enter_context(filelock.FileLock(file.path.with_suffix(".lock")))
            missing = {name: file for name, file in missing.items() if not file.is_complete}
            if missing:
                _write(missing, encode, what)
    return {name: file.read() for name, file in files.items()}


def _pictures(
    stimuli: KnownPictures, generator: "ImageGenerator", target: Target, ids: list[str]
) -> tuple[dict[str, object], _Encode]:
    """What tells these pictures from others, and how some of them are encoded, by their positions."""

    def embed(chosen: range) -> torch.Tensor:
        return generator.embed_images(pictures_to_embed(stimuli.images(ids[chosen.start : chosen.stop]), generator))

    def encode(chosen: range) -> torch.Tensor:
        images = stimuli.images(ids[chosen.start : chosen.stop])
        return generator.encode_images(prepare_pictures(images, generator.image_size))

    embeds = target == "image_embeds"
    resized = None if embeds and generator.embeds_any_size else list(generator.image_size)
    return {"pictures": stimuli.content_hashes(ids), "resized": resized}, embed if embeds else encode


def _drawn_latents(
    stimuli: KnownPictures, generator: "ImageGenerator", ids: list[str], options: TargetOptions
) -> tuple[dict[str, object], _Encode]:
    """The same of latents that are drawn, each picture's from a source of its own."""
    check_posterior(generator, options)
    content, _ = _pictures(stimuli, generator, "latents", ids)
    # Pictures without pixels are refused where they are read.
    shown = [digest or name for name, digest in zip(ids, stimuli.content_hashes(ids), strict=True)]

    def encode(chosen: range) -> torch.Tensor:
        pictures = prepare_pictures(stimuli.images(ids[chosen.start : chosen.stop]), generator.image_size)
        return generator.sample_latents(pictures, [options.source_of(shown[position]) for position in chosen])

    return content | {"posterior": "sample", "seed": options.seed}, encode


def check_posterior(generator: object, options: TargetOptions) -> None:
    """Refuses to draw latents of a generator whose latents are not drawn.

    Raises:
        FmriModelsError: Names the generator.
    """
    if options.posterior == "sample" and not getattr(generator, "has_posterior", True):
        raise FmriModelsError(
            f"posterior is 'sample', and the latents of {type(generator).__name__} have no posterior to draw from; "
            "leave posterior out, or choose a generator with a variational autoencoder."
        )


def check_captions(table: TrialTable, ids: list[str] | None = None) -> None:
    """Refuses a table in which a picture has no caption.

    Args:
        table: The trial table.
        ids: Stimuli; None takes all.

    Raises:
        FmriModelsError: Says how many, and names one.
    """
    ids = table.stimuli.ids if ids is None else ids
    every = table.stimuli.captions(ids)
    if missing := [name for name, captions in zip(ids, every, strict=True) if not captions_with_words(captions)]:
        raise FmriModelsError(
            f"{len(missing)} of {len(every)} stimuli have no caption (such as {missing[0]}); prepare "
            f"{one_line(table.path)} with captions, or leave text_embeds out of the recipe's targets."
        )


def _captions(
    table: TrialTable, generator: "ImageGenerator", ids: list[str], options: TargetOptions
) -> tuple[dict[str, object], _Encode]:
    """What tells these captions from others, and how some of them are embedded, by their positions."""
    check_captions(table, ids)
    every = [captions_with_words(captions) for captions in table.stimuli.captions(ids)]
    if options.captions == "first":
        first = [captions[0] for captions in every]
        return {"captions": first}, lambda chosen: generator.embed_texts(first[chosen.start : chosen.stop])

    def mean(chosen: range) -> torch.Tensor:
        of_each = every[chosen.start : chosen.stop]
        embeds = generator.embed_texts([caption for captions in of_each for caption in captions])
        return torch.stack([each.mean(dim=0) for each in embeds.split([len(captions) for captions in of_each])])

    return {"captions": every, "of": "mean"}, mean


def target_weights_digest(generator: "ImageGenerator", target: Target) -> str:
    """Digest of the networks that may have part in targets."""
    return weights_digest(_networks_of_target(generator, target))


def _networks_of_target(generator: "ImageGenerator", target: Target) -> list[nn.Module]:
    """Those that may have part in targets, by their names; UNets, the largest of all, only draw."""
    unused = ("unet",) if target == "text_embeds" else ("unet", "text_encoder")
    networks = {name: value for name, value in vars(generator).items() if isinstance(value, nn.Module)}
    return [networks[name] for name in sorted(networks) if not any(word in name for word in unused)]


def _write(files: Mapping[str, _Stored], encode: _EncodeAll, what: str) -> None:
    """Writes all targets, under the lock. What an interruption leaves is gone on with, what an error leaves is removed.

    Written, not memory-mapped: a full disk is an error then, and not a killed process.
    """
    partials = {name: file.path.with_name(f"{PARTIAL_PREFIX}{file.path.name}") for name, file in files.items()}
    count = next(iter(files.values())).shape[0]
    try:
        with ExitStack() as opened:
            opened.enter_context(system_errors_as_sentences(next(iter(files.values())).path))
            outs = {
                name: opened.enter_context(path.open("r+b" if path.is_file() else "w+b"))
                for name, path in partials.items()
            }
            size = _batch_of(files.values())
            first = min(_position_to_go_on(outs[name], file, size) for name, file in files.items())
            for name, file in files.items():
                _go_on(outs[name], file, first)
            progress = bar(name=f"Embedding stimuli ({what})", total=count, initial=first, unit="picture")
            for start in range(first, count, size):
                chosen = range(start, min(start + size, count))
                encoded = encode(chosen)
                for name, file in files.items():
                    values = encoded[name].flatten(1).float().cpu().numpy().astype(file.dtype)
                    _check_finite(values, name)
                    outs[name].write(values.tobytes())
                    outs[name].flush()
                    os.fsync(outs[name].fileno())
                progress.update(len(chosen))
            progress.close()
        for name, file in files.items():
            partials[name].replace(file.path)
    except Exception:
        for path in partials.values():
            path.unlink(missing_ok=True)
        raise


def _batch_of(files: Iterable[_Stored]) -> int:
    """How many stimuli are encoded together: fewer where all layers of a network are more than memory holds."""
    return max(1, min(_STIMULI_A_BATCH, _VALUES_A_BATCH // sum(file.shape[1] for file in files)))


def _position_to_go_on(out: BinaryIO, file: _Stored, batch: int) -> int:
    """The stimulus to begin with; the header of an empty file is written.

    The last batch that the file has may not have reached the disk, so it is computed again.
    """
    header = {"descr": npy.dtype_to_descr(file.dtype), "fortran_order": False, "shape": file.shape}
    size = out.seek(0, os.SEEK_END)
    out.seek(0)
    npy.write_array_header_1_0(out, header)
    batches = max(0, size - out.tell()) // (file.shape[1] * file.dtype.itemsize * batch)
    return max(0, batches - 1) * batch


def _go_on(out: BinaryIO, file: _Stored, first: int) -> None:
    """Positions a file, behind its header, where a stimulus begins; what follows is cut off."""
    out.seek(out.tell() + first * file.shape[1] * file.dtype.itemsize)
    out.truncate()


def _check_finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        whose = "layer" if "." in what else "image generator"
        raise FmriModelsError(
            f"The {whose} gives {what} that are not finite in {values.dtype}; load it in float32 or bfloat16."
        )
