"""What targets depend on besides weights: settings of the networks that make them, and how words become tokens."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

# What differs between a network that was made and the same one after it was loaded, and nothing is computed with; types
# of weights are part of the digest of these.
_NOT_COMPUTED_WITH = frozenset({"architectures", "dtype", "name_or_path", "torch_dtype", "transformers_version"})
# What a call of a fast tokenizer leaves in it.
_OF_THE_LAST_CALL = ("padding", "truncation")


def settings_digest(networks: Iterable[nn.Module], tokenizer: Any = None) -> str:
    """SHA-256 (first 12 digits) of the configurations of networks, and of a tokenizer's words.

    Networks of equal weights give other embeddings with another activation, number of heads or groups, and of other
    tokens; of all that, weights tell nothing.

    Args:
        networks: In an order that is always the same.
        tokenizer: Where captions are embedded.
    """
    digest = hashlib.sha256()
    for network in networks:
        digest.update(_text(_config_of(network)))
    if tokenizer is not None:
        digest.update(_text(_words_of(tokenizer)))
    return digest.hexdigest()[:12]


def _text(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, default=lambda value: type(value).__name__).encode()


def _config_of(network: nn.Module) -> dict[str, Any]:
    config: Any = getattr(network, "config", None)
    values = config.to_dict() if hasattr(config, "to_dict") else config
    return _plain(values) if isinstance(values, Mapping) else {}


def _plain(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): _plain(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if not str(name).startswith("_") and name not in _NOT_COMPUTED_WITH
    }


def _words_of(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else type(tokenizer).__name__
    return {name: value for name, value in json.loads(backend.to_str()).items() if name not in _OF_THE_LAST_CALL}
