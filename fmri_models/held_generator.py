"""The image generator inside a pipeline, a pipeline itself: what is done to the one reaches the other, now or later."""

import inspect
from collections.abc import Callable
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline

from .configuration_fmri import SPACES
from .drawing_settings import DrawingSettings
from .generation.generator_adapter import ADAPTER_FOLDER, AdaptedBase, GeneratorAdapter, without_adapter
from .generation.image_generator import ImageGenerator
from .generation.loading import image_generator_class, load_source, located, parse_source, resolved
from .generation.source import GeneratorSource
from .generation.step_callback import CALLBACK_TENSORS, CallState
from .library_options import checked_device
from .modeling_fmri import FmriPreTrainedModel
from .offloading import check_can_be_sent_by_layer, execution_device, without_index_of_cpu
from .pipeline_components import check_component, check_learned_conditions, check_spaces
from .pipeline_folder import ADAPTER_KEY, PIPELINE_SCHEMA, SCHEMA_WITHOUT_ADAPTER


class HeldGenerator:
    """An image generator that is at hand, or only named and loaded when it is first asked for.

    Attributes:
        at_hand: The generator; None if there is none, or none yet.
        source: Where its weights are; a saved pipeline then names it instead of containing it.
        dtype: What one that is named is loaded in; None takes that of the brain model.
        variant: Which weights of it are taken where its source says nothing.
        hub_options: How it is fetched.
        adapter: What it was trained with and is put on it when it is loaded; None where there is none.
    """

    def __init__(self) -> None:
        self.at_hand: ImageGenerator | None = None
        self.source: GeneratorSource | None = None
        self.dtype: Any = None
        self.variant: str | None = None
        self.hub_options: dict[str, Any] = {}
        self.adapter: GeneratorAdapter | None = None
        # Calls that reach the generator, too: by what they decide, their names and arguments.
        self._told: dict[str, tuple[str, dict[str, Any]]] = {}

    @property
    def drawing_settings(self) -> DrawingSettings:
        """What the class of the generator draws with."""
        if self.at_hand is not None:
            return self.at_hand.drawing_settings
        name = None if self.source is None else self.source.name
        return DrawingSettings() if name is None else image_generator_class(name).drawing_settings

    def check_settings(self, settings: DrawingSettings) -> None:
        """Refuses settings that the class of the generator can't draw with, as far as it is known.

        Raises:
            FmriModelsError: As of [`ImageGenerator.check_settings`].
        """
        if self.at_hand is not None:
            self.at_hand.check_settings(settings)
        elif self.source is not None and self.source.name is not None:
            image_generator_class(self.source.name).check_settings(settings)

    def put(self, generator: ImageGenerator | None, brain_model: FmriPreTrainedModel) -> None:
        """Puts a generator, or none, in the place of the present one; one that was published knows its source.

        Raises:
            FmriModelsError: It is none, or takes other embeddings than the brain model decodes.
        """
        self.at_hand, self.source, self.adapter = None, None, None
        if generator is not None:
            self._take(generator, brain_model)
            self.source = generator.source

    def refer_to(self, source: GeneratorSource, brain_model: FmriPreTrainedModel) -> None:
        """Names where the weights are: of the generator that is at hand, or of one that will be loaded.

        Raises:
            FmriModelsError: The generator that it states takes other embeddings than the brain model decodes.
        """
        source = resolved(source) if self.at_hand is None else located(source, self.at_hand)
        check_spaces(brain_model, {name: source.space(name) for name in SPACES})
        self.source = source

    def load(self, brain_model: FmriPreTrainedModel) -> ImageGenerator | None:
        """The generator, or None; one that is only named is at hand afterwards, where the brain model is.

        Raises:
            FmriModelsError: It is not to be had, or takes other embeddings than the brain model decodes.
        """
        if self.at_hand is None and self.source is not None:
            dtype = self.dtype or brain_model.dtype
            generator = load_source(self.source, dtype=dtype, variant=self.variant, **self.hub_options)
            if self.adapter is not None:
                self.adapter.put_on(generator)
            if "offload" not in self._told:
                generator.to(brain_model.device)
            self._take(generator, brain_model)
        return self.at_hand

    @property
    def adapter_base(self) -> AdaptedBase | None:
        """What the generator's adapter belongs to; None without one."""
        if self.at_hand is not None:
            return self.at_hand.adapter_base
        return None if self.adapter is None else self.adapter.base

    def present_adapter(self) -> GeneratorAdapter | None:
        """The adapter as it is now, on the generator or for one that is not loaded yet; None without one."""
        if self.at_hand is None:
            return self.adapter
        if self.at_hand.adapter_base is None:
            return None
        return GeneratorAdapter.of(self.at_hand, is_beside_base=self.source is None)

    def tell(self, decides: str, method: str, arguments: dict[str, Any]) -> None:
        """Calls a method of the generator, now and for every one that comes later, until this is decided again."""
        if self.at_hand is not None:
            getattr(self.at_hand, method)(**arguments)
        self._told[decides] = method, arguments

    def end_offload(self) -> None:
        """Takes its hooks from the generator; one that comes later gets none."""
        self._told.pop("offload", None)
        if self.at_hand is not None:
            self.at_hand.remove_all_hooks()

    def _take(self, generator: ImageGenerator, brain_model: FmriPreTrainedModel) -> None:
        check_component("image_generator", generator)
        check_spaces(brain_model, {name: getattr(generator, name) for name in SPACES})
        check_learned_conditions(brain_model, generator)
        if "progress_bar" not in self._told:
            # One bar for all pictures, not one for each batch of them.
            generator.set_progress_bar_config(disable=True)
        for method, arguments in self._told.values():
            getattr(generator, method)(**arguments)
        self.at_hand = generator


