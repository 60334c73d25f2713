"""The uniform call of every image generator, and the door of their folders."""

import json
import logging
import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from tqdm import tqdm

from ..component_index import (
    DIFFUSERS_SAVE_OPTIONS,
    check_can_be_saved,
    check_loading_options,
    check_without_adapters,
    checked_device,
    component_kinds,
    not_loaded,
    take_device_map,
    take_dtype,
)
from ..drawing_settings import DrawingSettings, check_guidance_scale, check_steps, check_strength
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..hub_repository import (
    UploadedInSentences,
    check_place,
    fetch_folder,
    hub_errors_as_sentences,
    is_folder,
    list_files,
    local_folder,
    split_push_options,
    upload_saved,
)
from ..names import one_line
from ..offloading import check_can_be_sent_by_layer, weights_in_place, without_index_of_cpu
from ..progress import of_pipeline
from ..saving import merged_folder, warn_of_pickles, weights_no_longer_needed
from ..swapping import recover, written_files
from ..weights import check_variant, check_variant_name
from .source import GeneratorSource
from .step_callback import CALLBACK_TENSORS, CallbackFunction, CallState, StepCallback
from .stored import INDEX_FILE, check_generator_folder, check_generator_index, check_schedule, stored_dtypes

ImageSide = Annotated[int, Field(ge=1, le=2**14)]


