"""The inputs of every reader, small, and what a user does with each."""

import csv
import hashlib
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmri_models.errors import FmriModelsError
from tests.fuzzing.mutations import any_value, mutate


@dataclass(frozen=True)
class Reader:
    """An input folder, which of its files are changed, and the public use of it.

    Args:
        name: Of the reader, for `--reader` and the names of findings.
        folder: Of the input among the fixtures.
        files: Patterns of the files that are changed.
        use: Takes the input folder and an empty folder for whatever is written.
        prepare: Called after a change, with the input, the changed file and random numbers.
        weight: How often it comes compared with others.
    """

    name: str
    folder: str
    files: tuple[str, ...]
    use: Callable[[Path, Path], Any]
    prepare: Callable[[Path, Path, random.Random], None] = lambda folder, changed, rng: None
    weight: int = 1

    def change(self, folder: Path, rng: random.Random) -> str:
        """Changes a copy of the input; returns what was done."""
        # By pattern first, so that ten pictures do not hide one table.json.
        found = sorted(folder.glob(rng.choice([each for each in self.files if any(folder.glob(each))])))
        file = rng.choice([each for each in found if each.is_file()])
        done = mutate(file, rng)
        self.prepare(folder, file, rng)
        return f"{file.relative_to(folder)}: {done}"


# Fixtures


def make_fixtures(base: Path) -> None:
    """Writes every input below a folder; some seconds."""
    import torch

    from fmri_models import FmriProcessor
    from fmri_models.cli.main import main
    from fmri_models.conversion_record import ConversionRecord
    from fmri_models.data.split_trials import SplitTrials
    from fmri_models.data.splits import add_split, split_kfold
    from fmri_models.generation.pixels import PixelsImageGenerator
    from fmri_models.models.mindeye import MindEyePipeline
    from tests.small_table import write_small_table

    data = write_small_table(base / "table" / "data")
    table = _opened(data)
    add_split(table, "kfold2", split_kfold(SplitTrials.of_table(table), seed=0, folds=2))
    model, report = base / "pipeline" / "model", base / "report" / "first"
    _run(main, "train", "linear", f"data={data}", f"out={model}", "generator=pixels")
    _run(main, "evaluate", "--model", model, "--data", data, "--protocol", "small_pictures", "--out", report)
    _run(main, "card", model)
    for extra in ("report.html", "report.md", "grid.png"):
        (report / extra).unlink()
    for picture in report.glob("images/**/*.png"):
        picture.unlink()
    _copy(report, base / "report" / "second")
    _copy(model, base / "card" / "model")
    _copy(report, base / "card" / "report")
    _copy(model, base / "patterns" / "model")
    rng = np.random.default_rng(0)
    np.save(base / "patterns" / "fmri.npy", rng.normal(size=(3, 45)).astype(np.float32))

    from tests.models.mindeye.test_modeling_mindeye import tiny_config
    from tests.test_pipeline_common import make_processor

    generator = PixelsImageGenerator(3, 4, 4)
    spaces = {
        "image_embedding_space": generator.image_embedding_space.to_dict(),
        "latent_space": generator.latent_space.to_dict(),
    }
    torch.manual_seed(0)
    mindeye = _mindeye(tiny_config(**spaces))
    pipeline = MindEyePipeline(mindeye, make_processor(), generator)
    assert isinstance(pipeline.processor, FmriProcessor)
    pipeline.save_pretrained(base / "mindeye" / "model")
    _make_gallery(base / "gallery", pipeline, rng)
    _make_checkpoints(base / "checkpoints", mindeye)
    _make_arrays(base / "arrays", rng)
    _make_pictures(base / "pictures", rng)
    _make_published(base / "published")
    _make_mat(base / "mat", rng)
    _make_raters(base)
    (base / "recipe").mkdir()
    shipped = Path(_package("fmri_models")) / "training" / "recipes"
    for recipe in shipped.glob("*.yaml"):
        (base / "recipe" / recipe.name).write_bytes(recipe.read_bytes())
    (base / "conversion").mkdir()
    ConversionRecord("mindeye", ["last.pth"]).save(base / "conversion")


