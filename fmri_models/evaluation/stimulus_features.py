"""Embeddings of a table's pictures by whatever has a name: a network that measures, or an image generator."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from os import PathLike

import numpy as np

from ..data.cache import cache_folder, make_cache_folder, write_array
from ..data.generator_pictures import prepare_pictures
from ..data.stimulus_embeddings import StimulusEmbeddings, check_pictures, generator_embeddings, in_order_of
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..progress import batches
from ..reading import read_array
from ..saving import atomic_file
from .extractors import EXTRACTORS, FeatureExtractor, load_extractor
from .named_metrics import SMALLEST_NETWORK_PICTURE

# Comes with a package of the extra `demo`, and no decoder is trained against it.
_NETWORK = "efficientnet_lite0"
_OF_SMALL_PICTURES, _IN_THE_PACKAGE = "pixels", "embedded"
_PICTURES_A_BATCH = 64


def embeddings_by(
    table: TrialTable, ids: Sequence[str], embedder: str | None = None, weights: str | PathLike | None = None
) -> StimulusEmbeddings:
    """Embeds the pictures of some stimuli.

    Args:
        table: Has the pictures.
        ids: Which stimuli.
        embedder: Name of an extractor, or an image generator's name, folder or repository. None takes
            `efficientnet_lite0` if it is installed, else the generator `embedded`, and for pictures below 32 pixels,
            of which networks say nothing, `pixels`.
        weights: Folder with the weights of an extractor.

    Raises:
        FmriModelsError: There is no such embedder, its weights can't be had, or a picture is missing.
    """
    ids = in_order_of(table, ids)
    check_pictures(table, ids)
    if embedder is None:
        embedder = _default(table, ids, weights)
    if embedder not in EXTRACTORS:
        return generator_embeddings(table, ids, embedder)
    if EXTRACTORS[embedder].has_many_features:
        raise FmriModelsError(
            f"{embedder} has more features of a picture than a split of many is drawn from; take one with fewer, such "
            f"as {_NETWORK}."
        )
    network = load_extractor(embedder, weights)
    return StimulusEmbeddings.of_values(ids, _features(table, ids, network), embedder, network.sha256)


def _features(table: TrialTable, ids: Sequence[str], network: FeatureExtractor) -> np.ndarray:
    """(N, F) of pictures, kept on disk: splits of one table are drawn more than once, and features take longest."""
    made_of = getattr(network, "cache_key", None)
    content = json.dumps([made_of, table.stimuli.content_hashes(ids)], sort_keys=True)
    path = cache_folder() / "stimulus_features" / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.npy"
    if made_of is not None and path.is_file():
        with suppress(FmriModelsError):
            kept = read_array(path, "kept features", "delete them")
            if kept.ndim == 2 and len(kept) == len(ids):
                return kept
    found = []
    for chosen in batches(len(ids), _PICTURES_A_BATCH, f"Embedding pictures with {network.name}", delay=1.0):
        images = table.stimuli.images(ids[chosen.start : chosen.stop])
        pictures = prepare_pictures(images, (images.shape[3], *images.shape[1:3]))
        found.append(network(pictures).flatten(1).float().cpu().numpy())
    features = np.concatenate(found)
    if made_of is not None:
        # What can't be kept is computed again another time.
        with suppress(FmriModelsError, OSError):
            make_cache_folder(path.parent)
            with atomic_file(path) as partial:
                write_array(partial, features.shape, features.dtype, [features])
    return features


def _default(table: TrialTable, ids: Sequence[str], weights: str | PathLike | None) -> str:
    if min(table.stimuli.images(ids[:1]).shape[1:3]) < SMALLEST_NETWORK_PICTURE:
        return _OF_SMALL_PICTURES
    try:
        EXTRACTORS[_NETWORK].check(weights)
    except FmriModelsError:
        return _IN_THE_PACKAGE
    return _NETWORK
