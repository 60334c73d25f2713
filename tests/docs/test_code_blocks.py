"""Every block of Python on every page runs, block by block and in one namespace, in a folder where the demo's output
lies (a small one). Of the start and the tutorials the commands run as well.

What cannot run stands behind `<!-- not run: REASON -->`, with one of the reasons below.
"""

import ast
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import fmri_models
from fmri_models import (
    ClipTargets,
    FmriProcessor,
    FmriToImagePipeline,
    ImageGenerator,
    IPAdapterImageGenerator,
    KandinskyImageGenerator,
    StableDiffusionImageGenerator,
    StableUnCLIPImageGenerator,
    TrialTable,
    VersatileDiffusionImageGenerator,
)
from fmri_models.cli.main import main
from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.models.mindbridge import MindBridgeModel, MindBridgePipeline
from fmri_models.models.mindvis import MindVisModel, MindVisPipeline
from fmri_models.registry import METHODS
from tests import small_demo, small_table
from tests.docs.test_documentation import PAGES, ROOT, commands_of, resolve
from tests.evaluation.test_images import write_pictures
from tests.generation import (
    test_embedded,
    test_ip_adapter,
    test_kandinsky,
    test_stable_diffusion,
    test_stable_unclip,
    test_versatile_diffusion,
    tiny_clip,
)
from tests.models.mindbridge import test_modeling_mindbridge
from tests.models.mindvis import test_modeling_mindvis

REASONS = {
    "needs a file of others",
    "needs libraries for brain images",
    "needs the Hub",
    "needs weights of gigabytes",
    "stays open",
    "takes minutes",
}
# What a block that is not run may import and need not be installed.
NOT_INSTALLED_ALONG = {"h5py", "nibabel", "nilearn"}

Names = dict[str, Any]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]*) -->\n\s*)?"
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"\n]+)\"| \{[^}\n]*\})?\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
_NOT_RUN = re.compile(r"<!-- not run")


class Block(NamedTuple):
    """A block of code; `reason` says why it is not run, `title` which file a reader saves it as."""

    language: str
    text: str
    reason: str | None
    title: str | None


def blocks_of(page: Path) -> list[Block]:
    """Those of a page, in its order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(each["language"], each["text"], each["reason"], each["title"]) for each in found]


@dataclass(frozen=True)
class Setup:
    """What a page needs besides the small demo.

    Args:
        before: Makes it, in the working directory; gives names that the page takes for granted.
        after: Looks at what the page has left.
        replaced: Text of the page ▶ what runs in its place.
        slow: Whether the page runs among the slow tests.
    """

    before: Callable[[pytest.MonkeyPatch], Names | None] | None = None
    after: Callable[[Names], None] | None = None
    replaced: dict[str, str] = field(default_factory=dict)
    slow: bool = False


# --------------------------------------------------------------------------------------------------- before and after


def quick_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples draw in one step."""
    load = fmri_models.load_example

    def load_quickly(name: str = "mindeye-scenes", **options: Any) -> Any:
        pipeline, trials = load(name, **options)
        pipeline.drawing_settings = {"num_inference_steps": 1, "num_candidates": 1}
        return pipeline, trials

    monkeypatch.setattr(fmri_models, "load_example", load_quickly)


def trained_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that was trained, with its report."""
    run("train", "linear", "data=outputs/demo/data", "out=outputs/demo/pipeline", "generator=pixels", "--overwrite")
    run(
        "evaluate", "--model", "outputs/demo/pipeline", "--data", "outputs/demo/data", "--protocol", "small_pictures",
        "--out", "outputs/demo", "--overwrite",
    )  # fmt: skip


def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    run("train", "linear", "data=outputs/demo/data", "out=outputs/linear", "generator=pixels")


def mindeye(monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("outputs/demo/pipeline", "outputs/mindeye")


def two_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(Path("reconstructions"), noise=0.3)
    write_pictures(Path("shown"))


def a_pack(names: Names) -> None:
    assert Path("raters/index.html").is_file() and Path("raters-key.json").is_file()


def mindvis(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    generator = DoubleConditionedImageGenerator.for_stimuli(
        (1, 8, 8), block_out_channels=[8, 8], context_dim=8, num_context_tokens=3, attention_heads=2
    )
    spaces = {name: space.to_dict() for name, space in generator.learned_condition_spaces.items()}
    widths = {"subject_names": ["subj01"], "num_voxels": [small_demo.NUM_VOXELS]}
    model = MindVisModel(test_modeling_mindvis.tiny_config(**spaces, **widths))
    processor = processor_of("outputs/demo/data", padding="wrap", patch_size=model.config.patch_size)
    MindVisPipeline(model, processor, generator).save_pretrained("outputs/mindvis")


def mindbridge(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Two subjects, and a generator that reads image and text."""
    torch.manual_seed(0)
    generator = test_embedded.tiny_generator(with_unet=True)
    shutil.rmtree("outputs/demo/data")
    small_table.write_small_table(Path("outputs/demo/data"), ("subj01", "subj02"))
    processor = processor_of("outputs/demo/data")
    config = test_modeling_mindbridge.tiny_config(
        subject_names=processor.subject_names,
        num_voxels=processor.num_voxels,
        image_embedding_space=generator.image_embedding_space.to_dict(),
        text_embedding_space=generator.text_embedding_space.to_dict(),
    )
    MindBridgePipeline(MindBridgeModel(config), processor, generator).save_pretrained("outputs/mindbridge")
    rng, widest = torch.Generator().manual_seed(0), max(config.num_voxels)
    shape = generator.image_embedding_space.shape
    fmri = {name: torch.randn(6, widest, generator=rng) for name in ("fmri_a", "fmri_b")}
    for values, width in zip(fmri.values(), config.num_voxels, strict=True):
        values[:, width:] = 0
    return {**fmri, "embeds": torch.randn(6, *shape, generator=rng)}


