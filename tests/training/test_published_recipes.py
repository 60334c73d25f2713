"""Recipes of published data sets, from fabricated files to a report at a tiny size, by the commands of their page."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from fmri_models import DoubleConditionedImageGenerator, TrialTable, VersatileDiffusionImageGenerator
from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.training.estimate import estimate, estimated
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.docs.test_documentation import ROOT, commands_of
from tests.fabricated import bold5000, god, nsd
from tests.generation.test_versatile_diffusion import make_generator as tiny_versatile_diffusion
from tests.training.tiny_sizes import TINY_MINDEYE

GENERATOR = "image_generator"
TINY_MINDVIS = [
    f"generator={{name: double_conditioned, repository: {GENERATOR}}}",
    "drawing.num_inference_steps=2",
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.num_attention_heads=2",
    "model.decoder_hidden_size=16",
    "model.decoder_num_hidden_layers=1",
    "model.decoder_num_attention_heads=2",
    "processor.patch_size=2",
    "model.patch_size=2",
    "stages.0.training.epochs=1",
    "stages.0.training.mixed_precision=no",
    "stages.1.training.epochs=1",
]
DRAWING = ["drawing.num_inference_steps=2", "drawing.num_candidates=1"]
SHORT_MINDEYE = [
    f"generator={GENERATOR}",
    *DRAWING,
    *TINY_MINDEYE,
    "stages.0.training.epochs=1",
    "stages.0.training.mixed_precision=no",
    "stages.1.training.epochs=1",
]
NEW_SUBJECT = [f"generator={GENERATOR}", *DRAWING, "stages.0.training.epochs=2", "stages.0.training.batch_size=8"]
TINY_MINDBRIDGE = [
    f"generator={GENERATOR}",
    *DRAWING,
    "processor.pool_width=8",
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.adapter_size=4",
    "stages.0.training.epochs=2",
    "stages.0.training.gradient_accumulation_steps=1",
]
TINY = {
    "mindvis_god": TINY_MINDVIS,
    "mindvis_bold5000": TINY_MINDVIS,
    "mindeye_nsd": SHORT_MINDEYE,
    "mindbridge_nsd": TINY_MINDBRIDGE,
    "mindbridge_nsd_new_subject": NEW_SUBJECT,
}
SHORT_REPORT = ["--without", "unavailable", "--rows", "shuffled_brain"]
CANDIDATES = ["--candidates", "1"]


# ----------------------------------------------------------------------------------------------------- what they say


@pytest.mark.parametrize(("name", "batch_size"), [("mindvis_god", 5), ("mindvis_bold5000", 25)])
def test_published_hyper_parameters_of_mindvis(name: str, batch_size: int) -> None:
    recipe = load_recipe(name)
    masked, conditioner = (stage.training for stage in recipe.stages)
    assert masked is not None and conditioner is not None
    assert (masked.batch_size, masked.learning_rate, masked.max_grad_norm, masked.epochs) == (100, 2.5e-4, 0.8, 500)
    assert (conditioner.learning_rate, conditioner.weight_decay, conditioner.max_grad_norm) == (5.3e-5, 0.01, 0.5)
    assert conditioner.batch_size == batch_size and conditioner.schedule == "constant"
    assert recipe.processor["patch_size"] == recipe.model["patch_size"] == 16
    # Nothing of the test is learned from, and no checkpoint is chosen by it.
    assert all("test" not in [*stage.train_on, *stage.validate_on] for stage in recipe.stages)
    assert recipe.stages[1].image_generator == {"train": ["cross_attention"]}


def test_published_hyper_parameters_of_mindbridge() -> None:
    bridge, adapted = (load_recipe(name) for name in ("mindbridge_nsd", "mindbridge_nsd_new_subject"))
    assert bridge.subjects == ["subj01", "subj02", "subj05", "subj07"]
    assert (bridge.processor["pool_width"], bridge.processor["pooling"]) == (8192, "max")
    assert (bridge.model["hidden_size"], bridge.model["num_hidden_layers"], bridge.model["adapter_size"]) == (
        2048,
        4,
        128,
    )
    training = bridge.stages[0].training
    assert training is not None
    # Eight processes of 50 rows a subject, each comparing its own.
    assert training.batch_size == 50 * len(bridge.subjects) and training.gradient_accumulation_steps == 8
    assert (training.sampling, training.gradient_accumulation) == ("balanced", "separate")
    assert training.learning_rate == 8 * 1.5e-4 and training.epochs == 600 and training.final_div_factor == 100
    assert training.warmup == pytest.approx(2 / 600, rel=1e-5)
    objective = bridge.stages[0].objective
    assert (objective["mse_weight"], objective["reconstruction_weight"], objective["cycle_weight"]) == (1e4, 1, 1)
    assert adapted.adaptation == "reset" and adapted.stages[0].objective["cycle"] == "newest"
    training = adapted.stages[0].training
    assert training is not None
    assert (training.epochs, training.batch_size, training.source_share) == (200, 100, 0.5)
    assert training.learning_rate == 1.5e-4 and training.warmup == pytest.approx(2 / 200)
    for recipe in (bridge, adapted):
        assert recipe.repetitions == "all" and recipe.targets == ["image_embeds", "text_embeds"]
        assert recipe.stages[0].training is not None and not recipe.stages[0].training.keep_best
        published = {"num_inference_steps": 20, "guidance_scale": 5.0, "num_candidates": 8, "text_to_image_ratio": 0.5}
        assert recipe.drawing == published


# ------------------------------------------------------------------------------------------- as the page on data sets


def blocks_of_section(heading: str) -> list[list[list[str]]]:
    """Of each block of commands below a heading of the page: the arguments of its lines."""
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    section = page.partition(f"### {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    return [list(commands_of(block)) for block in re.findall(r"^```\n(.*?)^```", section, re.DOTALL | re.MULTILINE)]


def made_small(arguments: Sequence[str]) -> list[str]:
    """A command of the page with what files of a few trials, tiny networks and no Internet ask for."""
    command, name = arguments[:2]
    if command == "prepare":
        return [*arguments, "--option", "incomplete=yes", "--option", "checksums=no", "--option", "size=8"]
    if command == "train":
        small = TINY[name]
        # What the page says of a size stays.
        given = {each.partition("=")[0] for each in arguments[2:]}
        return [*arguments, *(each for each in small if each.partition("=")[0] not in given)]
    return [*arguments, *SHORT_REPORT, *CANDIDATES]


@dataclass
class Typed:
    """A folder in which the blocks of a section are typed, each once, after those before it."""

    folder: Path
    blocks: list[list[list[str]]]
    done: int = 0
    commands: list[list[str]] = field(default_factory=list)

    def up_to(self, block: int) -> None:
        while self.done <= block:
            for arguments in self.blocks[self.done]:
                assert main(made_small(arguments)) == 0, f"fmri-models {' '.join(arguments)}"
                self.commands.append(arguments)
            self.done += 1


def value_of(arguments: Sequence[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def check_report(folder: Path, test_items: int, name: str) -> None:
    """A report on the data set with pictures that open."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert (report["data"]["name"], report["data"]["test_items"]) == (name, test_items)
    assert (folder / "report.html").stat().st_size > 0
    with Image.open(folder / "grid.png") as grid:
        assert grid.width > 100 and grid.height > 100
    assert any((folder / "images").iterdir())


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory):
    """The NSD's files in MindEye's form, with what MindBridge asks for beside them."""
    folder = tmp_path_factory.mktemp("nsd")
    nsd.write_mindeye(folder / "nsd", (1, 2, 5, 7), {"train": 16, "val": 4, "test": 6})
    nsd.write_captions(folder / "nsd")
    tiny_versatile_diffusion().save_pretrained(folder / GENERATOR)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FMRI_MODELS_CACHE", str(folder / "cache"))
        yield Typed(folder, blocks_of_section("From files to a report: NSD"))


