import json
import shutil
import signal
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fmri_models import EmbeddedImageGenerator, scenes
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.scene_factors import SceneFactorClassifier
from scripts import train_tiny_generator as script
from scripts.tiny_generator.classifier import degrade
from scripts.tiny_generator.clip import build_tokenizer
from scripts.tiny_generator.diffusion_model import UNetStage
from scripts.tiny_generator.pictures import Data
from scripts.tiny_generator.settings import Settings
from tests.new_process import run_program

TINY = {
    "num_pictures": 20,
    "num_validation": 8,
    "num_test": 8,
    "checkpoint_seconds": 0,
    "autoencoder": {
        "steps": 7,
        "batch_size": 4,
        "width": 8,
        "encoder_blocks": [1, 1, 1],
        "decoder_blocks": [1, 1, 1],
        "latent_channels": 4,
    },
    "clip": {
        "steps": 7,
        "batch_size": 4,
        "vision_width": 16,
        "vision_layers": 2,
        "text_width": 16,
        "text_layers": 1,
        "projection_size": 8,
    },
    "classifier": {"steps": 7, "batch_size": 4, "widths": [8, 8, 8]},
    "unet": {"steps": 7, "batch_size": 4, "widths": [8, 16], "time_width": 16, "num_heads": 2, "norm_groups": 4},
}

RUNS = "import sys; from scripts import train_tiny_generator as script; script.main(sys.argv[1:])"
DIES_WHILE_SAVING = """
    import os, signal, sys, torch
    from scripts import train_tiny_generator as script

    save, num_saves = torch.save, 0

    def save_or_die(state, path):
        global num_saves
        num_saves += 1
        save(state, path)
        if num_saves == 4:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save_or_die
    script.main(sys.argv[1:])
"""


@pytest.fixture
def settings_file(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(TINY))
    return path


