"""Stage 3, image reconstruction: one image generator a file, listed here by its name."""

from ..records import GeneratorRecord, Paper, PretrainedRecord

_VERSATILE_DIFFUSION = Paper(
    "Versatile Diffusion: Text, Images and Variations All in One Diffusion Model",
    ("Xingqian Xu", "Zhangyang Wang", "Eric Zhang", "Kai Wang", "Humphrey Shi"),
    2023,
    "https://arxiv.org/abs/2211.08332",
    "IEEE/CVF International Conference on Computer Vision (ICCV)",
)
_LATENT_DIFFUSION = Paper(
    "High-Resolution Image Synthesis with Latent Diffusion Models",
    ("Robin Rombach", "Andreas Blattmann", "Dominik Lorenz", "Patrick Esser", "Björn Ommer"),
    2022,
    "https://arxiv.org/abs/2112.10752",
    "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
)
_KANDINSKY = Paper(
    "Kandinsky: an Improved Text-to-Image Synthesis with Image Prior and Latent Diffusion",
    (
        "Anton Razzhigaev", "Arseniy Shakhmatov", "Anastasia Maltseva", "Vladimir Arkhipkin", "Igor Pavlov",
        "Ilya Ryabov", "Angelina Kuts", "Alexander Panchenko", "Andrey Kuznetsov", "Denis Dimitrov",
    ),
    2023,
    "https://arxiv.org/abs/2310.03502",
    "Conference on Empirical Methods in Natural Language Processing (EMNLP): System Demonstrations",
)  # fmt: skip
_IP_ADAPTER = Paper(
    "IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models",
    ("Hu Ye", "Jun Zhang", "Sibo Liu", "Xiao Han", "Wei Yang"),
    2023,
    "https://arxiv.org/abs/2308.06721",
)
_MIND_VIS = Paper(
    "Seeing Beyond the Brain: Conditional Diffusion Model with Sparse Masked Modeling for Vision Decoding",
    ("Zijiao Chen", "Jiaxin Qing", "Tiange Xiang", "Wan Lin Yue", "Juan Helen Zhou"),
    2023,
    "https://arxiv.org/abs/2211.06956",
    "IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
)
_CLIP = Paper(
    "Learning Transferable Visual Models From Natural Language Supervision",
    (
        "Alec Radford", "Jong Wook Kim", "Chris Hallacy", "Aditya Ramesh", "Gabriel Goh", "Sandhini Agarwal",
        "Girish Sastry", "Amanda Askell", "Pamela Mishkin", "Jack Clark", "Gretchen Krueger", "Ilya Sutskever",
    ),
    2021,
    "https://arxiv.org/abs/2103.00020",
    "International Conference on Machine Learning (ICML)",
)  # fmt: skip


def _own(
    name: str,
    module: str,
    class_name: str,
    title: str,
    paper: Paper | None = None,
    pretrained: tuple[PretrainedRecord, ...] = (),
) -> GeneratorRecord:
    """A generator of this package; licence, origin and size are those of its weights."""
    return GeneratorRecord(
        name,
        title,
        f"{__name__}.{module}:{class_name}",
        paper=paper,
        license=", ".join(dict.fromkeys(each.license for each in pretrained if each.license)),
        origin=pretrained[0].origin if pretrained else "",
        size=sum(each.size for each in pretrained),
        pretrained=pretrained,
    )


def _published(
    generator: str, repository: str, title: str, paper: Paper, license: str, megabytes: int
) -> PretrainedRecord:
    """Weights of others on the Hub.

    Args:
        generator: Name of the generator that loads them.
        repository: Where they are, from which they get their name.
        title: What they are.
        paper: Where they were described.
        license: As the page of the repository states it.
        megabytes: Of the files that the generator fetches.
    """
    return PretrainedRecord(
        repository.rpartition("/")[2].lower(),
        title,
        generator=generator,
        paper=paper,
        license=license,
        origin=f"https://huggingface.co/{repository}",
        size=megabytes * 10**6,
        state="reference",
        repository=repository,
    )