def test_the_page_has_three_blocks_on_nsd() -> None:
    blocks = blocks_of_section("From files to a report: NSD")
    names = [[" ".join(arguments[:2]) for arguments in block if arguments[0] != "evaluate"] for block in blocks]
    assert names == [
        ["prepare nsd", "train mindeye_nsd"],
        ["train mindbridge_nsd"],
        ["train mindbridge_nsd_new_subject"],
    ]


@pytest.mark.slow
def test_mindeye_on_nsd(typed: Typed) -> None:
    typed.up_to(0)
    check_report(typed.folder / "outputs/nsd_mindeye_report", 6, "nsd")
    table = TrialTable.open(typed.folder / "data/nsd")
    assert table.subjects == ["subj01", "subj02", "subj05", "subj07"]
    assert table.stimuli.captions(["nsd00003"]) == [[nsd.caption(3), f"{nsd.caption(3)}, again"]]
    record = TrainingRecord.load(typed.folder / "outputs/nsd_mindeye")
    assert record is not None and [stage["stage"] for stage in record.stages] == ["high_level", "low_level"]


@pytest.mark.slow
def test_published_sizes_are_counted_without_the_generator(typed: Typed) -> None:
    typed.up_to(0)
    lines = dict(estimated(load_recipe("mindbridge_nsd", [f"data={typed.folder / 'data/nsd'}"]))[:3])
    # As the original's tensors of four subjects have.
    assert lines["parameters"] == "693,579,264"
    assert "subj07 (18 voxels, read as 8,192 columns, 16 rows)" in lines["subjects"]


