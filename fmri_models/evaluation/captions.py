"""How well captions of reconstructions, or decoded ones, fit the captions of the pictures that were shown."""

import shutil
import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import FmriModelsError
from .metrics import Reduction, finite_features, reduce

CAPTION_METRICS = ("bleu", "meteor", "rouge_l", "cider", "spice")
_NEED_JAVA = ("meteor", "spice")
# CLIPScore (Hessel et al. 2021).
_CLIP_WEIGHT = 2.5


def caption_scores(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = ("bleu", "meteor", "rouge_l", "cider"),
    tokenizer: Literal["ptb", "words"] = "ptb",
) -> dict[str, float]:
    """BLEU-1 to 4, METEOR, ROUGE-L, CIDEr and SPICE by `pycocoevalcap`, as BrainHub computes them (higher is better).

    METEOR, SPICE and the tokenizer of the Penn Treebank are Java programs inside that package; SPICE fetches models
    of its own the first time. CIDEr weights words by how rare they are in all references, so that it depends on the
    set; of one picture alone it is 0.

    Args:
        captions: N captions.
        references: N lists of captions of the picture that was shown (five of COCO).
        metrics: Of `CAPTION_METRICS`.
        tokenizer: `"ptb"` as published; `"words"` splits at spaces, in lower case without punctuation, and needs no
            Java: its scores are close, and not comparable.

    Returns:
        `bleu_1` to `bleu_4`, `meteor`, `rouge_l`, `cider`, `spice`, as far as they were asked for. 1 is the best BLEU,
        METEOR, ROUGE and SPICE, 10 the best CIDEr; papers print hundred times these.

    Raises:
        FmriModelsError: Numbers differ, a picture has no reference, an unknown metric, or what it needs is not there.
    """
    _check_captions(captions, references)
    unknown = [name for name in metrics if name not in CAPTION_METRICS]
    if unknown or not metrics or tokenizer not in ("ptb", "words"):
        raise FmriModelsError(
            f"The metrics are {list(metrics)} with the tokenizer {tokenizer!r}; expected some of "
            f"{', '.join(CAPTION_METRICS)} with 'ptb' or 'words'."
        )
    _check_java([name for name in metrics if name in _NEED_JAVA], tokenizer)
    scorers = _scorers(metrics)
    split = _by_treebank if tokenizer == "ptb" else _by_words
    truth = split({number: list(each) for number, each in enumerate(references)})
    given = split({number: [each] for number, each in enumerate(captions)})
    found: dict[str, float] = {}
    for name, scorer in scorers.items():
        # Its BLEU writes to standard output unless told not to.
        score, _ = (
            scorer.compute_score(truth, given, verbose=0) if name == "bleu" else scorer.compute_score(truth, given)
        )
        values = {f"bleu_{n}": value for n, value in enumerate(score, 1)} if name == "bleu" else {name: score}
        found |= {metric: float(value) for metric, value in values.items()}
    return found


def clip_score(
    image_features: Any, caption_features: Any, reference_features: Any = None, reduction: Reduction = "mean"
) -> Any:
    """CLIPScore of captions and pictures; with references RefCLIPScore (higher is better; Hessel et al. 2021).

    2.5 times the cosine of a picture's and its caption's embedding, at least 0; with references the harmonic mean with
    the largest cosine of the caption and one of them. The values belong to a CLIP: papers take ViT-B/32 and put
    "A photo depicts" before a caption.

    Args:
        image_features: (N, F) float, embeddings of the pictures that were shown.
        caption_features: (N, F) of the captions.
        reference_features: (N, R, F) of the references' captions; None for CLIPScore.
        reduction: `"mean"` or `"none"`.

    Returns:
        float, or (N,) float64. An embedding of zeros scores 0.

    Raises:
        FmriModelsError: Shapes differ, or values are NaN or infinite.
    """
    image, caption = (
        finite_features(features, f"The embeddings of the {what}")
        for features, what in ((image_features, "pictures"), (caption_features, "captions"))
    )
    if image.shape != caption.shape:
        raise FmriModelsError(
            f"The embeddings of pictures have the shape {tuple(image.shape)} and those of captions "
            f"{tuple(caption.shape)}; expected the same (N, F)."
        )
    score = _CLIP_WEIGHT * _cosines(image, caption).clamp(min=0)
    if reference_features is None:
        return reduce(score, reduction)
    references = torch.as_tensor(reference_features)
    if references.ndim != 3 or (references.shape[0], references.shape[2]) != tuple(caption.shape):
        raise FmriModelsError(
            f"The embeddings of references have the shape {tuple(references.shape)}; expected ({len(caption)}, R, "
            f"{caption.shape[1]})."
        )
    finite_features(references, "The embeddings of the references")
    nearest = torch.stack([_cosines(each, caption) for each in references.unbind(1)]).amax(0).clamp(min=0)
    return reduce((2 * score * nearest / (score + nearest)).nan_to_num(nan=0.0), reduction)


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    one, other = one.double(), other.double()
    norms = one.norm(dim=1) * other.norm(dim=1)
    return ((one * other).sum(1) / norms).nan_to_num(nan=0.0)


def _check_captions(captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if isinstance(captions, str) or len(captions) != len(references) or not captions:
        raise FmriModelsError(
            f"There are {len(captions)} captions and references of {len(references)} pictures; expected a list of "
            "captions, and a list of references for each."
        )
    for number, (caption, those) in enumerate(zip(captions, references, strict=True)):
        if isinstance(those, str) or not those or not all(isinstance(text, str) for text in [caption, *those]):
            raise FmriModelsError(
                f"Caption {number} or its references are not texts; expected a text and a list of one or more."
            )


def _check_java(metrics: Sequence[str], tokenizer: str) -> None:
    needing = [*metrics, *(["the tokenizer 'ptb'"] if tokenizer == "ptb" else [])]
    if needing and shutil.which("java") is None:
        raise FmriModelsError(
            f"{', '.join(needing)} need the command java, which is not there; install a Java runtime, or take "
            "metrics=('bleu', 'rouge_l', 'cider') with tokenizer='words'."
        )


def _scorers(metrics: Sequence[str]) -> dict[str, Any]:
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
        from pycocoevalcap.spice.spice import Spice
    except ImportError as error:
        raise FmriModelsError(
            "Scores of captions need the package pycocoevalcap, which is not installed; pip install "
            '"fmri_models[captions]".'
        ) from error
    made = {"bleu": lambda: Bleu(4), "meteor": Meteor, "rouge_l": Rouge, "cider": Cider, "spice": Spice}
    return {name: made[name]() for name in metrics}


def _by_treebank(texts: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # It reads a line as a caption.
    lines = {number: [{"caption": " ".join(text.split())} for text in those] for number, those in texts.items()}
    return PTBTokenizer().tokenize(lines)


def _by_words(texts: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    spaces = str.maketrans(dict.fromkeys(string.punctuation, " "))
    return {
        number: [" ".join(text.lower().translate(spaces).split()) for text in those] for number, those in texts.items()
    }