class GeneratorOptions(BaseModel):
    """What a recipe or a saved pipeline may say of how a generator is loaded; each generator adds its own.

    Files choose among these alone. All other arguments of `from_source` and `from_pretrained`, those that run code
    among them, come from whoever calls these in Python.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


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


class ImageGenerator(UploadedInSentences, CallState, DiffusionPipeline):
    """A picture from embeddings, a low-level latent, or both.

    A subclass registers its networks as flat components and implements the abstract methods. Everything that
    differs between generators (what an embedding is, how large a picture is) is stated by the properties, so that
    models and evaluation ask instead of assuming.

    Attributes:
        default_repository: Hub repository of the published weights; None where there are none.
        diffusers_class_names: Names of diffusers' own pipeline classes whose folders this class reads.
        embeds_any_size: Whether `embed_images` takes pictures of any size and resizes them as its space says.
        limits: A sentence on what its pictures are not, which training, reports and cards repeat; None where they are
            meant to be whole pictures.
        options: Which arguments of `from_source` a file may give.
        drawing_settings: What a new pipeline draws with where nobody says anything else.
        used_settings: Which of these change what it draws; several candidates of one embedding differ where a generator
            draws at random.
    """

    default_repository: ClassVar[str | None] = None
    diffusers_class_names: ClassVar[tuple[str, ...]] = ()
    embeds_any_size: ClassVar[bool] = False
    limits: ClassVar[str | None] = None
    options: ClassVar[type[GeneratorOptions]] = GeneratorOptions
    drawing_settings: ClassVar[DrawingSettings] = DrawingSettings()
    used_settings: ClassVar[tuple[str, ...]] = tuple(each.name for each in fields(DrawingSettings))
    # Without networks there is nothing to offload, and no reason to refuse it.
    model_cpu_offload_seq: ClassVar[str] = ""
    _callback_tensor_inputs: ClassVar[list[str]] = CALLBACK_TENSORS
    # Where it was loaded from; a pipeline refers to such a generator instead of containing it.
    source: GeneratorSource | None = None
    # Of the pictures that are being drawn, as in diffusers' pipelines; a callback may change them.
    _guidance_scale: float = 1.0
    _num_timesteps: int = 0
    _interrupt: bool = False
    # What a generator without networks was moved and cast to.
    _own_device = torch.device("cpu")
    _own_dtype = torch.float32

    @classmethod
    @abstractmethod
    def for_stimuli(cls, image_size: tuple[int, int, int]) -> "ImageGenerator":
        """The generator that a recipe means by the generator's name.

        Args:
            image_size: Channels, height and width of the stimuli, for generators without a size of their own.
        """

    @classmethod
    def from_source(
        cls,
        repository: str | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Loads the generator from where its weights were published, or from a copy of that.

        Args:
            repository: Folder or Hub repository; None for `default_repository`.
            revision: Branch, tag or commit of a Hub repository.
            subfolder: Folder inside of it that holds `model_index.json`.
            **kwargs: Those of `from_pretrained`, such as `dtype`, `cache_dir`, `local_files_only`; without `dtype`,
                float32.

        Raises:
            FmriModelsError: There is no default, and none was given.
        """
        cls._take_dtype(kwargs)
        source = cls._local_source(repository, revision, subfolder, kwargs)
        # A folder has no revisions.
        return cls.from_pretrained(source, **kwargs, **({} if os.path.isdir(source) else {"revision": revision}))

    @classmethod
    def _take_dtype(cls, kwargs: dict[str, Any]) -> None:
        """Leaves what the networks are loaded in as `dtype`, which is float32 where nobody says anything."""
        take_dtype(kwargs, f"{cls.__name__}.from_source", component_kinds(cls))
        kwargs.setdefault("dtype", torch.float32)

    @classmethod
    def _local_source(
        cls, repository: str | None, revision: str | None, subfolder: str | None, options: dict[str, Any]
    ) -> str:
        """Folder or repository for `from_pretrained`, which itself knows no subfolders."""
        repository = repository or cls.default_repository
        if repository is None:
            raise FmriModelsError(f"{cls.__name__} has no published weights; pass repository= with a folder or name.")
        check_place(repository)
        if subfolder is None:
            return repository
        patterns = [f"{subfolder}/*"]
        return str(local_folder(repository, patterns, revision=revision, **hub_options(options)) / subfolder)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a generator from a folder or a Hub repository whose index, configurations and weights are whole.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            **kwargs: Those of `DiffusionPipeline.from_pretrained`, and `subfolder`; components (or None), and
                arguments of the constructor.

        Raises:
            FmriModelsError: The folder is none of this generator, names code, or has weights that are missing,
                unexpected, of other shapes or types, or not finite.
        """
        path = os.fspath(pretrained_model_name_or_path)
        if (subfolder := kwargs.pop("subfolder", None)) is not None:
            path = cls._local_source(path, kwargs.pop("revision", None), subfolder, kwargs)
        # Code of others runs only for a caller who says so.
        is_trusted = kwargs.get("trust_remote_code") is True or kwargs.get("custom_pipeline") is not None
        if not _has_networks(cls):
            kwargs.pop("variant", None)
        if not is_trusted:
            check_loading_options(cls, kwargs)
        what = f"{cls.__name__}.from_pretrained"
        take_dtype(kwargs, what, component_kinds(cls))
        device = take_device_map(kwargs, what)
        folder = Path(path) if is_folder(path) else cls._fetched(path, is_trusted, kwargs)
        recover(folder)
        if not is_trusted:
            check_generator_folder(cls, folder, path, kwargs)
            kwargs |= stored_dtypes(cls, folder, kwargs)
        try:
            with _without_own_notices():
                loaded = super().from_pretrained(str(folder), **kwargs)
        except FmriModelsError:
            raise
        # Readers of tokenizers, schedulers and preprocessing raise whatever they come upon.
        except Exception as error:
            raise not_loaded(f"The image generator in {one_line(path)}", error, kwargs) from error
        for name, component in loaded.components.items():
            check_schedule(component, f"The {name} of the image generator in {one_line(path)}")
        loaded.register_to_config(_name_or_path=path)
        if not loaded._networks and isinstance(kwargs.get("dtype"), torch.dtype):
            loaded.to(kwargs["dtype"])
        return loaded if device is None else loaded.to(device)

    @classmethod
    def _fetched(cls, repository: str, is_trusted: bool, options: dict[str, Any]) -> Path:
        """The folder of the cache with a generator of the Hub; what its index says is looked at before the rest comes.

        Raises:
            FmriModelsError: It is none of this generator.
            NotFetchedError: It is no repository's id, or is not to be had.
        """
        check_place(repository)
        if not is_trusted:
            fetching = {"revision": options.get("revision"), **hub_options(options)}
            found = fetch_folder(repository, [INDEX_FILE], **fetching)
            check_generator_index(cls, found / INDEX_FILE, repository, options)
        if options.get("variant") is not None and not options.get("local_files_only"):
            files = list_files(repository, options.get("revision"), options.get("token")) or []
            names = [name.rsplit("/", 1)[-1] for name in files]
            check_variant(names, f"The image generator in {repository}", options["variant"])
        with hub_errors_as_sentences(repository, options.get("revision")):
            return Path(cls.download(repository, **options))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        push_to_hub: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves all components: files of these names are replaced together, everything else in the folder stays.

        Args:
            save_directory: The folder.
            push_to_hub: Upload what was written, too, to `repo_id` or the folder's name.
            safe_serialization: Weights are saved as safetensors, whatever it says.
            variant: Part of the names of the weights files, such as `"fp16"`; the same is given on loading.
            max_shard_size: Size of one weights file.
            **kwargs: Those of `DiffusionPipeline.save_pretrained` and of `push_to_hub`.

        Raises:
            FmriModelsError: A component could not be loaded again (among them networks with an adapter of PEFT), the
                variant is no name, the system refuses to write, or the Hub to take it.
        """
        warn_of_pickles(safe_serialization)
        check_variant_name(variant)
        self.check_can_be_saved()
        self._register_later_components()
        push_options = split_push_options(kwargs, DIFFUSERS_SAVE_OPTIONS)
        with weights_in_place(*self._networks), merged_folder(save_directory, weights_no_longer_needed) as partial:
            super().save_pretrained(str(partial), variant=variant, max_shard_size=max_shard_size, **kwargs)
            files = written_files(partial)
            for file in files:
                if file.endswith(".json"):
                    _without_places(partial / file)
        if push_to_hub:
            upload_saved(save_directory, files, "image generator", push_options)

    def check_can_be_saved(self) -> None:
        """Refuses components that could not be loaded again.

        Raises:
            FmriModelsError: Names the first one.
        """
        check_without_adapters(self.components, type(self).__name__)
        check_can_be_saved(self.components, type(self).__name__)

    def _register_later_components(self) -> None:
        """Makes components that were None at first what diffusers saves."""
        later = {name: part for name, part in self.components.items() if self.config[name][0] is None}
        self.register_modules(**{name: part for name, part in later.items() if part is not None})

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
    @abstractmethod
    def image_size(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""

    @property
    def generates_from_embeddings(self) -> bool:
        """Whether `image_embeds` change the picture (a generator may embed pictures for retrieval alone)."""
        return False

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

    @abstractmethod
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
    ) -> ImageGeneratorOutput:
        """Draws pictures.

        Args:
            image_embeds: (N, *image_embedding_space.shape), or None.
            text_embeds: (N, *text_embedding_space.shape), or None.
            latents: (N, *latent_space.shape) low-level picture to start from, or None.
            strength: How much of the low-level picture is replaced, 0 (none) to 1 (all).
            guidance_scale: Weight of the embeddings against the unconditional prediction.
            num_inference_steps: Denoising steps.
            num_images: How many pictures to draw if neither embeddings nor latents say so.
            generator: One source of noise for all, or one a picture.
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for the latents that the pictures are decoded from.
            return_dict: Whether to return an [`ImageGeneratorOutput`], or a tuple whose first item are the pictures.
            callback_on_step_end: Called as `function(generator, step, timestep, tensors)` at the end of each denoising
                step of the pictures that are drawn together, or once where nothing is denoised. What it returns takes
                the place of what it was given; setting `generator._interrupt` ends the denoising, and
                `generator._guidance_scale` changes the guidance of the steps that follow.
            callback_on_step_end_tensor_inputs: What it is given, of `_callback_tensor_inputs`.
        """

    @property
    def num_timesteps(self) -> int:
        """Steps of the pictures that are drawn together; 1 where nothing is denoised."""
        return self._num_timesteps

    @staticmethod
    def batches(*inputs: Any) -> list[torch.Tensor | None]:
        """Inputs as one tensor each; several in a list, as diffusers takes them, are rows of one.

        Raises:
            FmriModelsError: An input is something else.
        """
        joined: list[torch.Tensor | None] = []
        for values in inputs:
            several = list(values) if isinstance(values, list | tuple) else [values]
            if values is not None and not (several and all(isinstance(each, torch.Tensor) for each in several)):
                kind = type(values if several == [values] else several[0]).__name__ if several else "list of nothing"
                raise FmriModelsError(f"Embeddings and latents are tensors, or lists of them; got a {kind}.")
            joined.append(torch.cat(several) if isinstance(values, list | tuple) else values)
        return joined

    def begin(
        self, guidance_scale: float, function: CallbackFunction | None, names: Sequence[str] | None
    ) -> StepCallback:
        """Notes what a call begins with, and checks the callback that it was given."""
        on_step_end = StepCallback(function, names, self._callback_tensor_inputs)
        self._guidance_scale, self._interrupt = guidance_scale, False
        return on_step_end

    def steps(self, timesteps: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The denoising steps of pictures that are drawn together, on the bar; none any more after an interruption."""
        self._num_timesteps = len(timesteps)
        for step, timestep in enumerate(self.progress_bar(timesteps)):
            if not self._interrupt:
                yield step, timestep

    def in_one_step(self, on_step_end: StepCallback, latents: torch.Tensor, **embeds: torch.Tensor | None) -> Any:
        """Latents that are not denoised, after the callback has seen them."""
        self._num_timesteps = 1
        tensors = dict.fromkeys(self._callback_tensor_inputs) | embeds | {"latents": latents}
        return on_step_end(self, 0, torch.zeros((), dtype=torch.long), tensors)["latents"]

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

    @contextmanager
    def released(self) -> Iterator[None]:
        """Sends networks back to the CPU afterwards, where `enable_model_cpu_offload` was called."""
        try:
            yield
        finally:
            self.maybe_free_model_hooks()

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keeps weights on the CPU, each until its layer is called.

        Raises:
            FmriModelsError: An adapter of a network computes with weights of layers that it does not call.
        """
        self.check_can_be_sent_by_layer()
        super().enable_sequential_cpu_offload(gpu_id, device)
        for network in self._networks:
            without_index_of_cpu(network)

    def check_can_be_sent_by_layer(self) -> None:
        """Refuses networks that compute with weights of layers that they do not call.

        Raises:
            FmriModelsError: Names the first one.
        """
        for name, part in self.components.items():
            if isinstance(part, torch.nn.Module) and name not in self._exclude_from_cpu_offload:
                check_can_be_sent_by_layer(part, name)

    @property
    def device(self) -> torch.device:
        return super().device if self._networks else self._own_device

    @property
    def dtype(self) -> torch.dtype:
        return super().dtype if self._networks else self._own_dtype

    @torch.compiler.disable
    def progress_bar(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> tqdm:
        """A bar that says what is drawn, by `set_progress_bar_config`; a line now and then where output is a file."""
        return of_pipeline(self, "Denoising", iterable, total)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves or casts the networks; a generator without any notes what it was moved and cast to.

        Raises:
            FmriModelsError: There is no such device here.
        """
        for device in (*args, kwargs.get("device")):
            if device is not None and not isinstance(device, torch.dtype):
                checked_device(device, f"{type(self).__name__}.to")
        with _without_own_notices():
            super().to(*args, **kwargs)
        for value in (*args, kwargs.get("device"), kwargs.get("dtype")):
            if isinstance(value, torch.dtype):
                self._own_dtype = value
            elif value is not None:
                self._own_device = torch.device(value)
        return self

    @property
    def _networks(self) -> list[torch.nn.Module]:
        return [part for part in self.components.values() if isinstance(part, torch.nn.Module)]

    def draw_latents(
        self, num_images: int, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Standard normal latents (N, *latent_space.shape): what a generator starts from when it is told nothing."""
        if self.latent_space is None:
            raise FmriModelsError(f"{type(self).__name__} has no latents; choose a generator that has.")
        return randn_tensor((num_images, *self.latent_space.shape), generator=generator, dtype=torch.float32)

    @staticmethod
    def check_options(strength: float, guidance_scale: float, num_inference_steps: int) -> None:
        """Refuses options of the call that make no sense, whatever the generator.

        Raises:
            FmriModelsError: Names the option, its value and the range.
        """
        check_strength("strength", strength)
        check_guidance_scale("guidance_scale", guidance_scale)
        check_steps("num_inference_steps", num_inference_steps)

    def check_shapes(
        self,
        image_embeds: torch.Tensor | None,
        text_embeds: torch.Tensor | None,
        latents: torch.Tensor | None,
    ) -> None:
        """Refuses inputs of another shape than that of their space.

        Raises:
            FmriModelsError: Names the input, its shape and the one expected.
        """
        for name, values, space in (
            ("image_embeds", image_embeds, self.image_embedding_space),
            ("text_embeds", text_embeds, self.text_embedding_space),
            ("latents", latents, self.latent_space),
        ):
            if values is None:
                continue
            if space is None:
                raise FmriModelsError(f"{type(self).__name__} takes no {name}; pass None instead.")
            if tuple(values.shape[1:]) != space.shape:
                raise FmriModelsError(
                    f"{type(self).__name__} takes {name} of shape (N, {', '.join(map(str, space.shape))}); got "
                    f"{tuple(values.shape)}."
                )

    def batch_size(self, num_images: int | None, *inputs: torch.Tensor | None) -> int:
        """The number of pictures that the inputs ask for.

        Raises:
            FmriModelsError: The inputs disagree, or there are none and `num_images` is None.
        """
        sizes = {len(values) for values in inputs if values is not None}
        if num_images is not None:
            sizes.add(num_images)
        if len(sizes) != 1:
            found = "nothing" if not sizes else "batches of " + ", ".join(str(size) for size in sorted(sizes))
            raise FmriModelsError(
                f"{type(self).__name__} was given {found}; pass embeddings or latents of one batch size, or num_images."
            )
        return sizes.pop()

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


def _has_networks(generator_class: type) -> bool:
    """Whether any component may have weights, of which there can be variants."""
    kinds = component_kinds(generator_class).values()
    return any(issubclass(kind, torch.nn.Module) for component in kinds for kind in component)


def hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options of `from_pretrained` that say how files are fetched."""
    names = ("cache_dir", "token", "local_files_only", "force_download", "proxies")
    return {name: options[name] for name in names if name in options}


def _without_places(file: Path) -> None:
    """Where a component was loaded from is nobody else's business."""
    values = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(values, dict) and values.keys() & {"_name_or_path", "name_or_path"}:
        kept = {key: value for key, value in values.items() if key not in ("_name_or_path", "name_or_path")}
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# What diffusers says of its own doings. Its AutoencoderTiny notes `block_out_channels` in the configuration that it
# saves, and takes no such argument; of further entries it is to warn. Casting networks of which nothing has to stay in
# float32, it names the empty list of what has to.
_OWN_NOTICES = {
    "diffusers.configuration_utils": re.compile(
        r"The config attributes \{'block_out_channels': [\[(][0-9, ]*[\])]\} were passed to AutoencoderTiny,"
    ),
    "diffusers.models.modeling_utils": re.compile(r"There are modules in \w+ that should be kept in float32: \[\]\."),
}


def _is_worth_saying(record: logging.LogRecord) -> bool:
    return _OWN_NOTICES[record.name].match(record.getMessage()) is None


@contextmanager
def _without_own_notices() -> Iterator[None]:
    """Inside the block, diffusers does not warn of what it has done itself and nobody can mend."""
    for name in _OWN_NOTICES:
        logging.getLogger(name).addFilter(_is_worth_saying)
    try:
        yield
    finally:
        for name in _OWN_NOTICES:
            logging.getLogger(name).removeFilter(_is_worth_saying)
