"""IP-Adapter: numbers of diffusers' own pipelines, published files, and what every generator has to pass."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor

from fmri_models.errors import FmriModelsError
from fmri_models.generation.ip_adapter import IPAdapterImageGenerator
from fmri_models.generation.ip_adapter_network import IPAdapter
from tests.generation.generator_common import (
    GeneratorTesterMixin,
    randomised,
    seeds,
    tiny_autoencoder,
    tiny_image_encoder,
    tiny_text_encoder,
    tiny_tokenizer,
)

WIDTH, TEXT_WIDTH = 12, 16
# Two cross-attentions of the first block up, one of the first block down, one in the middle: in this order.
HIDDEN_SIZES = [8, 8, 8, 16]
WEIGHT_NAME = "ip-adapter_sd15.safetensors"


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(4)
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def published_weights() -> dict[str, torch.Tensor]:
    """An adapter under the names in which it was published: cross-attentions have the odd numbers."""
    generator = torch.Generator().manual_seed(5)
    shapes = {
        "image_proj.proj.weight": (4 * TEXT_WIDTH, WIDTH),
        "image_proj.proj.bias": (4 * TEXT_WIDTH,),
        "image_proj.norm.weight": (TEXT_WIDTH,),
        "image_proj.norm.bias": (TEXT_WIDTH,),
    }
    for index, size in enumerate(HIDDEN_SIZES):
        shapes |= {f"ip_adapter.{2 * index + 1}.to_{kind}_ip.weight": (size, TEXT_WIDTH) for kind in "kv"}
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def adapter_repository(tmp_path_factory):
    """A folder with the published layout."""
    folder = tmp_path_factory.mktemp("adapter")
    (folder / "models").mkdir()
    save_file(published_weights(), folder / "models" / WEIGHT_NAME)
    tiny_image_encoder(WIDTH).save_pretrained(folder / "models" / "image_encoder")
    return str(folder)


def tiny_components(scheduler: type = DDIMScheduler) -> dict[str, Any]:
    """Components of Stable Diffusion's repository, with its schedule."""
    tokenizer = tiny_tokenizer()
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    skipped = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {"clip_sample": False}
    return {
        "vae": tiny_autoencoder(),
        "tokenizer": tokenizer,
        "text_encoder": tiny_text_encoder(tokenizer, TEXT_WIDTH),
        "unet": tiny_unet(),
        "scheduler": scheduler(**schedule, **skipped, set_alpha_to_one=False),
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28),
    }


def tiny_adapter() -> IPAdapter:
    torch.manual_seed(6)
    return randomised(IPAdapter(HIDDEN_SIZES, cross_attention_dim=TEXT_WIDTH, image_embed_dim=WIDTH), seed=7)


def make_generator(**options: Any) -> IPAdapterImageGenerator:
    components = {"ip_adapter": tiny_adapter(), "image_encoder": tiny_image_encoder(WIDTH), "image_side": 16}
    generator = IPAdapterImageGenerator(**(tiny_components() | components | options))
    generator.set_progress_bar_config(disable=True)
    return generator