def run(stage, work, settings_file, *more):
    script.main([stage, "--work", str(work), "--settings", str(settings_file), *map(str, more)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All stages at a small size: the work folder and the assets."""
    folder = tmp_path_factory.mktemp("tiny_generator")
    (folder / "settings.json").write_text(json.dumps(TINY))
    run("all", folder / "work", folder / "settings.json", "--out", folder / "assets")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["autoencoder", "clip", "classifier", "unet"])
def test_killed_training_goes_on_to_the_same_weights(stage, finished, tmp_path, settings_file):
    # All three in processes of one kind: the same sums in another one may differ in the last bit.
    def run_in_new_process(program, work):
        arguments = [stage, "--work", work, "--settings", settings_file, "--out", finished / "assets"]
        return run_program(program, *arguments)

    assert run_in_new_process(RUNS, tmp_path / "whole").returncode == 0
    killed = run_in_new_process(textwrap.dedent(DIES_WHILE_SAVING), tmp_path / "killed")
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "killed" / stage / "checkpoint.pt", weights_only=True)["step"] == 3
    assert "going on from step 3" in run_in_new_process(RUNS, tmp_path / "killed").stdout
    whole, killed = (load_file(tmp_path / work / stage / "weights.safetensors") for work in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_minutes_stop_and_the_next_call_goes_on(tmp_path, settings_file, capsys):
    run("classifier", tmp_path, settings_file, "--minutes", 0)
    assert "stopped after step 0 of 7" in capsys.readouterr().out
    assert not (tmp_path / "classifier" / "weights.safetensors").exists()
    run("classifier", tmp_path, settings_file)
    assert "going on from step 0" in capsys.readouterr().out
    before = (tmp_path / "classifier" / "weights.safetensors").stat().st_mtime_ns
    run("classifier", tmp_path, settings_file)
    assert "finished already" in capsys.readouterr().out
    assert (tmp_path / "classifier" / "weights.safetensors").stat().st_mtime_ns == before


def test_checkpoint_of_other_settings_is_refused(tmp_path, settings_file):
    run("classifier", tmp_path, settings_file, "--minutes", 0)
    settings_file.write_text(json.dumps(TINY | {"classifier": TINY["classifier"] | {"steps": 9}}))
    with pytest.raises(FmriModelsError, match="other settings"):
        run("classifier", tmp_path, settings_file)


def test_assets_need_finished_stages(tmp_path, settings_file):
    with pytest.raises(FmriModelsError, match=r"run the stage autoencoder to its end"):
        run("encoders", tmp_path / "work", settings_file, "--out", tmp_path / "assets")
    assert not (tmp_path / "assets" / "embedded").exists()


def test_all_stages_end_in_assets_that_load(finished):
    assets = finished / "assets"
    generator = EmbeddedImageGenerator.from_pretrained(assets / "embedded", dtype=torch.float32)
    for file in ("image_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors"):
        stored = load_file(assets / "embedded" / file)
        assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    assert generator.generates_from_embeddings
    pictures = torch.from_numpy(
        np.stack([scenes.scene(seed).image for seed in scenes.scene_seeds("generator", TINY["num_pictures"])])
    )
    latents = generator.encode_images(pictures.permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.transpose(0, 1).flatten(1).std(1), torch.ones(4), atol=1e-3, rtol=0)
    captions = [scenes.scene(seed).captions for seed in scenes.scene_seeds("generator", TINY["num_pictures"])]
    texts = generator.embed_texts([each[number % len(each)] for number, each in enumerate(captions)]).flatten(0, -2)
    torch.testing.assert_close(texts.mean(0), torch.tensor(generator.config.text_embeds_mean), atol=1e-4, rtol=1e-3)
    assert len(generator.latent_space.revision) == len(generator.image_embedding_space.revision) == 12
    assert generator.latent_space.revision != generator.image_embedding_space.revision
    classifier = SceneFactorClassifier.from_pretrained(assets / "scene_factors")
    card = (assets / "README.md").read_text()
    assert classifier.sha256[:12] in card
    assert "{" not in card
    figures = json.loads((assets / "figures.json").read_text())
    assert 0 <= figures["embeddings_guidance_2"]["two_way"] <= 1
    assert figures["mean_background"]["kind"] <= 1


@pytest.mark.slow
def test_a_card_can_be_written_again_where_the_encoders_were_trained_elsewhere(finished, tmp_path, settings_file):
    shutil.copytree(finished / "assets", tmp_path / "assets")
    shutil.copytree(finished / "work" / "unet", tmp_path / "work" / "unet")
    run("card", tmp_path / "work", settings_file, "--out", tmp_path / "assets")
    before, after = (json.loads((f / "assets" / "training.json").read_text()) for f in (finished, tmp_path))
    assert before == after


def test_the_diffusion_model_hears_of_conditions_in_the_shares_that_the_settings_say(finished):
    settings = Settings.from_file(finished / "settings.json")
    data = Data.load(settings, finished / "work")
    stage = UNetStage(settings, data, finished / "work", finished / "assets")
    tokens, pooled = stage._condition(np.zeros(4000, dtype=int), torch.Generator().manual_seed(0))
    num_image = stage.image_embeds.shape[1]
    with_image = (tokens[:, :num_image].abs().sum((1, 2)) > 0).float()
    with_text = (tokens[:, num_image:].abs().sum((1, 2)) > 0).float()
    assert torch.equal(with_image, (pooled.abs().sum(1) > 0).float())
    torch.testing.assert_close(with_image.mean(), torch.tensor(0.8), atol=0.03, rtol=0)
    torch.testing.assert_close(with_text.mean(), torch.tensor(0.2), atol=0.03, rtol=0)
    torch.testing.assert_close((with_image * with_text).mean(), torch.tensor(0.1), atol=0.02, rtol=0)


def test_tokenizer_knows_captions_by_words_and_survives_anything_else(tmp_path):
    tokenizer = build_tokenizer(720, 32)
    captions = scenes.scene(1).captions
    assert len(tokenizer) <= 1000
    assert (
        max(len(ids) for ids in tokenizer([c for s in range(200) for c in scenes.scene(s).captions])["input_ids"]) <= 32
    )
    assert (
        tokenizer.decode(tokenizer(captions[0])["input_ids"], skip_special_tokens=True).replace(" ,", ",")
        == captions[0]
    )
    assert tokenizer.unk_token_id not in tokenizer("Zebra & Ünïcode 7!")["input_ids"][1:-1]
    tokenizer.save_pretrained(tmp_path)
    assert type(tokenizer).from_pretrained(tmp_path)(captions)["input_ids"] == tokenizer(captions)["input_ids"]


def test_degraded_pictures_stay_pictures_and_differ():
    pictures = torch.rand(64, 3, 64, 64)
    damaged = degrade(pictures, torch.Generator().manual_seed(0))
    assert damaged.shape == pictures.shape
    assert damaged.min() >= 0 and damaged.max() <= 1
    unchanged = (damaged == pictures).flatten(1).all(1)
    assert 0 < unchanged.sum() < 32


def test_training_and_card_scenes_do_not_meet():
    settings = Settings()
    training = scenes.scene_seeds("generator", settings.num_pictures + settings.num_validation, settings.seed)
    card = scenes.scene_seeds("generator_test", settings.num_test, settings.seed)
    assert not set(training) & set(card)
