"""Stage 3, image reconstruction: one image generator a file, listed here by its name."""

from ..records import GeneratorRecord


def _own(name: str, module: str, class_name: str, title: str) -> GeneratorRecord:
    return GeneratorRecord(name, title, f"{__name__}.{module}:{class_name}")


GENERATORS = (
    _own("embedded", "embedded", "EmbeddedImageGenerator", "Tiny latent diffusion for 64 x 64 scenes, in the package"),
    _own("pixels", "pixels", "PixelsImageGenerator", "Small pictures themselves, from patches of pixels"),
    _own("thumbnail", "thumbnail", "ThumbnailImageGenerator", "Layout and colours of pictures of any size"),
    _own("stable_unclip", "stable_unclip", "StableUnCLIPImageGenerator", "Stable unCLIP (Stability AI, 2023)"),
    _own(
        "versatile_diffusion",
        "versatile_diffusion",
        "VersatileDiffusionImageGenerator",
        "Versatile Diffusion (Xu et al., 2023)",
    ),
    _own("kandinsky", "kandinsky", "KandinskyImageGenerator", "Kandinsky 2.2 (Razzhigaev et al., 2023)"),
    _own("ip_adapter", "ip_adapter", "IPAdapterImageGenerator", "Stable Diffusion with IP-Adapter (Ye et al., 2023)"),
    _own("clip", "clip_targets", "ClipTargets", "CLIP's embeddings alone, for retrieval; draws nothing"),
)
