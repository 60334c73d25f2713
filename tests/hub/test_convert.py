"""Published checkpoints become pipeline folders, by the command and in Python."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fmri_models import FmriToImagePipeline
from fmri_models.cli.main import main
from fmri_models.embedding_space import clip_image_tokens_space, stable_diffusion_latent_space
from fmri_models.errors import FmriModelsError
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.hub.cards import write_card
from fmri_models.hub.convert import convert_checkpoint
from fmri_models.models.mindeye import MindEyeModel, MindEyePipeline
from tests.generation.test_versatile_diffusion import make_generator
from tests.models.mindeye import test_convert_mindeye as layout
from tests.small_table import NUM_VOXELS, write_small_table

VOXELS = layout.VOXELS
GROUPS = {"low_level_norm_num_groups": 2}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "last.pth"
    torch.save({"epoch": 239, "model_state_dict": layout.prefixed("module.", layout.published())}, path)
    return path


@pytest.fixture
def low_level_checkpoint(tmp_path):
    torch.save({"model_state_dict": layout.low_level()}, tmp_path / "epoch120.pth")
    return tmp_path / "epoch120.pth"


def published_tokens(num_tokens=257, width=768):
    """Backbone and projector of the published token shape, with a hidden size of one."""
    state = layout.layer("lin0.0", 1, VOXELS) | layout.layer("lin0.1", 1)
    state |= layout.layer("mlp.0.0", 1, 1) | layout.layer("mlp.0.1", 1)
    state |= layout.layer("lin1", num_tokens * width, 1)
    state |= layout.layer("projector.0", width) | layout.layer("projector.2", 2, width) | layout.layer("projector.3", 2)
    state |= layout.layer("projector.5", 2, 2) | layout.layer("projector.6", 2) | layout.layer("projector.8", width, 2)
    return layout.prefixed("voxel2clip.", state)


def published_latents():
    """A low-level branch of the published latent shape."""
    state = layout.low_level() | {"lin1.weight": layout.random(5 * 32 * 32, layout.HIDDEN)}
    return state | layout.layer("upsampler.conv_out", 4, 4, 3, 3)


def failed(capsys, *arguments, code=1):
    assert main(["convert", *(str(argument) for argument in arguments)]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("fmri-models: error: ") and not any("Traceback" in line for line in lines)
    return lines[-1]


def betas(count=2, num_voxels=VOXELS):
    return np.random.default_rng(0).normal(size=(count, num_voxels)).astype(np.float32)


def test_the_command_makes_a_pipeline(tmp_path, checkpoint, low_level_checkpoint, capsys):
    arguments = ["mindeye", checkpoint, "low_level_norm_num_groups=2", "--low-level", low_level_checkpoint]
    assert main(["convert", *map(str, arguments), "--out", str(tmp_path / "out"), "--subject", "subj05"]) == 0
    shown = capsys.readouterr().out
    assert f"subj05 ({VOXELS} voxels)" in shown
    assert "z-scored by voxel over the trials of each session" in shown and "mean of its repetitions" in shown
    assert "fmri-models fit-processor" in shown
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    assert isinstance(pipeline, MindEyePipeline)
    assert pipeline.processor.statistics == "identity" and pipeline.processor.num_voxels == [VOXELS]
    expected = MindEyeModel.from_original(
        checkpoint, low_level_checkpoint=low_level_checkpoint, subject_names=["subj05"], **GROUPS
    )
    found = pipeline.brain_model.state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(found[name], value), name
    inputs = pipeline.processor(betas(), subject="subj05")
    assert torch.equal(inputs["fmri"], torch.from_numpy(betas()))
    assert pipeline.decode(inputs["fmri"], inputs["subject_ids"]).latents.shape == (2, 2, 4, 4)
    assert [path.name for path in tmp_path.glob(".partial*")] == []


def test_the_card_says_where_the_weights_come_from_and_what_they_expect(
    tmp_path, checkpoint, low_level_checkpoint, monkeypatch
):
    convert_checkpoint("mindeye", checkpoint, tmp_path / "out", low_level_checkpoint, **GROUPS)
    card = " ".join((tmp_path / "out" / "README.md").read_text().split())
    assert "weights are those of `last.pth` and `epoch120.pth`" in card
    assert "no statistics to standardise them with" in card and "z-scored by voxel" in card
    assert str(tmp_path) not in card
    again = " ".join(write_card(tmp_path / "out").read_text().split())
    assert again == card


def test_the_published_model_names_its_generator(tmp_path):
    torch.save(published_tokens(), tmp_path / "last.pth")
    torch.save(published_latents(), tmp_path / "epoch120.pth")
    convert_checkpoint("mindeye", tmp_path / "last.pth", tmp_path / "out", tmp_path / "epoch120.pth", **GROUPS)
    assert not (tmp_path / "out" / "image_generator").exists()
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out", cache_dir=str(tmp_path), local_files_only=True)
    source = pipeline.image_generator_source
    assert (source.name, source.repository) == ("versatile_diffusion", "shi-labs/versatile-diffusion")
    # UniPC, as a converted MindBridge has it, and not what the repository was saved with.
    assert source.options == {"published_scheduler": True}
    assert source.space("image_embedding_space") == clip_image_tokens_space()
    assert source.space("latent_space") == stable_diffusion_latent_space()
    assert "`versatile_diffusion of shi-labs/versatile-diffusion`" in (tmp_path / "out" / "README.md").read_text()
    inputs = pipeline.processor(betas())
    decoding = pipeline.decode(inputs["fmri"], inputs["subject_ids"])
    assert decoding.retrieval_embeds.shape == (2, 257, 768)
    with pytest.raises(FmriModelsError, match=r"hf download shi-labs/versatile-diffusion --revision main"):
        pipeline.generate(decoding)


def test_the_model_of_one_token_retrieves_and_names_no_generator(tmp_path, capsys):
    torch.save(published_tokens(1), tmp_path / "last.pth")
    assert main(["convert", "mindeye", str(tmp_path / "last.pth"), "--out", str(tmp_path / "out")]) == 0
    assert "image generator: none" in capsys.readouterr().out
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    inputs = pipeline.processor(betas())
    assert pipeline.decode(inputs["fmri"], inputs["subject_ids"]).retrieval_embeds.shape[-1] == 768
    named = convert_checkpoint(
        "mindeye", tmp_path / "last.pth", tmp_path / "named", image_generator="someone/their-generator"
    )
    assert named.image_generator_source.repository == "someone/their-generator"


def test_a_prior_of_another_architecture_can_be_left_out(tmp_path, capsys):
    path = tmp_path / "last_1x768.pth"
    torch.save(published_tokens(1) | {"net.null_text_embeds": torch.ones(1, 77, 768)}, path)
    assert "use_prior=False" in failed(capsys, "mindeye", path, "--out", tmp_path / "out")
    assert main(["convert", "mindeye", str(path), "use_prior=false", "--out", str(tmp_path / "out")]) == 0
    assert FmriToImagePipeline.from_pretrained(tmp_path / "out").brain_model.prior is None


def test_a_named_generator_draws_what_was_converted(tmp_path, checkpoint):
    """Versatile Diffusion in tiny, in a folder of its own, for a checkpoint of its tokens."""
    generator = make_generator()
    generator.save_pretrained(tmp_path / "repository")
    space = generator.image_embedding_space
    torch.save(published_tokens(*space.shape), tmp_path / "tokens.pth")
    out = tmp_path / "out"
    convert_checkpoint(
        "mindeye", tmp_path / "tokens.pth", out, None, str(tmp_path / "repository"),
        image_embedding_space=space.to_dict(),
    )  # fmt: skip
    assert not (out / "image_generator").exists()
    np.save(tmp_path / "betas.npy", betas())
    pictures = tmp_path / "pictures"
    assert main(["reconstruct", "--model", str(out), "--fmri", str(tmp_path / "betas.npy"), "--subject", "subj01",
                 "--steps", "2", "--out", str(pictures)]) == 0  # fmt: skip
    assert len(list(pictures.glob("*.png"))) == 2


def test_reconstruct_takes_another_generator(tmp_path, checkpoint, capsys):
    convert_checkpoint("mindeye", checkpoint, tmp_path / "out")
    PixelsImageGenerator(3, 4, 4).save_pretrained(tmp_path / "pixels")
    np.save(tmp_path / "betas.npy", betas())
    arguments = ["reconstruct", "--model", tmp_path / "out", "--fmri", tmp_path / "betas.npy", "--subject", "subj01",
                 "--out", tmp_path / "pictures", "--generator", tmp_path / "pixels"]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 1
    assert "mean different things by an embedding" in capsys.readouterr().err


def test_a_small_generator_is_contained_and_one_of_another_space_is_refused(tmp_path, checkpoint):
    small = PixelsImageGenerator(1, 2, 2)
    small.save_pretrained(tmp_path / "pixels")
    space = small.image_embedding_space
    torch.save(published_tokens(*space.shape), tmp_path / "tokens.pth")
    convert_checkpoint(
        "mindeye", tmp_path / "tokens.pth", tmp_path / "out", None, str(tmp_path / "pixels"),
        image_embedding_space=space.to_dict(),
    )  # fmt: skip
    assert (tmp_path / "out" / "image_generator").is_dir()
    EmbeddedImageGenerator.from_assets().save_pretrained(tmp_path / "embedded")
    with pytest.raises(FmriModelsError, match="mean different things by an embedding"):
        convert_checkpoint("mindeye", checkpoint, tmp_path / "refused", image_generator=str(tmp_path / "embedded"))
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_precision_is_one_whatever_the_checkpoints_was(tmp_path, dtype):
    state = {key: value.half() if "mlp" in key else value for key, value in layout.published().items()}
    torch.save(state, tmp_path / "last.pth")
    convert_checkpoint("mindeye", tmp_path / "last.pth", tmp_path / "out", dtype=dtype)
    saved = load_file(tmp_path / "out" / "brain_model" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {getattr(torch, dtype)}
    expected = state["voxel2clip.mlp.0.0.weight"].float().to(getattr(torch, dtype))
    assert torch.equal(saved["backbone.blocks.0.linear.weight"], expected)
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    assert loaded.brain_model.dtype == torch.float32


def test_safetensors_are_read(tmp_path):
    save_file(layout.published(), tmp_path / "last.safetensors")
    convert_checkpoint("mindeye", tmp_path / "last.safetensors", tmp_path / "out")
    assert "`last.safetensors`" in (tmp_path / "out" / "README.md").read_text()


def test_fitting_a_processor_afterwards(tmp_path, monkeypatch, capsys):
    """The card's sentence about missing statistics goes with them."""
    monkeypatch.setattr(layout, "VOXELS", NUM_VOXELS["subj02"])
    torch.save(layout.published(), tmp_path / "last.pth")
    data = write_small_table(tmp_path / "data", ("subj02",))
    out = tmp_path / "out"
    convert_checkpoint("mindeye", tmp_path / "last.pth", out)
    arguments = ["fit-processor", str(out), "--data", str(data)]
    assert main(arguments) == 1
    assert "--subject subj01=NAME" in capsys.readouterr().err
    assert main([*arguments, "--subject", "subj01"]) == 2
    capsys.readouterr()
    assert main([*arguments, "--subject", "subj01=subj02"]) == 0
    assert "fitted the processor" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "no statistics" not in card and "one mean and deviation a session" in card
    assert "`last.pth`" in card
    pipeline = FmriToImagePipeline.from_pretrained(out)
    processed = pipeline.processor(betas(4, 45) * 100, session=1)["fmri"]
    assert not torch.equal(processed, torch.from_numpy(betas(4, 45) * 100))
    (out / "README.md").write_text("My notes")
    before = (out / "processor" / "fmri_statistics.st").read_bytes()
    assert main([*arguments, "--statistics", "pooled"]) == 1
    assert "no model card" in capsys.readouterr().err
    assert (out / "processor" / "fmri_statistics.st").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {"model.layers.0.weight": layout.random(2, 2)},
            "no backbone.* but model.layers.0.weight; it is of",
        ),
        (lambda state: state | {"voxel2clip.lin9.weight": layout.random(2, 2)}, "the unknown voxel2clip.lin9.weight"),
        (
            lambda state: {key: value for key, value in state.items() if key != "net.null_image_embed"},
            "lacks net.null_image_embed",
        ),
        (
            lambda state: state | {"voxel2clip.mlp.1.0.bias": torch.full((layout.HIDDEN,), float("nan"))},
            "voxel2clip.mlp.1.0.bias of the checkpoint has 6 values that are NaN",
        ),
    ],
)
def test_weights_that_are_none_of_this_method_are_named(tmp_path, change, message):
    torch.save(change(layout.published()), tmp_path / "last.pth")
    with pytest.raises(FmriModelsError, match=message):
        convert_checkpoint("mindeye", tmp_path / "last.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_two_files_in_the_wrong_order(tmp_path, checkpoint, low_level_checkpoint, capsys):
    out = ["--out", tmp_path / "out"]
    line = failed(capsys, "mindeye", low_level_checkpoint, "--low-level", checkpoint, *out)
    assert "give the one with voxel2clip first" in line
    line = failed(capsys, "mindeye", checkpoint, "--low-level", checkpoint, *out)
    assert "one with upsampler as the low-level checkpoint" in line
    assert not (tmp_path / "out").exists()


def test_the_two_files_are_of_one_subject(tmp_path, checkpoint, low_level_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(layout, "VOXELS", VOXELS + 3)
    torch.save(layout.low_level(), low_level_checkpoint)
    line = failed(capsys, "mindeye", checkpoint, "--low-level", low_level_checkpoint, "--out", tmp_path / "out")
    assert "The checkpoint reads 11 voxels and the low-level checkpoint 14; give two checkpoints of one subject" in line


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["telepathy", "last.pth"], 2, "'telepathy' can be read; those of mindbridge, mindeye, mindvis can"),
        (["linear", "last.pth"], 2, "'linear' can be read; those of mindbridge, mindeye, mindvis can"),
        (["mindeye", "nowhere.pth"], 1, "no file nowhere.pth"),
        (["mindeye", "."], 1, "is a folder; give the file"),
        (["mindeye", "last.pth", "hidden_width=3"], 1, "no field 'hidden_width'"),
        (["mindeye", "last.pth", "hidden_size"], 2, "not of the form key=value"),
        (["mindeye", "last.pth", "hidden_size=["], 1, "no valid YAML"),
        (["mindeye", "last.pth", "--generator", "stable"], 1, "no image generator 'stable'"),
    ],
)
def test_bad_arguments(tmp_path, checkpoint, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    assert message in failed(capsys, *arguments, "--out", "out", code=code)
    assert not (tmp_path / "out").exists()


def test_a_method_without_published_layout_names_those_that_have_one(tmp_path, checkpoint):
    with pytest.raises(FmriModelsError, match="No checkpoints of 'linear' were .* of mindbridge, mindeye, mindvis are"):
        convert_checkpoint("linear", checkpoint, tmp_path / "out")
    with pytest.raises(FmriModelsError, match="dtype is 'int8'"):
        convert_checkpoint("mindeye", checkpoint, tmp_path / "out", dtype="int8")


def test_an_output_folder_with_content_is_kept_unless_told_otherwise(tmp_path, checkpoint, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("important")
    assert "not empty" in failed(capsys, "mindeye", checkpoint, "--out", tmp_path / "out")
    again = ["mindeye", checkpoint, "--out", tmp_path / "out", "--overwrite"]
    assert "is no pipeline" in failed(capsys, *again)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    (tmp_path / "out" / "thesis.tex").rename(tmp_path / "thesis.tex")
    arguments = ["convert", *map(str, again)]
    assert main(arguments) == 0
    assert main(arguments) == 0
    (tmp_path / "thesis.tex").rename(tmp_path / "out" / "thesis.tex")
    assert "holds thesis.tex" in failed(capsys, *again)
    assert (tmp_path / "out" / "model_index.json").is_file()


def test_a_checkpoint_is_never_inside_of_what_is_replaced(tmp_path, checkpoint, capsys):
    convert_checkpoint("mindeye", checkpoint, tmp_path / "out")
    inside = tmp_path / "out" / "brain_model" / "last.pth"
    checkpoint.rename(inside)
    line = failed(capsys, "mindeye", inside, "--out", tmp_path / "out", "--overwrite")
    assert "contains" in line and "which is read" in line
    assert inside.is_file()


def test_a_full_disk_leaves_nothing(tmp_path, checkpoint, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fmri_models.processing_fmri.FmriProcessor._statistics_bytes", full)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(FmriModelsError, match="The disk is full"):
        convert_checkpoint("mindeye", checkpoint, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_record_of_the_conversion_is_a_sentence(tmp_path, checkpoint):
    convert_checkpoint("mindeye", checkpoint, tmp_path / "out")
    record = tmp_path / "out" / "conversion.json"
    for text, message in [
        ("no json", "is no readable JSON"),
        ('{"schema": 1}', "has no 'method'"),
        (json.dumps({"schema": 9, "method": "mindeye", "checkpoints": []}), "newer version"),
    ]:
        record.write_text(text)
        with pytest.raises(FmriModelsError, match=message):
            write_card(tmp_path / "out")


PEAK = """
import resource, sys
from fmri_models.hub.convert import convert_checkpoint

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

convert_checkpoint("mindeye", sys.argv[1], sys.argv[3] + "_small")
before = peak()
convert_checkpoint("mindeye", sys.argv[2], sys.argv[3])
print(peak() - before)
"""


@pytest.mark.slow
def test_weights_are_in_memory_once_and_an_optimisers_state_never(tmp_path, checkpoint):
    """60 MB of weights beside 300 MB of an optimiser's state."""
    hidden = 60 * 2**18 // (257 * 768)
    state = published_tokens()
    state |= {f"voxel2clip.{key}": value for key, value in layout.layer("lin0.0", hidden, VOXELS).items()}
    for name in ("lin0.1", "mlp.0.1"):
        state |= {f"voxel2clip.{key}": value for key, value in layout.layer(name, hidden).items()}
    state |= {f"voxel2clip.{key}": value for key, value in layout.layer("mlp.0.0", hidden, hidden).items()}
    state |= {f"voxel2clip.{key}": value for key, value in layout.layer("lin1", 257 * 768, hidden).items()}
    optimizer = {"state": {0: {"exp_avg": torch.ones(150 * 2**18), "exp_avg_sq": torch.ones(150 * 2**18)}}}
    torch.save({"model_state_dict": state, "optimizer_state_dict": optimizer}, tmp_path / "large.pth")
    # A process of its own: a forked one has the pages of another to touch for the first time.
    finished = subprocess.run(
        [sys.executable, "-c", PEAK, checkpoint, tmp_path / "large.pth", tmp_path / "out"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert float(finished.stdout.splitlines()[-1]) < 60 + 40