class HoldsGenerator(CallState, DiffusionPipeline):
    """A pipeline of a brain model and an image generator: the habits of diffusers' pipelines, which reach both."""

    brain_model: FmriPreTrainedModel
    _callback_tensor_inputs = CALLBACK_TENSORS

    def __init__(self) -> None:
        super().__init__()
        self._held = HeldGenerator()
        self._untrained: ImageGenerator | None = None
        # Without whose adapter it is.
        self._untrained_of: ImageGenerator | None = None

    # Not `ImageGenerator | None`: whoever has a pipeline that draws would have to say so again wherever it is used.
    @property
    def image_generator(self) -> Any:
        """The [`ImageGenerator`] that draws, or None; one that is only named is loaded when it is first asked for."""
        return self._held.load(self.brain_model)

    @image_generator.setter
    def image_generator(self, image_generator: ImageGenerator | None) -> None:
        self._held.put(image_generator, self.brain_model)

    @property
    def image_generator_source(self) -> GeneratorSource | None:
        """Where the generator's weights are, if the pipeline names its generator instead of containing it."""
        return self._held.source

    @property
    def components(self) -> dict[str, Any]:
        """The components by name; a generator that is only named is among them as soon as it has been loaded."""
        names, _ = super()._get_signature_keys(self)
        return {name: self._held.at_hand if name == "image_generator" else getattr(self, name) for name in names}

    @classmethod
    def _get_signature_keys(cls, obj: Any) -> tuple[list[str], list[str]]:
        expected, optional = super()._get_signature_keys(obj)
        # diffusers goes through the components to move or to describe them, which must not load a generator.
        if isinstance(obj, HoldsGenerator) and obj._held.at_hand is None:
            expected.remove("image_generator")
        return expected, optional

    @property
    def has_trained_generator(self) -> bool:
        """Whether the image generator was trained together with the brain model, as far as that is known."""
        stated = self.config.get("untrained_generator_source") is not None
        has_adapter = self._held.adapter_base is not None
        return stated or has_adapter or bool(self.brain_model.config.has_learned_conditions)

    @property
    def untrained_image_generator(self) -> Any:
        """The [`ImageGenerator`] as it was before it was trained together with the brain model.

        The one that draws where training left it alone; with an adapter, its base without, whose weights are not
        copied. None where it was trained from nothing, or where the one before is not known.
        """
        base = self._held.adapter_base
        if base is not None and not base.was_trained:
            return self._base_of_adapter()
        if not self.has_trained_generator:
            return self.image_generator
        stated = self.config.get("untrained_generator_source")
        if stated is None:
            return None
        if self._untrained is None:
            self._untrained = load_source(parse_source(stated), dtype=self.brain_model.dtype, **self._held.hub_options)
            self._untrained.set_progress_bar_config(disable=True)
        return self._untrained.to(self.brain_model.device)

    def _base_of_adapter(self) -> ImageGenerator:
        generator = self.image_generator
        if self._untrained is None or self._untrained_of is not generator:
            self._untrained, self._untrained_of = without_adapter(generator), generator
            self._untrained.set_progress_bar_config(disable=True)
        # What is sent when it is needed stays where it is until then.
        is_sent = any(execution_device(network) is not None for network in self._untrained._networks)
        return self._untrained if is_sent else self._untrained.to(self.brain_model.device)

    def _register_untrained_generator(self, source: Any) -> None:
        stated = None if source is None else parse_source(source).to_dict()
        self.register_to_config(untrained_generator_source=stated)

    def _register_image_generator(self) -> None:
        """Makes the generator a component, which is saved with the pipeline, or notes where it is."""
        generator, source, adapter = self._held.at_hand, self._held.source, self._held.adapter
        # Which assigns it, too.
        self.register_modules(image_generator=None if source is not None else generator)
        self._held.at_hand, self._held.source, self._held.adapter = generator, source, adapter
        self.register_to_config(image_generator_source=None if source is None else source.to_dict())
        has_adapter = self._held.adapter_base is not None
        self.register_to_config(fmri_schema=PIPELINE_SCHEMA if has_adapter else SCHEMA_WITHOUT_ADAPTER)
        if has_adapter or ADAPTER_KEY in self.config:
            self.register_to_config(**{ADAPTER_KEY: ADAPTER_FOLDER if has_adapter else None})

    @property
    def num_timesteps(self) -> int:
        """Denoising steps of the pictures that are drawn together; 1 where nothing is denoised."""
        return 0 if self._held.at_hand is None else self._held.at_hand.num_timesteps

    @property
    def _guidance_scale(self) -> float:
        return 1.0 if self._held.at_hand is None else self._held.at_hand._guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, guidance_scale: float) -> None:
        if self._held.at_hand is not None:
            self._held.at_hand._guidance_scale = guidance_scale

    @property
    def _interrupt(self) -> bool:
        return self._held.at_hand is not None and self._held.at_hand._interrupt

    @_interrupt.setter
    def _interrupt(self, interrupt: bool) -> None:
        if self._held.at_hand is not None:
            self._held.at_hand._interrupt = interrupt

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves or casts the pipeline; the image generator, a pipeline itself, goes along, now or when it is loaded.

        The processor's statistics stay in float32.

        Raises:
            FmriModelsError: There is no such device here.
        """
        for value in (*args, kwargs.get("device"), kwargs.get("dtype")):
            if isinstance(value, torch.dtype):
                self._held.dtype = value
            elif value is not None:
                checked_device(value, f"{type(self).__name__}.to")
        super().to(*args, **kwargs)
        if self._held.at_hand is not None:
            self._held.at_hand.to(*args, **kwargs)
        return self

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """How bars are shown, as in diffusers; those of the image generator, which are hidden otherwise, too."""
        super().set_progress_bar_config(**kwargs)
        self._held.tell("progress_bar", "set_progress_bar_config", kwargs)

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """Keeps networks on the CPU, each until it is called; those of the image generator, too."""
        super().enable_model_cpu_offload(gpu_id, device)
        self._held.tell("offload", "enable_model_cpu_offload", {"device": self._offload_device})

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str | None = None
    ) -> None:
        """Keeps weights on the CPU, each until its layer is called; those of the image generator, too.

        Raises:
            FmriModelsError: An adapter of a network computes with weights of layers that it does not call.
        """
        check_can_be_sent_by_layer(self.brain_model, "brain_model")
        if self._held.at_hand is not None:
            self._held.at_hand.check_can_be_sent_by_layer()
        super().enable_sequential_cpu_offload(gpu_id, device)
        without_index_of_cpu(self.brain_model)
        self._held.tell("offload", "enable_sequential_cpu_offload", {"device": self._offload_device})

    def enable_group_offload(self, *args: Any, **kwargs: Any) -> None:
        """Keeps groups of layers elsewhere until they are called; those of the image generator, too."""
        super().enable_group_offload(*args, **kwargs)
        given = inspect.signature(super().enable_group_offload).bind(*args, **kwargs).arguments
        self._held.tell("offload", "enable_group_offload", dict(given))

    def remove_all_hooks(self) -> None:
        """Ends the offloading, that of the image generator, too."""
        super().remove_all_hooks()
        self._held.end_offload()

    def reset_device_map(self) -> None:
        """Ends what a `device_map` has begun, for the image generator, too."""
        super().reset_device_map()
        if self._held.at_hand is not None:
            self._held.at_hand.reset_device_map()

    def set_attention_slice(self, slice_size: str | int | None) -> None:
        """Computes attention in slices, that of the image generator, too."""
        super().set_attention_slice(slice_size)
        self._held.tell("attention_slice", "set_attention_slice", {"slice_size": slice_size})

    def set_use_memory_efficient_attention_xformers(
        self, valid: bool, attention_op: Callable[..., Any] | None = None
    ) -> None:
        """Switches xFormers' attention on or off, that of the image generator, too."""
        super().set_use_memory_efficient_attention_xformers(valid, attention_op)
        arguments = {"valid": valid, "attention_op": attention_op}
        self._held.tell("xformers", "set_use_memory_efficient_attention_xformers", arguments)
