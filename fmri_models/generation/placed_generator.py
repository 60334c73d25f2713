"""Where the networks of a generator are and in which dtype they compute, also of a generator that has none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from diffusers import DiffusionPipeline

from ..library_options import checked_device
from ..offloading import check_can_be_sent_by_layer, without_index_of_cpu
from .own_notices import without_own_notices


class PlacedGenerator(DiffusionPipeline):
    """A pipeline of diffusers that may have no networks, and whose networks may have adapters."""

    # Without networks there is nothing to offload, and no reason to refuse it.
    model_cpu_offload_seq: ClassVar[str] = ""
    # What a generator without networks was moved and cast to.
    _own_device = torch.device("cpu")
    _own_dtype = torch.float32

    @property
    def device(self) -> torch.device:
        return super().device if self._networks else self._own_device

    @property
    def dtype(self) -> torch.dtype:
        return super().dtype if self._networks else self._own_dtype

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves or casts the networks; a generator without any notes what it was moved and cast to.

        Raises:
            FmriModelsError: There is no such device here.
        """
        for device in (*args, kwargs.get("device")):
            if device is not None and not isinstance(device, torch.dtype):
                checked_device(device, f"{type(self).__name__}.to")
        with without_own_notices():
            super().to(*args, **kwargs)
        for value in (*args, kwargs.get("device"), kwargs.get("dtype")):
            if isinstance(value, torch.dtype):
                self._own_dtype = value
            elif value is not None:
                self._own_device = torch.device(value)
        return self

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
        for name, component in self.components.items():
            if isinstance(component, torch.nn.Module) and name not in self._exclude_from_cpu_offload:
                check_can_be_sent_by_layer(component, name)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Sends networks back to the CPU afterwards, where `enable_model_cpu_offload` was called."""
        try:
            yield
        finally:
            self.maybe_free_model_hooks()

    @property
    def _networks(self) -> list[torch.nn.Module]:
        return [each for each in self.components.values() if isinstance(each, torch.nn.Module)]