@pytest.mark.slow
def test_mindbridge_on_three_subjects_of_nsd(typed: Typed) -> None:
    typed.up_to(1)
    check_report(typed.folder / "outputs/nsd_mindbridge_report", 3 * 6, "nsd")


@pytest.mark.slow
def test_a_further_subject_of_nsd(typed: Typed) -> None:
    typed.up_to(2)
    check_report(typed.folder / "outputs/nsd_mindbridge_subj07_report", 6, "nsd")
    record = TrainingRecord.load(typed.folder / "outputs/nsd_mindbridge_subj07")
    assert record is not None and record.recipe["adaptation"] == "reset"
    # Nobody has to look the names up who leaves subjects= out.
    again = [each for each in made_small(typed.blocks[2][0]) if not each.startswith(("subjects=", "out="))]
    with pytest.raises(FmriModelsError, match=r"'subj05' already, .*; add the others alone \(subjects=\[subj07\]\)"):
        train(load_recipe(again[1], [*again[2:], "out=outputs/none"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heading", "data", "write", "tested"),
    [
        ("From files to a report: GOD", "god", god.write_published, len(god.TESTED)),
        ("From files to a report: BOLD5000", "bold5000", bold5000.write_arrays, len(bold5000.REPEATED)),
    ],
)
def test_mindvis(
    heading: str, data: str, write: Callable, tested: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / data)
    # A folder, as the converted diffusion model of the paper is one.
    generator = DoubleConditionedImageGenerator.for_stimuli(
        (3, 8, 8), block_out_channels=[8, 16], context_dim=8, num_context_tokens=4
    )
    generator.save_pretrained(tmp_path / GENERATOR)
    (block,) = blocks_of_section(heading)
    block = [[each.replace("subj03", "subj01") for each in arguments] for arguments in block]
    typed = Typed(tmp_path, [block])
    typed.up_to(0)
    check_report(Path(value_of(typed.commands[-1], "--out")), tested, data)


# -------------------------------------------------------------------------------------------- the other forms of NSD


@pytest.fixture(scope="module")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generator") / GENERATOR
    tiny_versatile_diffusion().save_pretrained(folder)
    return folder


def prepared(source: Path, out: Path, *options: str) -> Path:
    parts = [part for each in ("incomplete=yes", "checksums=no", *options) for part in ("--option", each)]
    assert main(["prepare", "nsd", "--source", str(source), "--out", str(out), *parts]) == 0
    return out


def small(name: str, generator: Path, *overrides: str) -> list[str]:
    """Overrides of a recipe; those that are given go before the tiny ones."""
    own = [each.replace(f"generator={GENERATOR}", f"generator={generator}") for each in TINY[name]]
    given = {each.partition("=")[0] for each in overrides}
    return [*overrides, *(each for each in own if each.partition("=")[0] not in given)]


@pytest.fixture(scope="module")
def bridged(tmp_path_factory: pytest.TempPathFactory, generator_folder: Path) -> tuple[Path, Path]:
    """A table of MindEye2's form, and MindBridge on two of its three subjects."""
    folder = tmp_path_factory.mktemp("mindeye2")
    source = nsd.write_mindeye2(folder / "source", (1, 2, 5))
    nsd.write_curated_captions(source)
    table = prepared(source, folder / "table")
    shutil.rmtree(source)
    overrides = [f"data={table}", f"out={folder / 'bridge'}", "subjects=[subj01,subj02]"]
    batch = ["stages.0.training.batch_size=16", "stages.0.training.gradient_accumulation_steps=8"]
    train(load_recipe("mindbridge_nsd", small("mindbridge_nsd", generator_folder, *overrides, *batch)))
    return table, folder / "bridge"


@pytest.mark.slow
def test_mindbridge_on_the_form_of_mindeye2(bridged: tuple[Path, Path], tmp_path: Path) -> None:
    table, bridge = bridged
    assert TrialTable.open(table).stimuli.captions(["nsd00011"]) == [[nsd.caption(11)]]
    report = evaluate(bridge, table, tmp_path / "report", "small_pictures", rows=["shuffled_brain"])
    assert report.data["test_items"] == 2 * 4 and report.synthesis is not None


@pytest.mark.slow
def test_lora_for_a_further_subject(bridged: tuple[Path, Path], generator_folder: Path, tmp_path: Path) -> None:
    table, bridge = bridged
    overrides = [f"data={table}", f"out={tmp_path / 'adapted'}", f"initial_model={bridge}", "subjects=[subj05]"]
    way = [f"sources=[{{data: {table}, subjects: [subj01, subj02]}}]", "adaptation=lora", "lora={r: 2}"]
    train(
        load_recipe(
            "mindbridge_nsd_new_subject", small("mindbridge_nsd_new_subject", generator_folder, *overrides, *way)
        )
    )
    assert (tmp_path / "adapted/brain_model/subject_adapters/subject_subj05/adapter_config.json").is_file()
    report = evaluate(tmp_path / "adapted", table, tmp_path / "report", "small_pictures", rows=["shuffled_brain"])
    assert report.data["test_items"] == 4


@pytest.mark.slow
def test_mindeye_on_the_release(generator_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tiny networks are called less often so, for the 600 pictures of a session.
    monkeypatch.setattr(VersatileDiffusionImageGenerator, "images_a_pass", 64)
    source = nsd.write_release(tmp_path / "release", sessions=1)
    table = prepared(source, tmp_path / "table", "rois=early")
    overrides = [f"data={table}", f"out={tmp_path / 'model'}", "subjects=[subj01]"]
    steps = [f"stages.{stage}.training.{key}" for stage in (0, 1) for key in ("epochs=null", "steps=2")]
    train(load_recipe("mindeye_nsd", small("mindeye_nsd", generator_folder, *overrides, *steps)))
    report = evaluate(tmp_path / "model", table, tmp_path / "report", "small_pictures", rows=["shuffled_brain"])
    assert report.data["name"] == "nsd" and report.data["test_stimuli"] > 20


# -------------------------------------------------------------------------------------------- what would be annoying


def test_captions_are_asked_for_before_anything_is_embedded(tmp_path: Path) -> None:
    source = nsd.write_mindeye(tmp_path / "source")
    table = prepared(source, tmp_path / "table", "test_set=shared982")
    recipe = load_recipe("mindbridge_nsd", [f"data={table}", f"out={tmp_path / 'out'}", "subjects=[subj01]"])
    for asked in (train, estimate):
        with pytest.raises(
            FmriModelsError, match=r"^11 of 11 stimuli have no caption .*; prepare .*table with captions"
        ):
            asked(recipe)
    assert not (tmp_path / "out").exists()
