"""How well the networks do."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fmri_models import scenes
from fmri_models.evaluation import EfficientNetLite0
from fmri_models.evaluation.metrics import two_way_identification
from fmri_models.evaluation.scene_factors import FACTOR_VALUES, SceneFactorClassifier
from fmri_models.generation.embedded import EmbeddedImageGenerator

from .pictures import Pictures, chunks, render
from .settings import Settings


def measure(settings: Settings, work: Path, out: Path) -> dict[str, dict[str, float]]:
    """Figures of the assets on scenes that nothing else uses."""
    test = render("generator_test", settings.num_test, settings.seed, work / "pictures")
    pictures = test.batch(np.arange(len(test)))
    generator = EmbeddedImageGenerator.from_pretrained(out / "embedded", dtype=torch.float32)
    classifier = SceneFactorClassifier.from_pretrained(out / "scene_factors")
    autoencoded = generator(latents=generator.encode_images(pictures), strength=0.0, output_type="pt").images
    psnr = -10 * (autoencoded - pictures).square().mean((1, 2, 3)).log10()

    def compare(shown: Pictures, positions: np.ndarray, template: int) -> Any:
        sentences = [scenes.captions(shown.factors(position))[template] for position in positions]
        tokens = generator.tokenizer(sentences, padding=True, return_tensors="pt")
        with torch.no_grad():
            return generator.image_encoder(pixel_values=2 * shown.batch(positions) - 1, **tokens)

    return {
        "autoencoder": {"psnr": float(psnr.mean()), "psnr_5th_percentile": float(psnr.quantile(0.05))},
        "clip": clip_accuracy(test, compare),
        "classifier_true": factor_accuracy(classifier, pictures, test.labels),
        "classifier_autoencoded": factor_accuracy(classifier, autoencoded, test.labels),
        **generation_figures(
            generator,
            out,
            Pictures(test.images[: settings.num_drawn], test.labels[: settings.num_drawn]),
            guidance_scales=(1.0, 1.5, 2.0, 3.0),
            strengths=(0.5, 0.7, 0.85),
            references=True,
        ),
    }


def clip_accuracy(
    pictures: Pictures, compare: Callable[[Pictures, np.ndarray, int], Any], pool_size: int = 100
) -> dict[str, float]:
    """How often a picture finds its caption among those of a hundred pictures, and a caption its picture."""
    hits: dict[str, list[torch.Tensor]] = {"image_to_text_top1": [], "text_to_image_top1": []}
    num_templates = len(scenes.captions(pictures.factors(0)))
    for index, positions in enumerate(chunks(len(pictures), pool_size)):
        logits = compare(pictures, positions, index % num_templates).logits_per_image
        target = torch.arange(len(positions))
        hits["image_to_text_top1"].append((logits.argmax(1) == target).float())
        hits["text_to_image_top1"].append((logits.argmax(0) == target).float())
    return {name: float(torch.cat(values).mean()) for name, values in hits.items()}


def factor_accuracy(classifier: nn.Module, pictures: torch.Tensor, labels: np.ndarray) -> dict[str, float]:
    """The share of pictures whose factor the classifier names right, by factor."""
    predicted = classifier.predict(pictures)
    return {
        name: float(np.mean([FACTOR_VALUES[name].index(value) for value in predicted[name]] == labels[:, column]))
        for column, name in enumerate(FACTOR_VALUES)
    }


def generation_figures(
    generator: EmbeddedImageGenerator,
    assets: Path,
    shown: Pictures,
    num_inference_steps: int = 20,
    guidance_scales: Sequence[float] = (2.0,),
    strengths: Sequence[float] = (),
    references: bool = False,
) -> dict[str, dict[str, float]]:
    """How well pictures that were drawn from the true embeddings are recognised.

    Args:
        generator: Draws.
        assets: Where the judge is.
        shown: True pictures.
        num_inference_steps: Of the diffusion model.
        guidance_scales: One row each, from the true embeddings alone.
        strengths: One row each, with the true latent too.
        references: Add rows of pictures that no embedding went into.

    Returns:
        Row ▶ share of the factors that the judge names as they are, and EfficientNet's two-way identification.
    """
    pictures = shown.batch(np.arange(len(shown)))
    classifier = SceneFactorClassifier.from_pretrained(assets / "scene_factors")
    extractor = EfficientNetLite0()
    truth = extractor(pictures)
    embeds, latents = generator.embed_images(pictures), generator.encode_images(pictures)
    settings = {f"embeddings_guidance_{scale:g}": {"guidance_scale": scale} for scale in guidance_scales} | {
        f"latent_too_strength_{strength:g}": {"guidance_scale": 2.0, "strength": strength, "latents": latents}
        for strength in strengths
    }
    figures = {}
    for row, arguments in settings.items():
        drawn = generator(
            image_embeds=embeds,
            num_inference_steps=num_inference_steps,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
            **arguments,
        ).images
        figures[row] = recognition(drawn, shown, truth, classifier, extractor)
    if references:
        empty = np.stack([scenes.background(shown.factors(position)) for position in range(len(shown))])
        backgrounds = torch.from_numpy(empty).permute(0, 3, 1, 2).float() / 255
        uninformed = {
            "autoencoder_alone": generator(latents=latents, strength=0.0, output_type="pt").images,
            "background_without_object": backgrounds,
            "mean_background": backgrounds.mean(0, keepdim=True).expand_as(backgrounds),
            "nothing": generator(
                num_images=len(shown),
                num_inference_steps=num_inference_steps,
                generator=torch.Generator().manual_seed(0),
                output_type="pt",
            ).images,
        }
        for row, drawn in uninformed.items():
            figures[row] = recognition(drawn, shown, truth, classifier, extractor)
    return figures


def recognition(
    drawn: torch.Tensor,
    shown: Pictures,
    truth: torch.Tensor,
    classifier: SceneFactorClassifier,
    extractor: EfficientNetLite0,
) -> dict[str, float]:
    """Judge and two-way identification of drawn pictures."""
    factors = factor_accuracy(classifier, drawn, shown.labels)
    identified = {"two_way": float(two_way_identification(truth, extractor(drawn)))}
    return identified | {name: factors[name] for name in ("kind", "colour", "place")}
