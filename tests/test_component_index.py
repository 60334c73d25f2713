"""An index of components names classes of known libraries, each what the pipeline says it is."""

import pytest
from transformers.utils import logging

from fmri_models import FmriToImagePipeline
from fmri_models.component_index import check_component_classes, check_index_keys
from fmri_models.errors import FmriModelsError
from fmri_models.generation.clip_targets import ClipTargets
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.generation.stable_unclip import StableUnCLIPImageGenerator

EMBEDDED = {
    "_class_name": "EmbeddedImageGenerator",
    "autoencoder": ["diffusers", "AutoencoderTiny"],
    "image_encoder": ["transformers", "CLIPModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
PIPELINE = {
    "_class_name": "LinearPipeline",
    "brain_model": ["fmri_models", "LinearModel"],
    "processor": ["fmri_models", "FmriProcessor"],
    "image_generator": ["fmri_models", "PixelsImageGenerator"],
}


@pytest.mark.parametrize(
    ("pipeline_class", "index"),
    [
        (EmbeddedImageGenerator, EMBEDDED),
        (EmbeddedImageGenerator, {**EMBEDDED, "unet": [None, None], "scheduler": [None, None]}),
        (FmriToImagePipeline, PIPELINE),
        (FmriToImagePipeline, {**PIPELINE, "image_generator": [None, None]}),
        (ClipTargets, {"_class_name": "ClipTargets", "image_encoder": ["fmri_models", "OpenClipModel"]}),
        (
            ClipTargets,
            {"_class_name": "ClipTargets", "image_encoder": ["transformers", "CLIPVisionModelWithProjection"]},
        ),
        (
            StableUnCLIPImageGenerator,
            {
                "_class_name": "StableUnCLIPImg2ImgPipeline",
                "vae": ["diffusers", "AutoencoderKL"],
                "image_normalizer": ["stable_diffusion", "StableUnCLIPImageNormalizer"],
                "image_noising_scheduler": ["diffusers", "DDPMScheduler"],
                # As published with versions of transformers that had another name for it.
                "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
            },
        ),
    ],
)
def test_what_pipelines_say(pipeline_class, index):
    check_component_classes(index, pipeline_class, "The index", "save it again")


@pytest.mark.parametrize(
    "entry",
    [
        ["evil", "X"],
        ["os", "system"],
        ["subprocess", "Popen"],
        ["diffusers", "UNet2DModel"],
        ["diffusers", "DiffusionPipeline"],
        ["diffusers", "pipelines"],
        ["diffusers", "no such class"],
        ["diffusers", "__name__"],
        ["transformers", "AutoModel"],
        ["stable_diffusion", "StableDiffusionSafetyChecker"],
        ["fmri_models", "EmbeddedImageGenerator"],
        ["diffusers.models", "UNet2DConditionModel"],
        [["diffusers"], "UNet2DConditionModel"],
        [{}, {}],
        ["diffusers"],
        ["diffusers", "UNet2DConditionModel", "x"],
        [None, "UNet2DConditionModel"],
        "diffusers",
        None,
        3,
        True,
        {},
    ],
)
def test_anything_else_is_a_sentence(entry):
    with pytest.raises(FmriModelsError, match="as unet") as caught:
        check_component_classes({**EMBEDDED, "unet": entry}, EmbeddedImageGenerator, "The index", "save it again")
    assert "\n" not in str(caught.value)
    given = {"unet": object()}
    check_component_classes({**EMBEDDED, "unet": entry}, EmbeddedImageGenerator, "The index", "save it again", given)


@pytest.mark.parametrize("name", ["autoencoder", "tokenizer"])
def test_a_component_that_is_needed_is_named(name):
    index = {key: value for key, value in EMBEDDED.items() if key != name}
    with pytest.raises(FmriModelsError, match=f"has no {name}, without which"):
        check_component_classes(index, EmbeddedImageGenerator, "The index", "save it again")


@pytest.mark.parametrize("class_name", [["evil", "EvilPipeline"], None, 3, {}])
def test_the_class_is_one_name(class_name):
    with pytest.raises(FmriModelsError, match="as its class"):
        check_component_classes({**EMBEDDED, "_class_name": class_name}, EmbeddedImageGenerator, "The index", "x")


def test_misspelt_keys_of_an_index_are_refused_and_others_named(caplog):
    index = {"_class_name": "x", "_anything": 1, "brain_model": [], "processor": [], "note": 3}
    logging.enable_propagation()
    try:
        check_index_keys(index, FmriToImagePipeline, "The index", "x")
    finally:
        logging.disable_propagation()
    assert "The index has 'note', which is not known and changes nothing." in caplog.text
    with pytest.raises(FmriModelsError, match="has 'drawing_setting', which is not known.*'drawing_settings'"):
        check_index_keys({**index, "drawing_setting": {}}, FmriToImagePipeline, "The index", "x")
