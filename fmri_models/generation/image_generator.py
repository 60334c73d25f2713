"""What every image generator is: what it takes and gives, and the call that draws, written once."""

import inspect
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from tqdm import tqdm

from ..conditions import CONDITION_SPACES, Conditions
from ..configuration_fmri import FmriConfig
from ..deprecation import moved_names
from ..drawing_settings import DrawingSettings
from ..embedding_space import LEARNED, EmbeddingSpace
from ..errors import FmriModelsError
from ..names import one_line
from ..progress import of_pipeline
from ..seeds import checked_generators
from .former_call import FormerCall, also_given_callback, by_own_call
from .step_callback import CALLBACK_TENSORS, CallbackFunction, CallState, StepCallback
from .stored_generator import StoredGenerator, is_trusted
from .trainable_generator import TrainableGenerator

_MOVED = ("GeneratorOptions", "ImageSide", "hub_options")
__getattr__ = moved_names(
    __name__, f"{__package__}.stored_generator", dict(zip(_MOVED, _MOVED, strict=True)), since="0.1"
)

# A source of noise for all pictures (None for the common one), or one for each.
Generators = torch.Generator | list[torch.Generator] | None


@dataclass
class ImageGeneratorOutput(BaseOutput):
    """Output of an image generator.

    Args:
        images: A list of PIL pictures, or an array (N, H, W, C) or tensor (N, C, H, W) in [0, 1]; for
            `output_type="latent"`, the latents (N, *latent_space.shape) that they are decoded from.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor

    def in_form(self, return_dict: bool) -> Any:
        """The output itself, or the tuple of what it holds."""
        return self if return_dict else self.to_tuple()


class ImageGenerator(FormerCall, CallState, TrainableGenerator, StoredGenerator):
    """A picture from embeddings, a low-level latent, or both.

    A subclass registers its networks as flat components, says by its properties what it takes and how large a picture
    is, so that models and evaluation ask instead of assuming, and implements `draw`; the call, with its
    checks, chunks, callbacks and forms of output, is the same for all.

    Attributes:
        embeds_any_size: Whether `embed_images` takes pictures of any size and resizes them as its space says.
        has_posterior: Whether `sample_latents` draws what `encode_images` gives the mode of.
        limits: A sentence on what its pictures are not, which training, reports and cards repeat; None where they are
            meant to be whole pictures.
        drawing_settings: What a new pipeline draws with where nobody says anything else.
        used_settings: Which of these change what it draws: all but `text_to_image_ratio`, if it says nothing. One that
            draws at random has `num_candidates` and `selection` among them: without, pipelines draw one picture of what
            was decoded, whatever a caller asks for.
        images_a_batch: Pictures that are drawn together; None for all of a call.
        images_a_pass: Pictures that go through an encoder or autoencoder together.
    """

    embeds_any_size: ClassVar[bool] = False
    has_posterior: ClassVar[bool] = False
    limits: ClassVar[str | None] = None
    drawing_settings: ClassVar[DrawingSettings] = DrawingSettings()
    # Few draw from image and text at once.
    used_settings: ClassVar[tuple[str, ...]] = tuple(
        each.name for each in fields(DrawingSettings) if each.name != "text_to_image_ratio"
    )
    images_a_batch: int | None = None
    images_a_pass: int = 32
    _callback_tensor_inputs: ClassVar[list[str]] = CALLBACK_TENSORS
    # Of the pictures that are being drawn, as in diffusers' pipelines; a callback may change them.
    _guidance_scale: float = 1.0
    _text_to_image_ratio: float | None = None
    _num_timesteps: int = 0
    _interrupt: bool = False
    _callback = StepCallback()

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int], **options: Any) -> Self:
        """The generator that a recipe means by the generator's name: the published weights.

        Args:
            image_size: Channels, height and width of the stimuli, for generators without a size of their own.
            **options: Of a generator that has no weights of its own: those that it names in `options`.
        """
        return cls.from_source()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a generator from a folder or a Hub repository; base classes do as the class that its index names.

        The arguments are those of [`StoredGenerator.from_pretrained`].

        Raises:
            FmriModelsError: As there; or it holds a generator of another class, or nothing of the kind.
        """
        place = pretrained_model_name_or_path
        if is_trusted(kwargs) or cls.__init__ is not ImageGenerator.__init__:
            return super().from_pretrained(place, **kwargs)
        # It knows the generators by name, and this class.
        from .loading import saved_class

        found: type[Self] = saved_class(os.fspath(place), cls, kwargs)
        return found.from_pretrained(place, **kwargs)

    @property
    def image_embedding_space(self) -> EmbeddingSpace | None:
        """Space of `image_embeds`; None if the generator takes none."""
        return None

    @property
    def text_embedding_space(self) -> EmbeddingSpace | None:
        """Space of `text_embeds`; None if the generator takes none."""
        return None

    @property
    def latent_space(self) -> EmbeddingSpace | None:
        """Space of `latents`; None if the generator takes none."""
        return None

    @property
    def encoder_hidden_states_space(self) -> EmbeddingSpace | None:
        """Space of `encoder_hidden_states`; None if the generator takes none."""
        return None

    @property
    def time_embeds_space(self) -> EmbeddingSpace | None:
        """Space of `time_embeds`; None if the generator takes none."""
        return None

    @property
    def learned_condition_spaces(self) -> dict[str, EmbeddingSpace]:
        """Name of the property ▶ space of each condition that it learns to read."""
        spaces = self.condition_spaces.items()
        return {CONDITION_SPACES[name]: space for name, space in spaces if space.encoder == LEARNED}

    def learned_space(self, layer: str, shape: tuple[int, ...]) -> EmbeddingSpace:
        """Space of a condition that it learns to read; needs a `condition_revision` in its configuration."""
        return EmbeddingSpace(encoder=LEARNED, revision=self.config.condition_revision, layer=layer, shape=shape)

    def name_learned_spaces(self, config: FmriConfig) -> None:
        """Writes the spaces of learned conditions into the configuration of a brain model, those that it decodes."""
        for name, space in self.learned_condition_spaces.items():
            if getattr(config, name, None) is not None:
                setattr(config, name, space.to_dict())

    def learned_from(self, conditions: Conditions) -> Conditions | None:
        """What embeddings of pictures come to as conditions that it can learn to read; None where it has no such thing.

        A generator that reads both in one place says so, and a brain model may begin with these before the generator
        learns with it.

        Args:
            conditions: Embeddings (N, …) of pictures.
        """
        return None

    @property
    def control_space(self) -> EmbeddingSpace | None:
        """Space of `control`; None if the generator takes none."""
        return None

    @property
    def guide_spaces(self) -> Mapping[str, EmbeddingSpace]:
        """Name ▶ space of each guide that it takes, such as `vgg19.conv1_1`; most take none."""
        return {}

    def __getattr__(self, name: str) -> Any:
        """What a property looks for in vain is named, and not the property, as diffusers' configurations do."""
        found = inspect.getattr_static(type(self), name, None)
        if isinstance(found, property) and found.fget is not None:
            return found.fget(self)
        return super().__getattr__(name)

    @property
    def condition_spaces(self) -> dict[str, EmbeddingSpace]:
        """Name ▶ space of each condition and guide that it takes."""
        spaces = {name: getattr(self, space) for name, space in CONDITION_SPACES.items()}
        return {name: space for name, space in spaces.items() if space is not None} | dict(self.guide_spaces)

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""

    @property
    def generates_from_embeddings(self) -> bool:
        """Whether `image_embeds` change the picture (a generator may embed pictures for retrieval alone), or any other
        condition does but a low-level picture; else pipelines draw from latents alone.
        """
        return bool(self.learned_condition_spaces)

    @property
    def advice(self) -> str | None:
        """A sentence where another generator suits pictures of this size better, which training says first."""
        return None

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds pictures.

        Args:
            pixel_values: (N, C, H, W) float in [0, 1], of `image_size` or, with `embeds_any_size`, of any size.

        Returns:
            (N, *image_embedding_space.shape) float32.
        """
        raise FmriModelsError(f"{type(self).__name__} has no image embeddings; choose a generator that has.")

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeds captions.

        Args:
            texts: N captions.

        Returns:
            (N, *text_embedding_space.shape) float32.
        """
        raise FmriModelsError(f"{type(self).__name__} has no text embeddings; choose a generator that has.")

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encodes pictures.

        Args:
            pixel_values: (N, C, H, W) float in [0, 1], of `image_size`.

        Returns:
            (N, *latent_space.shape) float32.
        """
        raise FmriModelsError(f"{type(self).__name__} has no latents; choose a generator that has.")

    def sample_latents(self, pixel_values: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Encodes pictures as an autoencoder does in its own training: drawn from the posterior.

        Args:
            pixel_values: (N, C, H, W) float in [0, 1], of `image_size`.
            generators: N sources of noise, one a picture.

        Returns:
            (N, *latent_space.shape) float32.
        """
        raise FmriModelsError(
            f"The latents of {type(self).__name__} have no posterior to draw from; take those of encode_images."
        )

    def draw(self, conditions: Conditions, settings: DrawingSettings, generators: Generators) -> torch.Tensor:
        """Draws pictures that are drawn together; a subclass implements it.

        It takes noise from `generators` alone, goes through `steps`, calls `on_step_end` after each (`in_one_step` does
        where nothing is denoised), and reads the guidance from `self.guidance_scale`, which a callback may change.

        Args:
            conditions: Of `len(conditions)` pictures, of the spaces that it takes, where the caller has them;
                `conditions.to(device, dtype)` brings them to the networks.
            settings: Denoising steps, guidance, strength, and weight of the text.
            generators: One source of noise for all pictures, one a picture, or None.

        Returns:
            (N, *latent_space.shape) latents, which `to_images` decodes; without a latent space, pictures
            (N, C, H, W) in [0, 1].
        """
        raise FmriModelsError(f"{type(self).__name__} draws no pictures; choose an image generator that does.")

    def to_images(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (N, C, H, W), about [0, 1], of what `draw` gave; as they are where latents are pictures."""
        return latents

    @classmethod
    def check_settings(cls, settings: DrawingSettings) -> None:
        """Refuses settings that are possible, but not with this generator; before anything is drawn or trained.

        Raises:
            FmriModelsError: Names the setting, its value, and those that it can draw with.
        """

    def accept(self, conditions: Conditions) -> Conditions:
        """The conditions as `draw` is given them.

        Raises:
            FmriModelsError: The generator takes no such condition, or none of such a shape.
        """
        conditions.check(self.condition_spaces, type(self).__name__)
        return conditions

    def __call__(
        self,
        image_embeds: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        strength: float = 1.0,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 1,
        num_images: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: CallbackFunction | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        encoder_hidden_states: torch.Tensor | None = None,
        time_embeds: torch.Tensor | None = None,
        control: torch.Tensor | None = None,
        text_to_image_ratio: float | None = None,
        guides: Mapping[str, torch.Tensor] | None = None,
    ) -> ImageGeneratorOutput:
        """Draws pictures.

        Args:
            image_embeds: (N, *image_embedding_space.shape) as `embed_images` gives them, or None.
            text_embeds: (N, *text_embedding_space.shape) as `embed_texts` gives them, or None.
            latents: (N, *latent_space.shape) low-level picture to start from as `encode_images` gives it, or None.
            strength: How much of the low-level picture is replaced: 0 decodes it as it is, 1 ignores it. Without
                embeddings there is nothing to replace it by, and it is decoded as it is.
            guidance_scale: Weight of the embeddings against the unconditional prediction (Ho and Salimans, 2022); 1
                takes the conditional prediction alone, with half the work.
            num_inference_steps: Denoising steps of a whole picture; a start from latents takes `strength` of them.
            num_images: How many pictures to draw if neither embeddings nor latents say so; the networks are told
                nothing.
            generator: One source of noise for all, or one a picture. Where the schedule adds noise at every step, only
                one a picture makes a picture independent of those beside it.
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for what `encode_images` would give of the pictures.
            return_dict: Whether to return an [`ImageGeneratorOutput`], or a tuple whose first item are the pictures.
            callback_on_step_end: Called as `function(generator, step, timestep, tensors)` at the end of each denoising
                step of the pictures that are drawn together, or once where nothing is denoised. What it returns takes
                the place of what it was given; setting `generator._interrupt` ends the denoising, and
                `generator._guidance_scale` changes the guidance of the steps that follow. The pictures of a long call
                are drawn in chunks, each of which takes all its steps.
            callback_on_step_end_tensor_inputs: What it is given, of `_callback_tensor_inputs`.
            encoder_hidden_states: (N, *encoder_hidden_states_space.shape) that the network has learned to read.
            time_embeds: (N, *time_embeds_space.shape) likewise, or None.
            control: (N, *control_space.shape) likewise, or None.
            text_to_image_ratio: Weight of `text_embeds` beside `image_embeds`, 0 to 1; None as the generator has it.
            guides: Name ▶ (N, *shape) of those that `guide_spaces` names, or None.

        Returns:
            [`ImageGeneratorOutput`], or a tuple.

        Raises:
            FmriModelsError: A condition, shape or option is wrong, or the generator was loaded without the network that
                draws from embeddings.
        """
        conditions = Conditions.joined(
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            latents=latents,
            encoder_hidden_states=encoder_hidden_states,
            time_embeds=time_embeds,
            control=control,
            guides=guides,
            num_images=num_images,
        )
        settings = DrawingSettings(
            strength=strength,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            text_to_image_ratio=text_to_image_ratio,
        )
        on_step_end = StepCallback(callback_on_step_end, callback_on_step_end_tensor_inputs)
        return self._drawn(conditions, settings, generator, output_type, on_step_end).in_form(return_dict)

    def images_of(
        self,
        conditions: Conditions,
        settings: DrawingSettings,
        generators: Generators = None,
        output_type: str = "pil",
        on_step_end: StepCallback | None = None,
    ) -> ImageGeneratorOutput:
        """Draws pictures: the call, given objects in the place of arguments.

        Args:
            conditions: What is drawn from.
            settings: Denoising steps, guidance, strength, and weight of the text.
            generators: One source of noise for all, or one a picture.
            output_type: As in the call.
            on_step_end: What is called at the end of each denoising step.

        Raises:
            FmriModelsError: As in the call.
        """
        draw = partial(by_own_call, self) if self._draws_by_call else self._drawn
        return draw(conditions, settings, generators, output_type, on_step_end)

    @torch.no_grad()
    def _drawn(
        self,
        conditions: Conditions,
        settings: DrawingSettings,
        generators: Generators,
        output_type: str,
        on_step_end: StepCallback | None,
    ) -> ImageGeneratorOutput:
        conditions = self.accept(conditions)
        self.check_settings(settings)
        self.check_output(output_type)
        num_images = conditions.count(type(self).__name__)
        generators = checked_generators(generators, num_images, "pictures")
        self._callback, self._interrupt = on_step_end or StepCallback(), False
        drawn = []
        try:
            with self.released():
                for chunk in _chunks(num_images, self.images_a_batch):
                    # What a callback made of it holds for the pictures that were drawn together.
                    self._guidance_scale = settings.guidance_scale
                    self._text_to_image_ratio = settings.text_to_image_ratio
                    sources = generators[chunk] if isinstance(generators, list) else generators
                    latents = self.draw(conditions[chunk], settings, sources)
                    drawn.append(latents if output_type == "latent" else self.to_images(latents))
        finally:
            # Training, which reads conditions too, has none.
            self._callback, self._text_to_image_ratio = StepCallback(), None
        return self.postprocess(torch.cat(drawn), output_type)

    @property
    def num_timesteps(self) -> int:
        """Steps of the pictures that are drawn together; 1 where nothing is denoised."""
        return self._num_timesteps

    def num_steps(self, conditions: Conditions, settings: DrawingSettings) -> int:
        """Denoising steps that are left to take; 0 where the low-level picture is decoded as it is."""
        if conditions.latents is None:
            return settings.num_inference_steps
        return 0 if conditions.told_nothing else int(settings.num_inference_steps * settings.strength)

    def steps(self, timesteps: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The denoising steps of pictures that are drawn together, on the bar; none any more after an interruption."""
        self._num_timesteps = len(timesteps)
        for step, timestep in enumerate(self.progress_bar(timesteps)):
            if not self._interrupt:
                yield step, timestep

    def on_step_end(
        self, step: int, timestep: torch.Tensor, latents: torch.Tensor, conditions: Conditions
    ) -> tuple[torch.Tensor, Conditions]:
        """Latents and conditions after a step, as the caller's callback leaves them.

        The same conditions come back unless the callback may have changed them.
        """
        return self._callback(self, step, timestep, latents, conditions)

    @also_given_callback
    def in_one_step(self, latents: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """Latents that are not denoised, after the callback has seen them."""
        self._num_timesteps = 1
        return self.on_step_end(0, torch.zeros((), dtype=torch.long), latents, conditions)[0]

    @torch.compiler.disable
    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> tqdm:
        """A bar that says what is drawn, by `set_progress_bar_config`; a line now and then where output is a file."""
        return of_pipeline(self, "Denoising", iterable, total)

    def in_chunks(
        self, function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor, size: int | None = None
    ) -> torch.Tensor:
        """Applies a function to chunks of `size` or `images_a_pass`, so that memory does not grow with the number."""
        return torch.cat([function(chunk) for chunk in values.split(size or self.images_a_pass)])

    @torch.no_grad()
    def pass_images(
        self, function: Callable[[torch.Tensor], torch.Tensor], pixel_values: torch.Tensor, any_size: bool = False
    ) -> torch.Tensor:
        """Sends pictures through a network in chunks of `images_a_pass`, without gradient, after a look at them.

        Args:
            function: Called with (n, C, H, W); its network is brought to the device and sent back as offloading says.
            pixel_values: (N, C, H, W) float in [0, 1].
            any_size: Height and width do not matter, because they will be resized.

        Returns:
            What the function gives of all of them.

        Raises:
            FmriModelsError: Shape, dtype or values differ.
        """
        self.check_images(pixel_values, any_size)
        with self.released():
            return self.in_chunks(function, pixel_values)

    def check_output(self, output_type: str) -> None:
        """Refuses an `output_type` that there is none of, before anything is drawn.

        Raises:
            FmriModelsError: Names those that can be had.
        """
        known = ["pil", "np", "pt", *([] if self.latent_space is None else ["latent"])]
        if output_type in known:
            return
        why = f"; {type(self).__name__} has no latents" if output_type == "latent" else ""
        raise FmriModelsError(
            f"output_type is {one_line(repr(output_type), 80)}; expected {', '.join(map(repr, known[:-1]))} or "
            f"{known[-1]!r}{why}."
        )

    def draw_latents(
        self, num_images: int, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Standard normal latents (N, *latent_space.shape): what a generator starts from when it is told nothing."""
        if self.latent_space is None:
            raise FmriModelsError(f"{type(self).__name__} has no latents; choose a generator that has.")
        return randn_tensor((num_images, *self.latent_space.shape), generator=generator, dtype=torch.float32)

    def check_images(self, pixel_values: torch.Tensor, any_size: bool = False) -> None:
        """Refuses pictures of another size or range than the generator's.

        Args:
            pixel_values: The pictures.
            any_size: Height and width do not matter, because they will be resized.

        Raises:
            FmriModelsError: Shape, dtype or values differ from (N, *image_size), float, [0, 1].
        """
        if not isinstance(pixel_values, torch.Tensor):
            raise FmriModelsError(
                f"{type(self).__name__} takes pictures as a tensor (N, C, height, width) of floats in [0, 1]; got a "
                f"{type(pixel_values).__name__}; VaeImageProcessor(do_resize=False, do_normalize=False)"
                ".preprocess(pictures) of diffusers.image_processor makes one of PIL pictures."
            )
        channels, height, width = self.image_size
        expected = (channels, *pixel_values.shape[2:]) if any_size else self.image_size
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            wanted = f"{channels}, height, width" if any_size else f"{channels}, {height}, {width}"
            raise FmriModelsError(
                f"{type(self).__name__} takes pictures of shape (N, {wanted}); got {tuple(pixel_values.shape)}; "
                f"{'convert' if any_size else 'resize'} them first."
            )
        # NaN is neither.
        in_range = pixel_values.numel() == 0 or bool(pixel_values.min() >= 0 and pixel_values.max() <= 1)
        if not pixel_values.is_floating_point() or not in_range:
            raise FmriModelsError(
                f"{type(self).__name__} takes float pictures in [0, 1]; got {pixel_values.dtype} from "
                f"{pixel_values.min():g} to {pixel_values.max():g}; divide 8-bit values by 255."
            )

    def postprocess(self, pixel_values: torch.Tensor, output_type: str) -> ImageGeneratorOutput:
        """Clamps (N, C, H, W) to [0, 1] and returns it as `output_type`; latents are returned as they are.

        Raises:
            FmriModelsError: Unknown `output_type`.
        """
        self.check_output(output_type)
        if output_type == "latent":
            return ImageGeneratorOutput(images=pixel_values)
        pixel_values = pixel_values.float().clamp(0, 1)
        if output_type == "pt":
            return ImageGeneratorOutput(images=pixel_values)
        arrays = pixel_values.cpu().permute(0, 2, 3, 1).numpy()
        return ImageGeneratorOutput(images=arrays if output_type == "np" else self.numpy_to_pil(arrays))


def _chunks(number: int, size: int | None) -> Iterator[slice]:
    """Slices of a number of pictures, each of at most `size`; None for one of all."""
    size = size or max(1, number)
    return (slice(start, min(start + size, number)) for start in range(0, max(1, number), size))
