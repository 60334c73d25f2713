"""Ridge regression from voxels to embeddings and latents."""

from typing import TYPE_CHECKING, Any

from ...records import Method

METHOD = Method.of_folder(__name__, "Linear", title="Linear method: ridge regression to embeddings and latents")

if TYPE_CHECKING:
    from .configuration_linear import LinearConfig
    from .modeling_linear import LinearModel, LinearOutput
    from .objective_linear import LinearObjective
    from .pipeline_linear import LinearPipeline

__all__ = ["METHOD", "LinearConfig", "LinearModel", "LinearObjective", "LinearOutput", "LinearPipeline"]


def __getattr__(name: str) -> Any:
    return METHOD.find(name)
