"""The small CLIP and its tokenizer."""

import json
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from fmri_models import scenes
from fmri_models.evaluation.scene_factors import FACTOR_VALUES

from .figures import clip_accuracy
from .pictures import Data, Pictures
from .settings import ClipSettings, Settings
from .stage import Stage


class ClipStage(Stage):
    """CLIP: a picture finds its caption among those of the batch, and the other way round."""

    name = "clip"

    def __init__(self, settings: Settings, data: Data) -> None:
        super().__init__(settings, data)
        self.tokenizer = build_tokenizer(settings.clip.vocabulary_size, settings.clip.max_tokens)

    @property
    def own(self) -> ClipSettings:
        return self.settings.clip

    def build(self) -> nn.Module:
        own = self.own
        text = CLIPTextConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=own.text_width,
            intermediate_size=4 * own.text_width,
            num_hidden_layers=own.text_layers,
            num_attention_heads=max(1, own.text_width // 32),
            max_position_embeddings=own.max_tokens,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        vision = CLIPVisionConfig(
            image_size=scenes.IMAGE_SIZE,
            patch_size=16,
            hidden_size=own.vision_width,
            intermediate_size=4 * own.vision_width,
            num_hidden_layers=own.vision_layers,
            num_attention_heads=max(1, own.vision_width // 32),
        )
        return CLIPModel(
            CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=own.projection_size)
        )

    def losses(self, model: nn.Module, positions: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        template = int(torch.randint(len(scenes.captions(self.data.train.factors(0))), (), generator=noise))
        with torch.autocast("cpu", torch.bfloat16):
            output = self._compare(model, self.data.train, positions, template)
        logits, target = output.logits_per_image.float(), torch.arange(len(positions))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return {"loss": loss, "top1": (logits.argmax(1) == target).float().mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return clip_accuracy(
            self.data.validation,
            lambda pictures, positions, template: self._compare(model, pictures, positions, template),
        )

    def _compare(self, model: nn.Module, pictures: Pictures, positions: np.ndarray, template: int) -> Any:
        sentences = [scenes.captions(pictures.factors(position))[template] for position in positions]
        tokens = self.tokenizer(sentences, padding=True, return_tensors="pt")
        return model(pixel_values=2 * pictures.batch(positions) - 1, **tokens)


def build_tokenizer(vocabulary_size: int, max_tokens: int) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges are learned from the captions of all factor values."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    untrained = CLIPTokenizer(vocab={start: 0, end: 1}, merges=[]).backend_tokenizer
    learner = Tokenizer(models.BPE(unk_token=end, continuing_subword_prefix="", end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = untrained.normalizer, untrained.pre_tokenizer
    learner.train_from_iterator(
        _all_sentences(),
        trainers.BpeTrainer(
            vocab_size=vocabulary_size - len(alphabet),
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges), start, end]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_tokens)


def _all_sentences() -> list[str]:
    """Captions in which every value of every factor occurs equally often."""
    first = {name: values[0] for name, values in FACTOR_VALUES.items()}
    variants = [first | {name: value} for name, values in FACTOR_VALUES.items() for value in values]
    return [sentence for variant in variants for sentence in scenes.captions(scenes.SceneFactors(**variant))]