GENERATORS = (
    _own(
        "embedded",
        "embedded",
        "EmbeddedImageGenerator",
        "Tiny latent diffusion for 64 x 64 scenes, in the package",
        pretrained=(
            PretrainedRecord(
                "embedded",
                "Autoencoder, image encoder and diffusion model of the built-in scenes",
                generator="embedded",
                license="apache-2.0",
                folder="embedded",
            ),
        ),
    ),
    _own("pixels", "pixels", "PixelsImageGenerator", "Small pictures themselves, from patches of pixels"),
    _own(
        "double_conditioned",
        "double_conditioned",
        "DoubleConditionedImageGenerator",
        "Diffusion that learns to read a brain, by cross-attention and time embedding (MinD-Vis, Chen et al., 2023)",
        _MIND_VIS,
    ),
    _own("thumbnail", "thumbnail", "ThumbnailImageGenerator", "Layout and colours of pictures of any size"),
    _own(
        "stable_unclip",
        "stable_unclip",
        "StableUnCLIPImageGenerator",
        "Stable unCLIP (Stability AI, 2023)",
        _LATENT_DIFFUSION,
        (
            _published(
                "stable_unclip",
                "stabilityai/stable-diffusion-2-1-unclip",
                "Stable Diffusion 2.1 that is told the embedding of a picture, with CLIP ViT-H/14",
                _LATENT_DIFFUSION,
                "openrail++",
                7700,
            ),
        ),
    ),
    _own(
        "versatile_diffusion",
        "versatile_diffusion",
        "VersatileDiffusionImageGenerator",
        "Versatile Diffusion (Xu et al., 2023)",
        _VERSATILE_DIFFUSION,
        (
            _published(
                "versatile_diffusion",
                "shi-labs/versatile-diffusion",
                "Versatile Diffusion with its image and text UNets and CLIP ViT-L/14",
                _VERSATILE_DIFFUSION,
                "mit",
                12300,
            ),
        ),
    ),
    _own(
        "kandinsky",
        "kandinsky",
        "KandinskyImageGenerator",
        "Kandinsky 2.2 (Razzhigaev et al., 2023)",
        _KANDINSKY,
        (
            _published(
                "kandinsky",
                "kandinsky-community/kandinsky-2-2-decoder",
                "Diffusion model and autoencoder of Kandinsky 2.2",
                _KANDINSKY,
                "apache-2.0",
                5280,
            ),
            _published(
                "kandinsky",
                "kandinsky-community/kandinsky-2-2-prior",
                "Image encoder of Kandinsky 2.2, LAION's CLIP ViT-bigG/14 (MIT licence)",
                _KANDINSKY,
                "apache-2.0",
                3690,
            ),
        ),
    ),
    _own(
        "stable_diffusion",
        "stable_diffusion",
        "StableDiffusionImageGenerator",
        "Stable Diffusion from a low-level picture and a text (Rombach et al., 2022)",
        _LATENT_DIFFUSION,
        (
            _published(
                "stable_diffusion",
                "CompVis/stable-diffusion-v1-4",
                "Stable Diffusion 1.4, with CLIP ViT-L/14's text tower",
                _LATENT_DIFFUSION,
                "creativeml-openrail-m",
                4270,
            ),
        ),
    ),
    _own(
        "ip_adapter",
        "ip_adapter",
        "IPAdapterImageGenerator",
        "Stable Diffusion with IP-Adapter (Ye et al., 2023)",
        _IP_ADAPTER,
        (
            _published(
                "ip_adapter",
                "stable-diffusion-v1-5/stable-diffusion-v1-5",
                "Stable Diffusion 1.5",
                _LATENT_DIFFUSION,
                "creativeml-openrail-m",
                4270,
            ),
            _published(
                "ip_adapter",
                "h94/IP-Adapter",
                "IP-Adapter for Stable Diffusion 1.5, with LAION's CLIP ViT-H/14 (MIT licence)",
                _IP_ADAPTER,
                "apache-2.0",
                2570,
            ),
        ),
    ),
    _own(
        "clip",
        "clip_targets",
        "ClipTargets",
        "CLIP's embeddings alone, for retrieval; draws nothing",
        _CLIP,
        (
            # The repository's page states no licence; the code that OpenAI published has the MIT licence.
            _published("clip", "openai/clip-vit-large-patch14", "OpenAI's CLIP ViT-L/14", _CLIP, "", 1710),
        ),
    ),
)
