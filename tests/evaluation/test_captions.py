"""Scores of captions: what is refused without the libraries, and what they say where they are."""

import importlib.util
import shutil

import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import caption_scores, clip_score

CAPTIONS = ["A man rides a wave on a surfboard.", "A red bus on the street."]
REFERENCES = [["a man riding a wave on a surfboard", "A surfer, in the sea."], ["a red bus drives down a street"]]

has_library = pytest.mark.skipif(importlib.util.find_spec("pycocoevalcap") is None, reason="needs pycocoevalcap")
has_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")


@has_library
def test_without_java():
    found = caption_scores(CAPTIONS, REFERENCES, ("bleu", "rouge_l", "cider"), "words")
    assert list(found) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]
    assert all(0 < value <= 1 for name, value in found.items() if name != "cider")
    same = caption_scores(CAPTIONS, [[text] for text in CAPTIONS], ("bleu", "rouge_l", "cider"), "words")
    assert same["bleu_4"] == pytest.approx(1) and same["rouge_l"] == pytest.approx(1)
    assert same["cider"] == pytest.approx(10)


@pytest.mark.slow
@has_library
@has_java
def test_with_java():
    found = caption_scores(CAPTIONS, REFERENCES)
    assert 0 < found["meteor"] < 1
    # These texts have nothing that the two tokenizers split otherwise.
    words = caption_scores(CAPTIONS, REFERENCES, ("bleu", "rouge_l", "cider"), "words")
    assert {name: found[name] for name in words} == pytest.approx(words)


def test_what_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FmriModelsError, match="meteor, the tokenizer 'ptb' need the command java"):
        caption_scores(CAPTIONS, REFERENCES)
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(FmriModelsError, match=r"fmri_models\[captions\]"):
        caption_scores(CAPTIONS, REFERENCES, ("bleu",), "words")


@pytest.mark.parametrize(
    ("captions", "references", "metrics", "sentence"),
    [
        (["a"], [], ("bleu",), "1 captions and references of 0"),
        ([], [], ("bleu",), "0 captions"),
        ("a", ["b"], ("bleu",), "list of captions"),
        (["a"], [[]], ("bleu",), "Caption 0"),
        (["a"], ["b"], ("bleu",), "Caption 0"),
        (["a", 3], [["b"], ["c"]], ("bleu",), "Caption 1"),
        (["a"], [["b"]], ("blue",), "expected some of bleu"),
    ],
)
def test_what_does_not_fit_is_refused(captions, references, metrics, sentence):
    with pytest.raises(FmriModelsError, match=sentence):
        caption_scores(captions, references, metrics, "words")


def test_clip_score():
    image = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    caption = torch.tensor([[2.0, 0.0], [0.0, -1.0], [1.0, 1.0], [1.0, 0.0]])
    expected = [2.5, 0, 2.5 / 2**0.5, 0]
    assert clip_score(image, caption, reduction="none").tolist() == pytest.approx(expected)
    references = torch.stack([caption, -caption], 1)
    expected = [2 * s / (s + 1) for s in expected]
    assert clip_score(image, caption, references, reduction="none").tolist() == pytest.approx(expected)
    for arguments, sentence in (
        ((image, caption[:2]), "same"),
        ((image, caption, caption), "expected \\(4, R, 2\\)"),
        ((image, torch.full_like(caption, torch.nan)), "captions contain NaN"),
    ):
        with pytest.raises(FmriModelsError, match=sentence):
            clip_score(*arguments)
