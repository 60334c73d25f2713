"""Ridge regression from voxels to embeddings and latents."""

from typing import TYPE_CHECKING, Any

from ...records import Method

METHOD = Method(
    name="linear",
    title="Linear method: ridge regression to embeddings and latents",
    config=f"{__name__}.configuration_linear:LinearConfig",
    model=f"{__name__}.modeling_linear:LinearModel",
    output=f"{__name__}.modeling_linear:LinearOutput",
    pipeline=f"{__name__}.pipeline_linear:LinearPipeline",
    objective=f"{__name__}.objective_linear:LinearObjective",
)

if TYPE_CHECKING:
    from .configuration_linear import LinearConfig
    from .modeling_linear import LinearModel, LinearOutput
    from .objective_linear import LinearObjective
    from .pipeline_linear import LinearPipeline

__all__ = ["METHOD", "LinearConfig", "LinearModel", "LinearObjective", "LinearOutput", "LinearPipeline"]


def __getattr__(name: str) -> Any:
    return METHOD.find(name)