def base_and_adapted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of one subject, the same with another one, and the table of that one."""
    shutil.copytree("outputs/demo/pipeline", "base")
    monkeypatch.setitem(small_table.NUM_VOXELS, "subj04", 17)
    trials = TrialTable.open(small_table.write_small_table(Path("NEW_TABLE"), ("subj04",))).trials("subj04", "train")
    pipe = FmriToImagePipeline.from_pretrained("base")
    pipe.add_subject("subj04", trials.fmri(), trials.sessions)
    pipe.save_pretrained("adapted")


def in_a_package(monkeypatch: pytest.MonkeyPatch) -> Names:
    return {"__name__": "fmri_models.models.mymethod"}


def stand_in(
    generator_class: type, make: Callable[[], ImageGenerator], *ways: str
) -> Callable[[pytest.MonkeyPatch], None]:
    """Tiny networks in the place of those that `ways` of the class would fetch."""

    def before(monkeypatch: pytest.MonkeyPatch) -> None:
        for way in ways or ("from_source",):
            monkeypatch.setattr(generator_class, way, lambda *args, **options: make())

    return before


def processor_of(table: str, **options: Any) -> FmriProcessor:
    trials = {name: TrialTable.open(table).trials(name, "train") for name in TrialTable.open(table).subjects}
    return FmriProcessor.fit(
        {name: each.fmri() for name, each in trials.items()},
        sessions={name: each.sessions for name, each in trials.items()},
        **options,
    )


def register_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the working directory are found, and a method is registered for this page alone."""
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.setattr(METHODS, "registered", {})


def better_than_other_trials(names: Names) -> None:
    assert names["report"].comparisons["shuffled_brain"]["pixcorr"]["difference"] > 0.1
    del sys.modules["plain"]


def seen(names: Names) -> None:
    assert Path("seen.png").is_file()
    assert names["pixcorr"](names["truth"], names["recon"]) > names["pixcorr"](names["truth"], names["wrong"]) + 0.3


def retrieved(names: Names) -> None:
    assert names["similarities"].shape == names["indices"].shape == (len(names["trials"]), 5)


def loaded(names: Names) -> None:
    batch = next(iter(names["loader"]))
    assert set(batch) == {"fmri", "subject_ids", "stimulus_ids", "stimulus", "image_embeds"}
    assert len(batch["image_embeds"]) == len(batch["fmri"])


def adapters_saved(names: Names) -> None:
    assert names["made"].drawing_settings == names["pipe"].drawing_settings
    assert names["made"].drawing_settings.num_inference_steps == small_demo.DRAWING["num_inference_steps"]
    saved = Path("outputs/adapters").iterdir()
    assert sorted(path.name for path in saved if path.is_dir()) == ["subj01", "subj02"]
    assert not Path("outputs/new_subject/config.json").exists()


def drawn_again(names: Names) -> None:
    torch.testing.assert_close(names["images"], names["again"])


def method_with_checkpoints(names: Names) -> None:
    method = names["METHOD"]
    assert (method.name, str(method.paper)) == ("mymethod", "Author and Writer (2024)")
    assert {each.state: each.method for each in method.pretrained} == {
        "trained here": "mymethod", "converted": "mymethod",
    }  # fmt: skip


def trained_by_trainer(names: Names) -> None:
    assert names["trainer"].evaluate()["eval_loss"] > 0 and names["trainer"].state.best_metric > 0
    assert len(names["pictures"]) == len(names["targets"])


def drawn_with_objects(names: Names) -> None:
    assert names["images"].shape == (2, 1, 8, 8)
    (shown,) = re.findall(r'^--8<-- "(.*)"$', (ROOT / "docs/generators/your_own.md").read_text(), flags=re.MULTILINE)
    assert (ROOT / shown).is_file()


