"""Pictures from decoded image and text tokens at once: the mixing ratio, and the order of steps of the original."""

import numpy as np
import pytest
import torch

from fmri_models import FmriProcessor, FmriToImagePipeline
from fmri_models.errors import FmriModelsError
from fmri_models.generation.image_generator import ImageGenerator
from fmri_models.generation.loading import spaces_of
from fmri_models.models.mindbridge import MindBridgeConfig, MindBridgeModel, MindBridgePipeline
from fmri_models.models.mindbridge.published_mindbridge import convert
from tests.generation.generator_common import seeds
from tests.generation.test_embedded import tiny_generator
from tests.generation.test_versatile_diffusion import (
    NUM_IMAGE_TOKENS,
    NUM_TEXT_TOKENS,
    make_generator,
    original_dual_guided,
)

SUBJECTS, VOXELS = ["subj01", "subj02"], [9, 7]


def make_pipeline(generator: ImageGenerator, **options) -> MindBridgePipeline:
    spaces = spaces_of(generator) | {"latent_space": None}
    spaces |= {name: None for name in spaces if name not in ("image_embedding_space", "text_embedding_space")}
    config = MindBridgeConfig(
        subject_names=SUBJECTS, num_voxels=VOXELS, hidden_size=8, num_hidden_layers=1, adapter_size=4, **spaces
    )
    torch.manual_seed(0)
    model = MindBridgeModel(config)
    rng = np.random.default_rng(0)
    trials = {name: rng.normal(size=(12, width)) for name, width in zip(SUBJECTS, VOXELS, strict=True)}
    pipeline = MindBridgePipeline(model, FmriProcessor.fit(trials, subjects=SUBJECTS), generator, **options)
    generator.set_progress_bar_config(disable=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def betas(count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, VOXELS[1]))


def drawn(pipeline: MindBridgePipeline, **options) -> torch.Tensor:
    call = {"subject": "subj02", "num_inference_steps": 3, "guidance_scale": 2.0, "generator": seeds(0, 1)}
    return pipeline(betas(), output_type="pt", **(call | options)).images


def decoded(pipeline: MindBridgePipeline):
    inputs = pipeline.processor(betas(), subject="subj02")
    return pipeline.decode(inputs["fmri"], inputs["subject_ids"])


def test_the_output_has_both_embeddings_that_it_was_drawn_from():
    pipeline = make_pipeline(tiny_generator(with_unet=True))
    output, decoding = pipeline(betas(), subject="subj02", num_inference_steps=1), decoded(pipeline)
    assert torch.equal(output.image_embeds, decoding.image_embeds)
    assert torch.equal(output.text_embeds, decoding.text_embeds)


def test_versatile_diffusion_draws_what_its_own_pipeline_draws_of_the_tokens():
    """As published: each sequence over the length of its first token, both blocks alike, UniPC, guidance of 5."""
    pipeline = make_pipeline(make_generator(published_scheduler=True))
    decoding = decoded(pipeline)
    for tokens in (decoding.image_embeds, decoding.text_embeds):
        torch.testing.assert_close(tokens[:, 0].norm(dim=-1), torch.ones(2), atol=1e-4, rtol=0)
    assert decoding.image_embeds.shape[1] == NUM_IMAGE_TOKENS and decoding.text_embeds.shape[1] == NUM_TEXT_TOKENS
    original = original_dual_guided()
    original.scheduler = pipeline.image_generator.scheduler
    options = {"num_inference_steps": 5, "guidance_scale": 5.0}
    for ratio in (0.0, 0.3, 0.5, 1.0):
        expected = original.drawn(
            decoding.text_embeds,
            decoding.image_embeds,
            text_to_image_strength=ratio,
            generator=seeds(0, 1),
            **options,
        )
        found = drawn(pipeline, text_to_image_ratio=ratio, **options)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_embedded_generator_takes_three_ratios(tmp_path):
    pipeline = make_pipeline(tiny_generator(with_unet=True), drawing_settings={"text_to_image_ratio": 1})
    text_alone = drawn(pipeline)
    decoding = decoded(pipeline)
    options = {"num_inference_steps": 3, "guidance_scale": 2.0, "generator": seeds(0, 1), "output_type": "pt"}
    expected = pipeline.image_generator(text_embeds=decoding.text_embeds, **options).images
    torch.testing.assert_close(text_alone, expected, atol=1e-5, rtol=0)
    image_alone = drawn(pipeline, text_to_image_ratio=0)
    options["generator"] = seeds(0, 1)
    expected = pipeline.image_generator(image_embeds=decoding.image_embeds, **options).images
    torch.testing.assert_close(image_alone, expected, atol=1e-5, rtol=0)
    assert not torch.equal(drawn(pipeline, text_to_image_ratio=0.5), text_alone)
    with pytest.raises(FmriModelsError, match=r"expected 0 \(image alone\), 0.5 \(both\) or 1 \(text alone\)"):
        drawn(pipeline, text_to_image_ratio=0.25)
    pipeline.save_pretrained(tmp_path / "pipeline")
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline")
    assert loaded.drawing_settings.text_to_image_ratio == 1.0


def test_the_best_of_several_candidates_by_the_brain_or_by_the_true_picture():
    pipeline = make_pipeline(tiny_generator(with_unet=True))
    truth = torch.rand(2, 3, 64, 64)
    output = pipeline(
        betas(), subject="subj02", num_inference_steps=2, num_candidates=3, selection="oracle", true_images=truth,
        generator=seeds(0, 1), output_type="pt",
    )  # fmt: skip
    reference = pipeline.image_generator.embed_images(truth).flatten(1)
    assert output.scores.shape == (2, 3)
    shown = [torch.stack([_as_tensor(each) for each in of_one]) for of_one in output.candidates]
    for row, pictures in enumerate(shown):
        embeds = pipeline.image_generator.embed_images(pictures).flatten(1)
        scores = torch.nn.functional.cosine_similarity(embeds, reference[row : row + 1], dim=1)
        assert int(scores.argmax()) == int(output.scores[row].argmax())
    by_brain = pipeline(
        betas(), subject="subj02", num_inference_steps=2, num_candidates=3, generator=seeds(0, 1), output_type="pt"
    )
    assert by_brain.scores.shape == (2, 3)


def _as_tensor(picture) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture)).permute(2, 0, 1).float() / 255


def test_a_converted_checkpoint_draws_as_published():
    from tests.models.mindbridge.test_convert_mindbridge import published

    found = convert(published(image=257 * 768, text=77 * 768))
    assert found.image_generator["options"] == {"published_scheduler": True}
    assert found.drawing_settings["text_to_image_ratio"] == 0.5