def original_pipeline(pipeline_class: type = StableDiffusionPipeline, **components: Any) -> Any:
    pipeline = pipeline_class(**components, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class TestIPAdapterImageGenerator(GeneratorTesterMixin):
    generator_class = IPAdapterImageGenerator

    def make_generator(self, **options):
        return make_generator(**options)

    @pytest.mark.parametrize(
        ("scale", "guidance_scale", "texts"),
        [(1.0, 1.0, ["", ""]), (0.4, 1.0, ["a bc", "d"]), (1.0, 7.5, ["", ""]), (0.4, 7.5, ["a bc", "d"])],
    )
    def test_pictures_are_those_of_diffusers(self, adapter_repository, tmp_path, scale, guidance_scale, texts):
        pipeline = original_pipeline(**tiny_components(PNDMScheduler))
        pipeline.save_pretrained(tmp_path)
        generator = IPAdapterImageGenerator.from_source(
            str(tmp_path), adapter_repository=adapter_repository, ip_adapter_scale=scale
        )
        generator.set_progress_bar_config(disable=True)
        pipeline.load_ip_adapter(
            adapter_repository, subfolder="models", weight_name=WEIGHT_NAME, image_encoder_folder=None
        )
        pipeline.set_ip_adapter_scale(scale)
        image_embeds = self.make_inputs(generator, 2)["image_embeds"]
        options = {"guidance_scale": guidance_scale, "num_inference_steps": 5, "output_type": "pt"}
        expected = torch.cat(
            [
                pipeline(texts[index], ip_adapter_image_embeds=[told], generator=seeds(index), **options).images
                for index, told in enumerate(_as_diffusers_takes_them(image_embeds, guidance_scale))
            ]
        )
        text_embeds = generator.embed_texts(texts) if any(texts) else None
        found = generator(image_embeds=image_embeds, text_embeds=text_embeds, generator=seeds(0, 1), **options).images
        assert expected.std() > 0.05
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_a_start_is_that_of_diffusers(self, generator):
        latents = generator.encode_images(self.make_pictures(generator, 2))
        options = {"guidance_scale": 3.0, "num_inference_steps": 10, "strength": 0.75, "output_type": "pt"}
        pipeline = original_pipeline(StableDiffusionImg2ImgPipeline, **tiny_components())
        expected = pipeline(["a", "b c"], image=latents, generator=seeds(0, 1), **options).images
        text_embeds = generator.embed_texts(["a", "b c"])
        found = generator(text_embeds=text_embeds, latents=latents, generator=seeds(0, 1), **options).images
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_without_an_image_stable_diffusion_draws_alone(self, generator):
        pipeline = original_pipeline(**tiny_components())
        options = {"guidance_scale": 3.0, "num_inference_steps": 3, "output_type": "pt"}
        expected = pipeline(["a", "b c"], generator=seeds(0, 1), **options).images
        text_embeds = generator.embed_texts(["a", "b c"])
        found = generator(text_embeds=text_embeds, generator=seeds(0, 1), **options).images
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        silent = self.drawn(make_generator(ip_adapter_scale=0.0), text_embeds=text_embeds)
        torch.testing.assert_close(silent, self.drawn(generator, image_embeds=None, text_embeds=text_embeds))

    def test_drawing_leaves_the_unet_as_it_was(self, generator):
        before = generator.unet.attn_processors
        weights = set(generator.unet.state_dict())
        self.drawn(generator)
        assert generator.unet.attn_processors == before
        generator.unet.conv_out.register_forward_hook(_interrupt)
        with pytest.raises(KeyboardInterrupt):
            self.drawn(generator)
        assert generator.unet.attn_processors == before
        assert set(generator.unet.state_dict()) == weights

    def test_saved_it_is_complete(self, adapter_repository, tmp_path):
        original_pipeline(**tiny_components()).save_pretrained(tmp_path / "base")
        generator = IPAdapterImageGenerator.from_source(
            str(tmp_path / "base"), adapter_repository=adapter_repository, ip_adapter_scale=0.6
        )
        generator.save_pretrained(tmp_path / "ours")
        assert not list((tmp_path / "ours").rglob("*.bin"))
        saved = load_file(tmp_path / "ours" / "unet" / "diffusion_pytorch_model.safetensors")
        published = load_file(tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors")
        assert saved.keys() == published.keys()
        # The published adapter is not needed any more.
        loaded = IPAdapterImageGenerator.from_source(str(tmp_path / "ours"), adapter_repository=str(tmp_path / "none"))
        assert loaded.config.ip_adapter_scale == 0.6
        for each in (generator, loaded):
            each.set_progress_bar_config(disable=True)
        torch.testing.assert_close(self.drawn(loaded), self.drawn(generator), atol=1e-5, rtol=0)

    def test_published_weights_arrive_unchanged(self, adapter_repository):
        adapter = IPAdapter.from_published(adapter_repository, f"models/{WEIGHT_NAME}")
        published, weights = published_weights(), adapter.state_dict()
        assert len(weights) == len(published)
        for index, size in enumerate(HIDDEN_SIZES):
            key = weights[f"attention.{index}.to_k_ip.0.weight"]
            assert key.shape == (size, TEXT_WIDTH)
            torch.testing.assert_close(key, published[f"ip_adapter.{2 * index + 1}.to_k_ip.weight"])
        torch.testing.assert_close(weights["image_projection.image_embeds.weight"], published["image_proj.proj.weight"])

    def test_other_files_are_a_sentence(self, adapter_repository, tmp_path):
        with pytest.raises(FmriModelsError, match=r"is no safetensors file; choose the adapter's \.safetensors file"):
            IPAdapter.from_published(adapter_repository, "models/ip-adapter_sd15.bin")
        with pytest.raises(FmriModelsError, match="has no models/other.safetensors"):
            IPAdapter.from_published(adapter_repository, "models/other.safetensors")
        without_projection = {name: value for name, value in published_weights().items() if "proj" not in name}
        save_file(without_projection | {"image_proj.latents": torch.zeros(1, 16, 8)}, tmp_path / "plus.safetensors")
        with pytest.raises(FmriModelsError, match="holds no adapter of pooled image embeddings"):
            IPAdapter.from_published(str(tmp_path), "plus.safetensors")

    @pytest.mark.parametrize("options", [{"hidden_sizes": [8, 8, 8]}, {"cross_attention_dim": 24}])
    def test_an_adapter_of_another_unet_is_a_sentence(self, options):
        sizes = {"hidden_sizes": HIDDEN_SIZES, "cross_attention_dim": TEXT_WIDTH, "image_embed_dim": WIDTH} | options
        with pytest.raises(FmriModelsError, match="choose the adapter of this UNet"):
            make_generator(ip_adapter=IPAdapter(**sizes))

    def test_an_adapter_of_another_image_encoder_is_a_sentence(self):
        with pytest.raises(FmriModelsError, match="reads image embeddings of 12 values and the image encoder makes 16"):
            make_generator(image_encoder=tiny_image_encoder(16))

    def test_missing_parts_are_a_sentence(self):
        with pytest.raises(FmriModelsError, match="without ip_adapter, which reads image_embeds"):
            self.drawn(make_generator(ip_adapter=None))
        with pytest.raises(FmriModelsError, match="without text_encoder, which embeds captions"):
            self.drawn(make_generator(text_encoder=None), text_embeds=None)
        with pytest.raises(FmriModelsError, match="ip_adapter_scale is -1.0; expected a number from 0"):
            make_generator(ip_adapter_scale=-1.0)

    def test_spaces(self, generator):
        assert generator.image_embedding_space.encoder == "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
        assert generator.image_embedding_space.preprocessing == "28 bicubic antialias, centre crop"
        empty = dict.fromkeys(("unet", "ip_adapter", "image_encoder", "text_encoder", "image_side"))
        bare = make_generator(**empty)
        assert bare.image_embedding_space.shape == (1024,)
        assert bare.text_embedding_space.shape == (77, 768)
        assert bare.image_size == (3, 512, 512)


def _as_diffusers_takes_them(image_embeds: torch.Tensor, guidance_scale: float) -> list[torch.Tensor]:
    """One picture at a time, as its pipeline takes one for a whole batch; with guidance, zeros in front."""
    if guidance_scale == 1:
        return [each[None, None] for each in image_embeds]
    return [torch.stack([torch.zeros_like(each), each])[:, None] for each in image_embeds]


def _interrupt(*arguments: Any) -> None:
    raise KeyboardInterrupt
