"""Ridge regression from voxels to embeddings and latents."""

from typing import TYPE_CHECKING, Any

from ...records import Method, Paper, PretrainedRecord

METHOD = Method.of_folder(
    __name__,
    "Linear",
    title="Linear method: ridge regression to embeddings and latents",
    # Others decode this way, too (docs/methods/linear.md); this one drew with a diffusion model early on.
    paper=Paper(
        "High-Resolution Image Reconstruction with Latent Diffusion Models from Human Brain Activity",
        ("Yu Takagi", "Shinji Nishimoto"),
        2023,
        "https://doi.org/10.1101/2022.11.18.517004",
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
    ),
    pretrained=(
        PretrainedRecord(
            "linear-scenes",
            "Ridge regression on a simulated brain that saw built-in scenes, for `load_example`",
            method="linear",
            generator="embedded",
            license="apache-2.0",
            folder="examples/linear-scenes",
        ),
    ),
)

if TYPE_CHECKING:
    from .configuration_linear import LinearConfig
    from .modeling_linear import LinearModel, LinearOutput
    from .objective_linear import LinearObjective
    from .pipeline_linear import LinearPipeline

__all__ = ["METHOD", "LinearConfig", "LinearModel", "LinearObjective", "LinearOutput", "LinearPipeline"]


def __getattr__(name: str) -> Any:
    return METHOD.find(name)
