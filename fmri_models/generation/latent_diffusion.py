"""What generators with a latent diffusion model share: two ways through an autoencoder, schedule and guidance."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers import ModelMixin
from diffusers.utils.torch_utils import randn_tensor

from ..conditions import Conditions
from ..deprecation import Deprecation
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace, stable_diffusion_latent_space
from ..errors import FmriModelsError
from .clip_embedding import ClipPreprocessing, token_ids
from .denoising import denoised, noisy_start
from .image_generator import Generators, ImageGenerator
from .trainable_generator import Predict, Told

_IN_PARTS = Deprecation("in_parts of image generators is in_chunks now; please write that", since="0.1")


class LatentDiffusionGenerator(ImageGenerator):
    """A generator that denoises the latents of an autoencoder.

    A subclass registers its components under the names of the repository they come from and says what its network is
    told (`condition`, `unconditional`), how the network is called (`predict`), and, where the components differ from
    Stable Diffusion's, which ones they are (`network`, `autoencoder`, `to_latents`, `to_pictures`). It may exchange
    layers by what the network is told (`reading`), and change the picture that denoising starts from (`start_from`).

    Networks compute in the dtype they were loaded in; the schedule and guidance are computed in float32. A picture
    depends on its own inputs and its own generator alone, not on the pictures beside it: all noise is drawn picture by
    picture, and a call of any length is computed in chunks.

    Attributes:
        images_a_batch: Pictures that are denoised together (with guidance, twice as many go through the network).
        images_a_pass: Pictures that go through the autoencoder or an encoder together.
        published_side: Height and width of the published pictures, for a generator that was loaded without its network;
            None where the autoencoder's configuration says so.
    """

    images_a_batch = 16
    images_a_pass = 4
    learning_components = ("unet",)
    target_components: ClassVar = {
        "image_embeds": ("image_encoder",),
        "text_embeds": ("text_encoder",),
        "latents": ("vae",),
    }
    embeds_any_size: ClassVar[bool] = True
    has_posterior: ClassVar[bool] = True
    published_side: ClassVar[int | None] = None
    _image_channels: ClassVar[int] = 3

    @property
    def network(self) -> ModelMixin | None:
        """The network that predicts the noise; None if this generator was loaded to give targets alone."""
        return self.unet

    @property
    def autoencoder(self) -> Any:
        """The network between pictures and latents."""
        return self.vae

    @property
    def latent_factor(self) -> int:
        """Pixels, side by side, for one value of a latent."""
        return 2 ** (len(self.autoencoder.config.block_out_channels) - 1)

    @property
    def image_size(self) -> tuple[int, int, int]:
        return (self._image_channels, self._image_side, self._image_side)

    @property
    def _image_side(self) -> int:
        if self.config.get("image_side") is not None:
            return self.config.image_side
        if self.network is not None:
            return self.network.config.sample_size * self.latent_factor
        return self.published_side or self.autoencoder.config.sample_size

    @property
    def latent_space(self) -> EmbeddingSpace:
        space = stable_diffusion_latent_space(self._image_side)
        side = self._image_side // self.latent_factor
        return replace(
            space,
            shape=(self.autoencoder.config.latent_channels, side, side),
            normalisation=f"times {self.autoencoder.config.scaling_factor:g}",
        )

    @property
    def generates_from_embeddings(self) -> bool:
        return self.network is not None

    @property
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what is drawn for one picture before the first step, in the order of drawing."""
        return {"latents": self.latent_space.shape}

    @abstractmethod
    def condition(self, conditions: Conditions, noises: dict[str, torch.Tensor]) -> Told:
        """What the network is told of each picture.

        Args:
            conditions: In float32, on the execution device; latents are not read, and others are given.
            noises: (N, *shape) float32 for each of `noise_shapes`.

        Returns:
            Tensors (N, …) on the execution device.
        """

    @abstractmethod
    def unconditional(self, num_images: int) -> Told:
        """What the network is told when it is told nothing: the same names and shapes as those of `condition`."""

    def unconditional_like(self, told: Told) -> Told:
        """What guidance leads away from; other than `unconditional` where a network can be told several things."""
        return self.unconditional(len(next(iter(told.values()))))

    @contextmanager
    def reading(self, told: Told) -> Iterator[None]:
        """Inside the block, the network is one that reads what it is told, where that is not always the case."""
        yield

    def start_from(self, latents: torch.Tensor) -> torch.Tensor:
        """The low-level picture (N, *latent_space.shape) as the denoising starts from it."""
        return latents

    @abstractmethod
    def predict(self, sample: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        """Calls the network.

        Args:
            sample: (N, *latent_space.shape) in the network's dtype.
            timestep: Scalar.
            told: As `condition` or `unconditional` made it, or both together.

        Returns:
            (N, C, h, w) prediction; with a learned variance, of twice as many channels as the latents.
        """

    def to_latents(self, pictures: torch.Tensor) -> torch.Tensor:
        """Encodes (N, 3, H, W) in [-1, 1], in the autoencoder's dtype: the mode of the posterior, scaled."""
        posterior = self.autoencoder.encode(pictures).latent_dist
        return posterior.mode().float() * self.autoencoder.config.scaling_factor

    def to_pictures(self, latents: torch.Tensor) -> torch.Tensor:
        """Decodes (N, *latent_space.shape) float32 to (N, 3, H, W), about [-1, 1]."""
        unscaled = latents / self.autoencoder.config.scaling_factor
        return self.autoencoder.decode(unscaled.to(self.autoencoder.dtype)).sample

    @property
    def clip_preprocessing(self) -> ClipPreprocessing:
        """How pictures are prepared for `image_encoder`: as CLIP's own, at the size of that encoder."""
        encoder = self.image_encoder
        return ClipPreprocessing() if encoder is None else ClipPreprocessing(size=encoder.config.image_size)

    def embed_prepared(self, prepared: torch.Tensor) -> torch.Tensor:
        """Embeds pictures (N, 3, h, w) that `clip_preprocessing` prepared: CLIP's image embedding, its norm kept."""
        prepared = prepared.to(self._execution_device, self.image_encoder.dtype)
        # The whole encoder is called, because only that brings it to the device where it is offloaded.
        return self.image_encoder(pixel_values=prepared).image_embeds.float()

    def text_tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """All tokens (N, T, D) float32 of the last layer of `text_encoder`, after its last norm."""
        encoder = self.require("text_encoder", "embeds captions, the empty one too")
        tokenizer = self.require("tokenizer", "reads captions")
        input_ids = token_ids(tokenizer, texts, encoder.config).to(self._execution_device)
        return self.in_chunks(lambda chunk: encoder(chunk).last_hidden_state.float(), input_ids)

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds pictures.

        Args:
            pixel_values: (N, 3, H, W) float in [0, 1], of any size.

        Returns:
            (N, *image_embedding_space.shape) float32.

        Raises:
            FmriModelsError: Shape, dtype or values differ, or there is no image encoder.
        """
        return self.pass_images(self._embed, pixel_values, any_size=True)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeds captions: what `text_tokens` gives of them.

        Args:
            texts: N captions; what exceeds the tokenizer's length is cut off.

        Returns:
            (N, *text_embedding_space.shape) float32.

        Raises:
            FmriModelsError: There is no text tower.
        """
        if "text_encoder" not in self.components:
            return super().embed_texts(texts)
        with self.released():
            return self.text_tokens(texts)

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encodes pictures without drawing from the posterior.

        Args:
            pixel_values: (N, 3, H, W) float in [0, 1], of `image_size`.

        Returns:
            (N, *latent_space.shape) float32.

        Raises:
            FmriModelsError: Shape, dtype or values differ.
        """
        return self.pass_images(self._encode, pixel_values)

    @torch.no_grad()
    def sample_latents(self, pixel_values: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Encodes pictures and draws from the posterior.

        Args:
            pixel_values: (N, 3, H, W) float in [0, 1], of `image_size`.
            generators: N sources of noise, one a picture.

        Returns:
            (N, *latent_space.shape) float32.

        Raises:
            FmriModelsError: Shape, dtype or values differ, or the autoencoder has no posterior.
        """
        if not self.has_posterior:
            return super().sample_latents(pixel_values, generators)
        self.check_images(pixel_values)
        drawn = []
        with self.released():
            for pictures, sources in zip(pixel_values.split(1), generators, strict=True):
                posterior = self.autoencoder.encode(self._for_autoencoder(pictures)).latent_dist
                noise = randn_tensor(posterior.mean.shape, sources, self._execution_device, torch.float32)
                drawn.append(posterior.mean.float() + posterior.std.float() * noise)
        return torch.cat(drawn) * self.autoencoder.config.scaling_factor

    def draw(self, conditions: Conditions, settings: DrawingSettings, generators: Generators) -> torch.Tensor:
        """(N, *latent_space.shape) float32 latents of the pictures."""
        conditions = conditions.to(self._execution_device, torch.float32)
        num_steps = self.num_steps(conditions, settings)
        if conditions.latents is not None and num_steps == 0:
            return self.in_one_step(conditions.latents, conditions)
        network = self._drawing_network()
        noises = self.draw_noises(len(conditions), generators)
        told = self.unconditional(len(conditions)) if conditions.told_nothing else self.condition(conditions, noises)
        start = noisy_start(
            self.scheduler,
            conditions.latents,
            noises["latents"],
            settings.num_inference_steps,
            num_steps,
            self.start_from,
            noise_one_step_later=bool(self.config.get("noise_one_step_later", False)),
        )
        with self.reading(told):
            return denoised(
                self,
                start,
                conditions,
                told,
                tell=lambda changed: self.condition(changed, noises),
                nothing_like=self.unconditional_like,
                predict=lambda sample, *asked: self.predict(sample.to(network.dtype), *asked).float(),
                generators=generators,
            )

    def network_in_training(self, conditions: Conditions, generator: torch.Generator | None) -> tuple[Told, Predict]:
        network, conditions = self._drawing_network(), self.accept(conditions)
        conditions = conditions.to(self._execution_device, torch.float32)
        # Those of what it is told; that of the picture is the loss' own.
        noises = self.draw_noises(len(conditions), generator)
        told = self.unconditional(len(conditions)) if conditions.told_nothing else self.condition(conditions, noises)

        def predict(sample: torch.Tensor, timesteps: torch.Tensor, told: Told) -> torch.Tensor:
            with self.reading(told):
                return self.predict(sample.to(network.dtype), timesteps, told).float()

        return told, predict

    def to_images(self, latents: torch.Tensor) -> torch.Tensor:
        return (self.in_chunks(self.to_pictures, latents).float() + 1) / 2

    def require(self, component: str, purpose: str) -> Any:
        """A component that may be missing.

        Args:
            component: Its name.
            purpose: What it is needed for, as in "draws pictures".

        Raises:
            FmriModelsError: The generator was loaded without it.
        """
        found = getattr(self, component)
        if found is None:
            raise FmriModelsError(
                f"This {type(self).__name__} was loaded without {component}, which {purpose}; load it with {component}."
            )
        return found

    def draw_noises(self, num_images: int, generators: Generators) -> dict[str, torch.Tensor]:
        """Standard normal (N, *shape) float32 for each of `noise_shapes`, one picture after the other."""
        sources = generators if isinstance(generators, list) else [generators] * num_images
        drawn: dict[str, list[torch.Tensor]] = {name: [] for name in self.noise_shapes}
        for source in sources:
            for name, shape in self.noise_shapes.items():
                drawn[name].append(randn_tensor((1, *shape), source, self._execution_device, torch.float32))
        return {name: torch.cat(values) for name, values in drawn.items()}

    def in_parts(self, function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
        """What `in_chunks` was called."""
        _IN_PARTS.warn()
        return self.in_chunks(function, values)

    def _embed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.require("image_encoder", "embeds pictures")
        return self.embed_prepared(self.clip_preprocessing(pixel_values.to(self._execution_device)))

    def _encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.to_latents(self._for_autoencoder(pixel_values))

    def _for_autoencoder(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Pictures as the autoencoder takes them: in [-1, 1], in its dtype, where it computes."""
        pictures = 2 * pixel_values.to(self._execution_device, torch.float32) - 1
        return pictures.to(self.autoencoder.dtype)

    def _drawing_network(self) -> ModelMixin:
        network = self.network
        if network is None or self.scheduler is None:
            raise FmriModelsError(
                f"This {type(self).__name__} was loaded without the network that draws from embeddings, or without its "
                "schedule, so it can only embed, encode and decode; load it whole, or pass latents alone."
            )
        return network