WITHOUT_GPU = {'.to("cuda")': "", "offload()": "offload(device='cpu')"}
SETUPS: dict[str, Setup] = {
    "README.md": Setup(quick_examples),
    "docs/index.md": Setup(quick_examples),
    "docs/examples.md": Setup(quick_examples),
    "docs/adding_a_method.md": Setup(in_a_package, method_with_checkpoints),
    "docs/audit.md": Setup(trained_demo),
    "docs/data.md": Setup(after=loaded),
    "docs/evaluation.md": Setup(mindvis),
    "docs/generators/clip.md": Setup(
        stand_in(ClipTargets, tiny_clip.tiny_targets, "from_source", "from_open_clip"),
    ),
    "docs/generators/drawing.md": Setup(after=drawn_again, replaced=WITHOUT_GPU),
    "docs/generators/ip_adapter.md": Setup(
        stand_in(IPAdapterImageGenerator, test_ip_adapter.make_generator), replaced=WITHOUT_GPU
    ),
    "docs/generators/kandinsky.md": Setup(
        stand_in(KandinskyImageGenerator, test_kandinsky.TestKandinskyImageGenerator().make_generator),
        replaced=WITHOUT_GPU,
    ),
    "docs/generators/stable_diffusion.md": Setup(
        stand_in(StableDiffusionImageGenerator, test_stable_diffusion.make_generator), replaced=WITHOUT_GPU
    ),
    "docs/generators/stable_unclip.md": Setup(
        stand_in(StableUnCLIPImageGenerator, test_stable_unclip.TestStableUnCLIPImageGenerator().make_generator),
        replaced=WITHOUT_GPU,
    ),
    "docs/generators/versatile_diffusion.md": Setup(
        stand_in(VersatileDiffusionImageGenerator, test_versatile_diffusion.make_generator), replaced=WITHOUT_GPU
    ),
    "docs/generators/your_own.md": Setup(after=drawn_with_objects),
    "docs/methods/linear.md": Setup(linear),
    "docs/methods/mindbridge.md": Setup(mindbridge),
    "docs/methods/mindeye.md": Setup(mindeye),
    "docs/methods/mindvis.md": Setup(mindvis),
    "docs/peft.md": Setup(after=adapters_saved),
    "docs/publishing.md": Setup(trained_demo),
    "docs/raters.md": Setup(two_folders, a_pack),
    "docs/retrieval.md": Setup(after=retrieved),
    "docs/start.md": Setup(quick_examples, seen),
    "docs/training.md": Setup(base_and_adapted, trained_by_trainer),
    "docs/tutorials/add_method.md": Setup(register_here, better_than_other_trials),
    "docs/tutorials/evaluate.md": Setup(slow=True),
    "docs/tutorials/new_subject.md": Setup(slow=True),
    "docs/tutorials/publish.md": Setup(slow=True),
}


# ----------------------------------------------------------------------------------------------------------- the tests


def run(*arguments: str) -> None:
    assert main(list(arguments)) == 0, f"fmri-models {' '.join(arguments)}"


def runs_commands(name: str) -> bool:
    """Whether a reader types the page's commands in their order, which reference pages don't ask for."""
    return name == "docs/start.md" or name.startswith("docs/tutorials/")


NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
PYTHON_PAGES = [name for name in NAMES if any(block.language == "python" for block in blocks_of(ROOT / name))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        small_demo.save_small_demo(folder, patch)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if SETUPS.get(name, Setup()).slow else [], id=name)
        for name in PYTHON_PAGES
    ],
)
def test_the_code_of_a_page_runs(name: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(small_table.NUM_VOXELS, "subj01", small_demo.NUM_VOXELS)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    np.random.seed(0)
    setup = SETUPS.get(name, Setup())
    names = (setup.before(monkeypatch) if setup.before else None) or {}
    for number, block in enumerate(blocks_of(ROOT / name)):
        if block.reason is not None:
            continue
        if block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(replaced(block.text, setup.replaced), f"{name}, block {number}", "exec"), names)
        elif block.language in ("bash", "sh", "") and runs_commands(name):
            for arguments in commands_of(block.text):
                run(*arguments)
    if setup.after:
        setup.after(names)


def replaced(text: str, changes: dict[str, str]) -> str:
    for before, after in changes.items():
        text = text.replace(before, after)
    return text


@pytest.mark.parametrize("name", PYTHON_PAGES)
def test_what_is_not_run_says_why_parses_and_imports(name: str) -> None:
    page = ROOT / name
    left_out = [block for block in blocks_of(page) if block.reason is not None]
    assert len(left_out) == len(_NOT_RUN.findall(page.read_text(encoding="utf-8"))), "the fence follows the comment"
    for block in left_out:
        assert block.reason in REASONS
        if block.language == "python":
            check_imports(block.text)


def check_imports(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        modules = {}
        if isinstance(node, ast.Import):
            modules = {each.name: [] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules = {str(node.module): [each.name for each in node.names]}
        for module, attributes in modules.items():
            if module.split(".")[0] in NOT_INSTALLED_ALONG and find_spec(module.split(".")[0]) is None:
                continue
            import_module(module)
            assert [each for each in attributes if resolve(f"{module}.{each}") is None] == []


def test_setups_are_of_pages_that_there_are() -> None:
    assert sorted(set(SETUPS) - set(PYTHON_PAGES)) == []
    for name, setup in SETUPS.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not setup.replaced or any(each in text for each in setup.replaced), f"{name}: nothing is replaced"