def _make_raters(base: Path) -> None:
    """A report of pictures with the key of its rater pack, and the answers of two people."""
    from fmri_models.evaluation import evaluate_images
    from fmri_models.evaluation.raters.key import Key
    from fmri_models.evaluation.raters.pack import PackRequest

    place = base / "raters"
    request = PackRequest(base / "pack")
    pictures = base / "pictures"
    evaluate_images(pictures / "recon", pictures / "truth", place / "report", "small_pictures", rater_pack=request)
    request.key_file.rename(place / "key.json")
    key = Key.load(place / "key.json")
    for number, name in enumerate(("Ada", "Ben")):
        answers = [
            {"trial": trial, "chosen": each.own, "side": "left", "milliseconds": 900}
            for trial, each in key.shown.items()
        ]
        content = {"format": "fmri_models.rater_answers", "schema": 1, "pack": key.pack, "rater": name}
        content |= {"session": f"{number:016x}", "answers": answers}
        (place / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        sign_answers(place, place / f"{name}.json", random.Random(0))


def sign_answers(folder: Path, changed: Path, rng: random.Random) -> None:
    """Gives changed answers the checksum that belongs to them, so that more than the checksum is tried."""
    from fmri_models.evaluation.raters.answers import checksum

    try:
        content = json.loads(changed.read_text(encoding="utf-8"))
        lines = [content["pack"], content["rater"], content["session"]]
        lines += [f"{it['trial']},{it['chosen']},{it['side']},{it['milliseconds']}" for it in content["answers"]]
        content["checksum"] = checksum("\n".join(lines))
        changed.write_text(json.dumps(content), encoding="utf-8")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return


def _mindeye(config: Any) -> Any:
    from fmri_models.models.mindeye import MindEyeModel

    return MindEyeModel(config)


def _package(name: str) -> str:
    import importlib

    return str(Path(str(importlib.import_module(name).__file__)).parent)


def _run(main: Callable[[list[str]], int], *arguments: object) -> None:
    if main([str(argument) for argument in arguments]) != 0:
        raise RuntimeError(f"a fixture can't be made: {arguments}")


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)


def _opened(path: Path) -> Any:
    from fmri_models.data import TrialTable

    return TrialTable.open(path)


def _picture(rng: np.random.Generator, size: int = 12, mode: str = "RGB") -> Any:
    from PIL import Image

    values = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
    return Image.fromarray(values).convert(mode)


