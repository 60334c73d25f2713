"""What MindBridge learns: tokens of CLIP's vision and text towers, as the original made them."""

from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from fmri_models.generation.clip_embedding import (
    ClipPreprocessing,
    divide_by_cls_norm,
    divide_by_end_norm,
    end_positions,
    project_image_tokens,
    project_text_tokens,
)
from tests.models.mindbridge.original import LARGE, needs_fixtures, original, part

# Of the prepared picture, what the fixture holds.
CROP = slice(96, 128)


def loaded(model_class: Any, config: Any, weights: dict[str, torch.Tensor]) -> Any:
    model = model_class(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    return model


@needs_fixtures
@torch.no_grad()
def test_tokens_are_those_of_the_original():
    tensors, about = original("clip_targets", LARGE)
    vision_config = CLIPVisionConfig(**about["vision_config"])
    vision = loaded(CLIPVisionModelWithProjection, vision_config, part(tensors, "vision/"))
    pixels = ClipPreprocessing(antialias=False)(tensors["in/image"])
    close(pixels[:, :, CROP, CROP], tensors["mid/pixel_values_crop"])
    close(divide_by_cls_norm(project_image_tokens(vision, pixels)), tensors["out/image_tokens"])
    text = loaded(CLIPTextModelWithProjection, CLIPTextConfig(**about["text_config"]), part(tensors, "text/"))
    tokens = project_text_tokens(text, tensors["in/input_ids"])
    found = divide_by_end_norm(tokens, end_positions(text, tensors["in/input_ids"]))
    close(found, tensors["out/text_tokens"])


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
