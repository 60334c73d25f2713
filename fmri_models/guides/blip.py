"""BLIP (Li et al., 2022): its tokens of a picture are a guide, and its text decoder makes captions of decoded ones."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import FmriModelsError
from ..names import listed, one_line
from ..original_checkpoint import check_finite
from ..progress import batches
from .folder_config import in_one_sentence, read_config

BLIP_TOKENS = "blip.tokens"
# As Takagi & Nishimoto (2023, technical report) have captions searched.
_SEARCH = {"num_beams": 3, "min_length": 5, "max_length": 20, "repetition_penalty": 1.5, "do_sample": False}
_CAPTIONS_A_BATCH = 16
_ADAPTER = "adapter_config.json"
_OF_A_LAYER = re.compile(r"\.layers?\.\d+\.")
_SPECIAL_TOKENS = ("bos_token_id", "sep_token_id", "pad_token_id")
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


class BlipVision(nn.Module):
    """The vision tower, whose last module gives the (N, tokens, width) that the text decoder reads.

    Args:
        tower: BLIP's vision tower; its codes of places are interpolated to the size of the pictures.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.tokens = nn.Identity()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) prepared pictures ▶ (N, tokens, width)."""
        tokens: torch.Tensor = self.tokens(self.tower(pixels, interpolate_pos_encoding=True).last_hidden_state)
        return tokens


class Captioner:
    """Writes captions of BLIP's tokens.

    Args:
        blip: The whole network, in eval mode.
        tokenizer: Its tokenizer.
    """

    def __init__(self, blip: Any, tokenizer: Any) -> None:
        self.blip, self.tokenizer = blip, tokenizer

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Captioner":
        """Reads the network and its tokenizer.

        Raises:
            FmriModelsError: Something is missing, or damaged.
        """
        from transformers import BertTokenizerFast

        # Without either, transformers makes a tokenizer that knows no word.
        if not any((Path(folder) / name).is_file() for name in _TOKENIZER_FILES):
            raise FmriModelsError(
                f"{one_line(folder)} has no tokenizer of BLIP; put vocab.txt of its repository there, too."
            )
        blip = read_blip(Path(folder))
        try:
            tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise FmriModelsError(
                f"The tokenizer of BLIP in {one_line(folder)} can't be read ({one_line(error, 80)}); take its files "
                "again."
            ) from error
        captioner = cls(blip, tokenizer)
        with in_one_sentence(Path(folder), "Salesforce/blip-image-captioning-base"):
            # Before anything is decoded: a text decoder that can be built may still be none that writes.
            captioner._written(torch.zeros(1, 1, blip.config.text_config.encoder_hidden_size))
        return captioner

    def captions(self, tokens: torch.Tensor) -> list[str]:
        """A caption of each picture, by beam search.

        Args:
            tokens: (N, tokens, width) float32, BLIP's own or decoded ones.

        Raises:
            FmriModelsError: They have another width than the text decoder reads.
        """
        text = self.blip.config.text_config
        if tokens.ndim != 3 or tokens.shape[2] != text.encoder_hidden_size:
            raise FmriModelsError(
                f"Captions are made of BLIP's tokens (N, tokens, {text.encoder_hidden_size}); got "
                f"{tuple(tokens.shape)}: decode all units of {BLIP_TOKENS}."
            )
        found: list[str] = []
        for chosen in batches(len(tokens), _CAPTIONS_A_BATCH, "Writing captions", unit="pattern"):
            some = tokens[chosen.start : chosen.stop].to(self.blip.device, self.blip.dtype)
            # Without the token that begins every text.
            texts = self.tokenizer.batch_decode(self._written(some)[:, 1:], skip_special_tokens=True)
            found += [text.strip() for text in texts]
        return found

    @torch.no_grad()
    def _written(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, length) ids of captions."""
        text = self.blip.config.text_config
        written: torch.Tensor = self.blip.text_decoder.generate(
            input_ids=torch.full((len(tokens), 1), text.bos_token_id, device=tokens.device),
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            encoder_hidden_states=tokens,
            encoder_attention_mask=torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device),
            **_SEARCH,
        )
        return written


def read_blip(folder: Path) -> Any:
    """A BLIP that captions, of a folder as transformers saves it.

    Raises:
        FmriModelsError: The folder is of another network, damaged, or lacks a tensor.
    """
    from transformers import BlipForConditionalGeneration

    if (folder / _ADAPTER).exists():
        # transformers would read the adapter, and in its place of the folder the network that it names.
        raise FmriModelsError(
            f"{one_line(folder)} has an adapter ({_ADAPTER}) beside BLIP; merge it into the weights, or take it away."
        )
    read_config(folder, "configuration of BLIP")
    try:
        blip, told = BlipForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:
        raise FmriModelsError(
            f"{one_line(folder)} can't be read as a BLIP that captions ({one_line(error, 120)}); take the folder of "
            "Salesforce/blip-image-captioning-base again."
        ) from error
    missing = sorted(map(str, told["missing_keys"])) + sorted(str(each) for each in told["mismatched_keys"])
    if missing:
        raise FmriModelsError(
            f"{one_line(folder)} lacks {len(missing)} tensors of a BLIP that captions, such as "
            f"{listed(missing[:1], 80)}; take the folder of Salesforce/blip-image-captioning-base again."
        )
    if unread := sorted(key for key in map(str, told["unexpected_keys"]) if _OF_A_LAYER.search(key)):
        raise FmriModelsError(
            f"{one_line(folder)} has layers that its configuration does not have, such as {listed(unread[:1], 80)}; "
            "take the folder of Salesforce/blip-image-captioning-base again."
        )
    check_finite(blip.state_dict(), f"network in {one_line(folder)}")
    _check_token_ids(blip.config.text_config, folder)
    return blip.eval().requires_grad_(False)


def _check_token_ids(text: Any, folder: Path) -> None:
    """Refuses tokens that begin, end and fill captions and that the text decoder does not have."""
    for name in _SPECIAL_TOKENS:
        found = getattr(text, name, None)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < text.vocab_size:
            raise FmriModelsError(
                f"The configuration of BLIP in {one_line(folder)} has {one_line(repr(found), 40)} as {name}; expected "
                f"a number below vocab_size, {one_line(text.vocab_size, 40)}: take the folder of "
                "Salesforce/blip-image-captioning-base again."
            )