def _make_arrays(folder: Path, rng: np.random.Generator) -> None:
    (folder / "stimuli").mkdir(parents=True)
    ids = [f"p{number}" for number in range(8)]
    endings = (".png", ".jpg", ".png", ".bmp", ".png", ".gif", ".webp", ".tif")
    for name, ending in zip(ids, endings, strict=True):
        _picture(rng).save(folder / "stimuli" / f"{name}{ending}")
    with (folder / "stimuli" / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "stimulus_id", "category", "caption"))
        writer.writerows((f"{n}{e}", n, "cat", f"a {n}|another") for n, e in zip(ids, endings, strict=True))
    with zipfile.ZipFile(folder / "stimuli.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((folder / "stimuli").iterdir()):
            archive.write(file, file.name)
    with (folder / "events.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("stimulus_id", "session", "run", "repetition", "split"))
        for trial in range(16):
            part = "test" if trial % 8 < 2 else "validation" if trial % 8 == 2 else "train"
            writer.writerow((ids[trial % 8], trial // 8 + 1, 1, trial // 8, part))
    with (folder / "voxels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("roi", "x", "y", "z", "ncsnr"))
        writer.writerows(("V1", v, 2.5, -v, 0.5) for v in range(10))
    np.save(folder / "betas.npy", rng.normal(size=(16, 10)).astype(np.float32))


def _make_pictures(folder: Path, rng: np.random.Generator) -> None:
    for side in ("recon", "truth"):
        (folder / side).mkdir(parents=True)
        for number in range(4):
            _picture(rng, mode="P" if number == 3 else "RGB").save(folder / side / f"{number}.png")
        _picture(rng).save(folder / side / "4.jpg")


def _make_gallery(folder: Path, pipeline: Any, rng: np.random.Generator) -> None:
    (folder / "pictures").mkdir(parents=True)
    pipeline.save_pretrained(folder / "model")
    size = pipeline.brain_model.config.space("image_embedding_space").size
    np.save(folder / "gallery.npy", rng.normal(size=(5, size)).astype(np.float32))
    for number in range(4):
        _picture(rng, size=4).save(folder / "pictures" / f"{number}.png")
    _picture(rng, size=8).save(folder / "pictures" / "4.jpg")


def _make_checkpoints(folder: Path, model: Any) -> None:
    import torch

    from fmri_models.training.checkpoints import Checkpoints, StageState

    checkpoints = Checkpoints(folder / "out")
    checkpoints.begin(_RUN)
    state = StageState(
        stage=0, step=20, best_step=10, best_value=0.5, seconds=2.5, validations=[{"step": 10, "loss": 0.5}],
        history=[{"stage": "one", "loss": 0.1}], extra={"scale": 1.0},
    )  # fmt: skip
    checkpoints.save_best(model, state)
    checkpoints.save_step(model, state, {"optimizer": {"0.exp_avg": torch.zeros(3, 4)}})


_RUN = {
    "recipe": {"method": "mindeye", "seed": 0, "stages": [{"name": "a", "steps": 20}]},
    "table_fingerprint": "0" * 64,
}


def _make_published(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from tests.models.mindeye import test_convert_mindeye as layout

    folder.mkdir()
    state = layout.prefixed("module.", layout.published())
    torch.save({"epoch": 239, "model_state_dict": state, "lrs": [3e-4]}, folder / "last.pth")
    save_file({key: value.contiguous() for key, value in layout.published().items()}, folder / "last.safetensors")


def _make_mat(folder: Path, rng: np.random.Generator) -> None:
    from scipy.io import savemat

    folder.mkdir()
    arrays = {}
    for which, rows in (("Trn", 90), ("Test", 10)):
        arrays[f"fmri{which}"] = rng.normal(size=(rows, 3092))
        arrays[f"stim{which}"] = rng.integers(0, 256, (rows, 784)).astype(np.uint8)
        arrays[f"label{which}"] = rng.integers(1, 3, (rows, 1)).astype(np.uint8)
    savemat(folder / "digit69_28x28.mat", arrays)


# Uses


def use_table(folder: Path, out: Path) -> None:
    """Opens a table, checks all of it, and reads all of it."""
    from fmri_models.data import TrialTable
    from fmri_models.data.validation import validate_table
    from fmri_models.evaluation.looks import read_looks

    for finding in _and_errors(lambda: validate_table(folder / "data")):
        _check_line(finding)
    table = TrialTable.open(folder / "data")
    for subject in table.subjects:
        table.voxels(subject)
        table.noise_free(subject)
        for split in table.split_names():
            for part in ("train", "validation", "test"):
                trials = table.trials(subject, part, split_name=split)
                betas = trials.fmri()
                if not np.isfinite(betas).all():
                    raise AssertionError("betas that are not finite were read")
                table.stimuli.positions(trials.stimulus_ids)
    stimuli = table.stimuli
    for reading in (stimuli.captions, stimuli.categories, stimuli.factors, stimuli.content_hashes):
        reading()
    stimuli.images(stimuli.ids[:3])
    list(stimuli.encoded())
    read_looks(folder / "data", table.fingerprint)


def use_looks(folder: Path, out: Path) -> None:
    from fmri_models.evaluation.looks import read_looks, record_look

    read_looks(folder / "data", "0" * 64)
    record_look(folder / "data", "0" * 64, "default/test", {"a": 1}, {"pixcorr": 0.5})


def record_anew(folder: Path, changed: Path, rng: random.Random) -> None:
    """Lets a table say of a changed file what is true of it, half of the time; else only the guard is tried."""
    table = folder / "data" / "table.json"
    if changed == table or rng.random() < 0.5:
        return
    values = json.loads(table.read_text())
    data = changed.read_bytes()
    entry = values["files"].get(changed.relative_to(table.parent).as_posix())
    if entry is not None:
        entry.update(
            {
                key: len(data) if key != "sha256" else hashlib.sha256(data).hexdigest()
                for key in entry
                if key in ("size", "bytes", "num_bytes", "sha256")
            }
        )
        table.write_text(json.dumps(values))


def use_pipeline(folder: Path, out: Path) -> None:
    """Loads a pipeline and draws one picture."""
    import torch

    from fmri_models import FmriToImagePipeline
    from fmri_models.training_record import TrainingRecord

    TrainingRecord.load(folder / "model")
    pipeline = FmriToImagePipeline.from_pretrained(folder / "model")
    processor = pipeline.processor
    subject = processor.subject_names[0]
    session = 1 if processor.statistics == "session" else None
    betas = np.linspace(-1, 1, processor.num_voxels[0], dtype=np.float32)[None]
    drawn = pipeline(
        betas, subject=subject, session=session, num_inference_steps=1, generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images  # fmt: skip
    if not torch.isfinite(drawn).all():
        raise AssertionError("a picture that is not finite was drawn")
    pipeline.save_pretrained(out / "saved")


def use_patterns(folder: Path, out: Path) -> None:
    from fmri_models.evaluation.patterns import load_patterns

    patterns = load_patterns(_loaded(folder / "model"), folder / "fmri.npy", "subj02", session=1)
    if not np.isfinite(patterns.features.numpy()).all():
        raise AssertionError("patterns that are not finite were read")


def use_gallery(folder: Path, out: Path) -> None:
    import torch

    from fmri_models.evaluation.gallery import load_gallery, retrieve_from_gallery
    from fmri_models.evaluation.patterns import Patterns

    pipeline = _loaded(folder / "model")
    subject = pipeline.processor.subject_names[0]
    features = torch.zeros(2, pipeline.processor.width)
    for gallery in (folder / "gallery.npy", folder / "pictures"):
        rows = _and_errors(
            lambda gallery=gallery: list(
                retrieve_from_gallery(
                    pipeline, Patterns(["a", "b"], ["", ""], features, subject), load_gallery(pipeline, gallery), 1
                )
            )
        )
        if any("nan" in str(row) for row in rows):
            raise AssertionError("a similarity is no number")


_LOADED: dict[str, Any] = {}


def _loaded(folder: Path) -> Any:
    """A pipeline that is not changed, loaded once a process."""
    from fmri_models import FmriToImagePipeline

    key = str(folder.parent.name)
    if key not in _LOADED:
        _LOADED[key] = FmriToImagePipeline.from_pretrained(folder)
    return _LOADED[key]


def use_report(folder: Path, out: Path) -> None:
    """Compares two reports, as the command does."""
    from fmri_models.cli.compare import compare
    from fmri_models.evaluation.report import Report
    from fmri_models.evaluation.report_terminal import results_table

    first, second = Report.load(folder / "first" / "report.json"), Report.load(folder / "second" / "report.json")
    pair = [(folder / "first" / "report.json", first), (folder / "second" / "report.json", second)]
    shown = [
        *_and_errors(lambda: [compare(pair)]),
        *_and_errors(lambda: [compare(pair, force=True)]),
        *_and_errors(lambda: [results_table(first)]),
    ]
    for text in shown:
        words = text.replace("[", " ").replace("]", " ").replace(",", " ").split()
        if bad := {"nan", "inf", "-inf", "True", "False", "true"} & set(words):
            raise AssertionError(f"{min(bad)} is shown as a number")


def use_raters(folder: Path, out: Path) -> None:
    """Adds the answers of raters to a report, as the command does."""
    import shutil

    from fmri_models.evaluation.raters.ratings import add_ratings
    from fmri_models.evaluation.report import Report

    shutil.copytree(folder / "report", out / "report")
    add_ratings(out / "report", folder / "key.json", [folder / "Ada.json", folder / "Ben.json"])
    Report.load(out / "report")


def use_card(folder: Path, out: Path) -> None:
    from fmri_models.evaluation.report import Report
    from fmri_models.hub.cards import write_card

    _and_errors(lambda: [write_card(folder / "model")])
    write_card(folder / "model", Report.load(folder / "report" / "report.json"))


def use_recipe(folder: Path, out: Path) -> None:
    from fmri_models.training.recipe import load_recipe

    for recipe in sorted(folder.glob("*.yaml")):
        load_recipe(str(recipe), ["data=x", "out=y"])


def use_overrides(folder: Path, out: Path) -> None:
    from fmri_models.training.recipe import load_recipe

    load_recipe("mindeye", json.loads((folder / "overrides.json").read_text("utf-8", "surrogatepass")))


def write_overrides(folder: Path, changed: Path, rng: random.Random) -> None:
    """Overrides of known and unknown keys with values of every kind."""
    keys = (
        "seed", "data", "out", "stages", "stages.0", "stages.0.training.lr", "stages.0.training.batch_size", "model",
        "model.hidden_size", "processor.statistics", "processor", "selection", "generator", "split", "folds",
        "trackers", "stages.0.name", "stages.-1.name", "stages.x",
        "stages.0.training", "method", "", ".", "a.b", "a" * 300,
        ".".join("a" * 200), "stages.99999999999999999999999.name", "max_shard_size", "subjects", "stages.0.epochs",
    )  # fmt: skip
    made = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = (
            any_value(rng)
            if rng.random() < 0.6
            else rng.choice(("[" * 3000, "{a: 1}", "&a [*a]", "1e5", "2020-01-01", "!!binary x", "no", "1_000"))
        )
        made.append(f"{rng.choice(keys)}{rng.choice(('=', '=', '=', '', '=='))}{value}")
    (folder / "overrides.json").write_bytes(json.dumps(made).encode())


def use_arrays(folder: Path, out: Path) -> None:
    """Makes tables of arrays, with pictures of a folder and of a zip file."""
    from fmri_models.data.arrays import prepare_arrays

    for name in ("stimuli", "stimuli.zip"):
        _and_errors(
            lambda name=name: (
                prepare_arrays(
                    folder / "betas.npy",
                    folder / "events.csv",
                    folder / name,
                    out / name.replace(".", "_"),
                    folder / "voxels.csv",
                )
                or []
            )
        )
    for made in sorted(out.iterdir()):
        if findings := _validated(made):
            raise AssertionError(f"a table that was accepted has findings: {findings[0]}")


def _validated(made: Path) -> list[str]:
    from fmri_models.data.validation import validate_table

    return validate_table(made)


def use_pictures(folder: Path, out: Path) -> None:
    from fmri_models.evaluation.images import load_matched

    load_matched(folder / "recon", folder / "truth")


def use_published(folder: Path, out: Path) -> None:
    from fmri_models.models.mindeye import MindEyeModel

    for name in ("last.pth", "last.safetensors"):
        _and_errors(lambda name=name: [MindEyeModel.from_original(folder / name)])


def use_mat(folder: Path, out: Path) -> None:
    from fmri_models.shipped import shipped_folder

    module = _script(shipped_folder("dataset_scripts") / "digits69.py")
    module.read_published(folder / "digit69_28x28.mat")


def _script(path: Path) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location("digits69_fuzzed", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def use_checkpoints(folder: Path, out: Path) -> None:
    """What --resume does before it goes on."""
    from fmri_models.training.checkpoints import Checkpoints, read_state
    from fmri_models.training.restoring import restore_model, restore_tensors

    checkpoints = Checkpoints(folder / "out")
    checkpoints.check_own()
    checkpoints.recover()
    checkpoints.check_same_run(_RUN)
    latest = checkpoints.latest(0)
    assert latest is not None
    state = read_state(latest)
    from tests.models.mindeye.test_modeling_mindeye import tiny_config

    if "model" not in _LOADED:
        from fmri_models.generation.pixels import PixelsImageGenerator

        generator = PixelsImageGenerator(3, 4, 4)
        _LOADED["model"] = _mindeye(
            tiny_config(
                image_embedding_space=generator.image_embedding_space.to_dict(),
                latent_space=generator.latent_space.to_dict(),
            )
        )
    restore_model(_LOADED["model"], latest)
    restore_tensors(latest, "optimizer")
    checkpoints.best(state)


def use_conversion(folder: Path, out: Path) -> None:
    from fmri_models.conversion_record import ConversionRecord

    ConversionRecord.load(folder)


def _and_errors(reading: Callable[[], Any]) -> list[Any]:
    """What was read, or nothing if it was refused by a sentence."""
    try:
        return list(reading())
    except FmriModelsError as error:
        _check_line(str(error))
        return []


def _check_line(text: str) -> None:
    from fmri_models.names import one_line

    if one_line(text, most=100_000) != text:
        raise AssertionError(f"a sentence with control characters: {text[:300]!r}")


READERS = (
    Reader(
        "table",
        "table",
        (
            "data/table.json", "data/trials/*/*", "data/stimuli/*", "data/voxels/*", "data/splits/*",
            "data/noise_free/*", "data/table.json",
        ),
        use_table,
        record_anew,
        weight=4,
    ),
    Reader("looks", "table", ("evaluations.jsonl",), use_looks),
    Reader(
        "arrays",
        "arrays",
        ("betas.npy", "events.csv", "voxels.csv", "stimuli/*.*", "stimuli/index.csv", "stimuli.zip"),
        use_arrays,
        weight=3,
    ),
    Reader(
        "pipeline",
        "pipeline",
        (
            "model/model_index.json", "model/*/config.json", "model/processor/*", "model/image_generator/*",
            "model/brain_model/*", "model/training.json",
        ),
        use_pipeline,
        weight=4,
    ),
    Reader(
        "mindeye",
        "mindeye",
        (
            "model/model_index.json", "model/brain_model/config.json", "model/brain_model/*", "model/processor/*",
            "model/image_generator/*",
        ),
        use_pipeline,
        weight=3,
    ),
    Reader("patterns", "patterns", ("fmri.npy",), use_patterns),
    Reader("gallery", "gallery", ("gallery.npy", "pictures/*"), use_gallery),
    Reader(
        "report",
        "report",
        ("second/report.json", "second/items.parquet", "first/report.json"),
        use_report,
        weight=3,
    ),
    Reader("raters", "raters", ("key.json", "Ada.json", "Ben.json"), use_raters, sign_answers),
    Reader(
        "card",
        "card",
        ("model/*.json", "model/README.md", "model/*/*.json", "report/report.json"),
        use_card,
        weight=2,
    ),
    Reader("recipe", "recipe", ("*.yaml",), use_recipe),
    Reader("overrides", "recipe", ("linear.yaml",), use_overrides, write_overrides),
    Reader("pictures", "pictures", ("recon/*", "truth/*"), use_pictures),
    Reader("published", "published", ("last.pth", "last.safetensors"), use_published),
    Reader("mat", "mat", ("*.mat",), use_mat),
    Reader(
        "checkpoints",
        "checkpoints",
        (".out.training/run.json", ".out.training/stage00/step-*/*"),
        use_checkpoints,
        weight=2,
    ),
    Reader("conversion", "conversion", ("conversion.json",), use_conversion),
)  # fmt: skip
