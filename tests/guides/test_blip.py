"""BLIP at a tiny size: its tokens are those of transformers, and captions of them are those that it writes itself."""

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BlipConfig, BlipForConditionalGeneration

from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.guides import named_network
from fmri_models.guides.blip import Captioner
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(55))]
RECIPE = """
method: linear
generator: null
targets: [guides]
guides: {{network: blip, weights: {blip}}}
processor: {{statistics: session}}
stages:
  - name: ridge
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    text = {
        "vocab_size": len(WORDS) + 2,
        "hidden_size": 16,
        "encoder_hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 40,
        "bos_token_id": len(WORDS),
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 48,
        "patch_size": 16,
    }
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp("blip")
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


def test_captions_of_tokens_are_those_of_the_picture(folder: Path) -> None:
    network, captioner = named_network("blip").load(str(folder)), Captioner.from_folder(folder)
    pixels = torch.stack([torch.zeros(3, 60, 60), torch.ones(3, 60, 60), torch.rand(3, 60, 60)])
    tokens = network.features(pixels, ["tokens"])["tokens"]
    # 240 pixels in patches of 16, and the token of the whole picture.
    assert tokens.shape == (3, 15 * 15 + 1, 24) and network.spaces(["tokens"])["tokens"].shape == (226, 24)
    search = {"num_beams": 3, "min_length": 5, "max_length": 20, "repetition_penalty": 1.5}
    own = captioner.blip.generate(pixel_values=network.prepare(pixels), interpolate_pos_encoding=True, **search)
    expected = [text.strip() for text in captioner.tokenizer.batch_decode(own[:, 1:], skip_special_tokens=True)]
    assert captioner.captions(tokens) == expected and all("word" in text for text in expected)
    # They depend on the tokens, and not on those beside them.
    drawn = 3 * torch.randn(4, 7, 24, generator=torch.Generator().manual_seed(1))
    captions = captioner.captions(drawn)
    assert len(set(captions)) > 1 and captioner.captions(drawn[2:3]) == captions[2:3]


def test_folders_that_are_no_blip(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match="needs its weights, a folder with config.json"):
        named_network("blip").load(None)
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tensors = load_file(folder / "model.safetensors")
    removed = tensors.pop("text_decoder.bert.encoder.layer.0.attention.self.query.weight")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(FmriModelsError, match="lacks 1 tensors of a BLIP that captions, such as text_decoder.bert"):
        Captioner.from_folder(tmp_path)
    wrong = {**tensors, "text_decoder.bert.encoder.layer.0.attention.self.query.weight": removed[:3].clone()}
    save_file(wrong, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(FmriModelsError, match="BLIP that captions"):
        Captioner.from_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(FmriModelsError, match="can't be read as a BLIP that captions"):
        Captioner.from_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(FmriModelsError, match="has no tokenizer of BLIP.*put vocab.txt"):
        Captioner.from_folder(tmp_path)
    with pytest.raises(FmriModelsError, match=r"of BLIP's tokens \(N, tokens, 24\); got \(2, 9\)"):
        Captioner.from_folder(folder).captions(torch.zeros(2, 9))


def test_captions_of_responses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table, out = write_small_table(tmp_path / "data"), tmp_path / "decoded"
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(blip=folder))
    train(load_recipe(str(tmp_path / "recipe.yaml"), [f"data={table}", f"out={tmp_path / 'model'}"]))
    command = ["reconstruct", "--model", str(tmp_path / "model"), "--fmri", str(table), "--subject", "subj02"]
    assert main([*command, "--out", str(out)]) == 0
    assert not (out / "captions.csv").exists()
    # What was written before, its layers among it, is replaced.
    assert main([*command, "--out", str(out), "--overwrite", "--guide-weights", f"blip={folder}"]) == 0
    with (out / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (out / "trials.csv").open() as file:
        assert [(row["trial"], row["stimulus"]) for row in rows] == [
            (row["trial"], row["stimulus"]) for row in csv.DictReader(file)
        ]
    tokens = load_file(out / "guides" / "blip.tokens.safetensors")["blip.tokens"]
    assert [row["caption"] for row in rows] == Captioner.from_folder(folder).captions(tokens)
    for weights, sentence in (("vgg19=x", "takes those of blip alone"), ("blip=nowhere", "has no tokenizer of BLIP")):
        assert main([*command, "--out", str(tmp_path / "other"), "--guide-weights", weights]) != 0
        assert sentence in capsys.readouterr().err
