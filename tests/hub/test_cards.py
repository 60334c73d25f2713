"""Model cards: what they say of a pipeline, where their figures come from, and what they refuse."""

import argparse
import copy
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from fmri_models import FmriProcessor, FmriToImagePipeline
from fmri_models.cli.card import add_parser
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report import Report
from fmri_models.hub.card_check import card_differences
from fmri_models.hub.cards import write_card, write_card_of_folder
from fmri_models.hub.model_card import write_model_card
from fmri_models.hub.owner_statements import OwnerStatements
from fmri_models.models.linear import LinearConfig, LinearModel, LinearPipeline
from fmri_models.swapping import EVAL_RESULTS_FILE
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.new_process import python_with_libraries
from tests.small_table import NUM_VOXELS, write_kfold, write_small_table

SUBJECTS = ("subj07", "subj02")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    data = write_small_table(folder / "data", SUBJECTS)
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels"]))
    evaluate(folder / "model", data, folder / "report", "small_pictures")
    return folder


@pytest.fixture
def model(workplace):
    yield workplace / "model"
    for name in ("README.md", "report.json", "report.md", "report.html", "grid.png"):
        (workplace / "model" / name).unlink(missing_ok=True)
    shutil.rmtree(workplace / "model" / ".eval_results", ignore_errors=True)


@pytest.fixture(scope="module")
def report(workplace):
    return Report.load(workplace / "report")


def section(text, title):
    return re.split(r"^## ", text.split(f"## {title}\n")[1], flags=re.MULTILINE)[0]


def python_lines(text):
    return re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)


def save_untrained(folder):
    """A pipeline without a training record and without an image generator."""
    rng = np.random.default_rng(0)
    processor = FmriProcessor.fit({"subj01": rng.normal(size=(9, 7))})
    space = {"encoder": "pixels", "layer": "embedding", "shape": [5]}
    config = LinearConfig(subject_names=["subj01"], num_voxels=[7], image_embedding_space=space)
    LinearPipeline(LinearModel(config), processor, None).save_pretrained(folder)


def test_the_header_has_the_reports_figures_unrounded(model, report):
    data = ModelCard.load(write_card(model, report)).data
    assert (data.library_name, data.model_name) == ("fmri_models", "linear-small")
    assert {"fmri", "linear", "simulated"} <= set(data.tags)
    written = {result.metric_type: result for result in data.eval_results}
    measured = {name: found for name, found in report.results["brain"].items() if found}
    assert {name: result.metric_value for name, result in written.items()} == {
        name: found["value"] for name, found in measured.items()
    }
    for name, result in written.items():
        assert result.metric_args["ci95"] == measured[name]["ci95"]
        assert result.dataset_revision == report.data["fingerprint"]
        assert "simulated" in result.dataset_name


def test_the_first_sentence_says_that_the_data_are_simulated(model, report):
    text = ModelCard.load(write_card(model, report)).text
    first = re.sub(r"^# .*\n", "", text.strip()).strip().split(". ")[0]
    assert "simulated; no human" in " ".join(first.split())


def test_recorded_data_are_not_called_simulated(model, report):
    recorded = replace(report, data={**report.data, "simulated": False}, notes=[])
    text = write_card(model, recorded).read_text()
    assert "on recorded brain activity" in text
    assert "simulated" not in re.sub(r".*noise-free.*", "", text)


def test_the_tables_have_every_row_with_intervals(model, report):
    results = section(write_card(model, report).read_text(), "Results")
    lines = {line.split("|")[1].strip(): line for line in results.splitlines() if line.startswith("|")}
    for row, metrics in report.results.items():
        assert f" {report.rows[row]['label']} |" in results
        found = metrics["pairwise_pixcorr"]
        assert "{:.3f} [{:.3f}, {:.3f}]".format(found["value"], *found["ci95"]) in results
    assert "MSE ↓" in lines
    assert "| 0.500 |" in results
    for note in report.notes:
        assert f"- {note}\n" in results


def test_without_a_report_there_is_no_figure(model):
    path = write_card(model)
    assert ModelCard.load(path).data.eval_results is None
    text = path.read_text()
    results = section(text, "Results")
    assert "Nothing was measured" in results
    assert not re.search(r"\d", results)
    assert "trained on is simulated" in " ".join(text.split())


def test_what_it_says_of_the_training(model):
    text = write_card(model).read_text()
    trained = section(text, "How it was trained")
    record = TrainingRecord.load(model)
    for stated in ("`small`", record.table_fingerprint, "`default`", "averaged", f"{record.seconds} s"):
        assert stated in trained
    penalties = LinearConfig.from_pretrained(model / "brain_model").penalties
    for subject in SUBJECTS:
        assert f"| {subject} | {NUM_VOXELS[subject]} | {NUM_VOXELS[subject]} |" in text
        assert f"| {subject} | latents | {penalties[subject]['latents']:g} |" in trained
    assert str(model.parent) not in text


def test_its_lines_of_python_run(model, tmp_path):
    lines = python_lines(write_card(model).read_text())
    assert len([line for line in lines.splitlines() if line]) == 5
    run = subprocess.run([*python_with_libraries(), "-c", lines], cwd=model, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (model / "reconstruction.png").unlink()


def test_a_pipeline_without_record_and_generator(tmp_path, monkeypatch):
    save_untrained(tmp_path)
    text = write_card(tmp_path).read_text()
    assert "no record of its training" in text
    assert "into embeddings of pictures" in text
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(python_lines(text), names)
    assert names["embeds"].shape == (1, 5)


def test_the_stated_license_is_kept(model, report):
    path = write_card(model)
    assert ModelCard.load(path).data.license == "other"
    assert ModelCard.load(path).data.license_name == "not-stated" and "of the weights:** not stated" in path.read_text()
    path.write_text(path.read_text().replace("---\n", "---\nlicense: cc-by-nc-4.0\n", 1))
    again = write_card(model, report)
    assert ModelCard.load(again).data.license == "cc-by-nc-4.0"
    assert "**License of the weights:** `cc-by-nc-4.0`" in again.read_text()


def test_what_the_owner_states_is_kept_until_it_is_stated_anew(model, report):
    first = OwnerStatements("Data use terms of our lab", "subj02 and subj07, forms of March 2026", "letter of 1 May")
    path = write_card(model, report, first)
    text = path.read_text()
    for line in ("forms of March 2026", "letter of 1 May"):
        assert line in section(text, "Licence and consent")
    assert ModelCard.load(path).data.consent == first.consent
    again = write_card_of_folder(model, OwnerStatements(license="cc-by-4.0"))
    assert OwnerStatements.of_card(again) == replace(first, license="cc-by-4.0")
    assert ModelCard.load(again).data.to_dict().get("license_name") is None
    assert ModelCard.load(again).data.redistribution_permission == first.permission


@pytest.mark.parametrize("field", ["license", "consent", "permission"])
def test_a_statement_is_one_line(field):
    with pytest.raises(FmriModelsError, match="expected one line"):
        OwnerStatements(**{field: "one\n---\ntwo"})
    with pytest.raises(FmriModelsError, match="1001 characters"):
        OwnerStatements(**{field: "a" * 1001})


def test_there_are_no_statements_without_a_card_and_none_in_somebody_elses(tmp_path):
    assert OwnerStatements.of_card(tmp_path / "README.md") == OwnerStatements()
    (tmp_path / "README.md").write_text("Mine")
    with pytest.raises(FmriModelsError, match="would be lost"):
        OwnerStatements.of_card(tmp_path / "README.md")


def test_what_nobody_has_stated_is_said_plainly(model, report):
    recorded = replace(report, data={**report.data, "simulated": False}, notes=[])
    stated = section(write_card(model, recorded).read_text(), "Licence and consent")
    assert "of the weights:** not stated" in stated
    assert "not stated. A subject's layers are that person's data" in stated
    assert "nobody's is needed" in section(write_card(model, report).read_text(), "Licence and consent")


def test_the_first_lines_say_how_to_install_the_package(model):
    text = ModelCard.load(write_card(model)).text
    assert "pip install" in text.split("\n## ")[0]
    assert "It is not evaluated" in text.split("\n## ")[0]


def test_figures_lie_beside_for_the_hubs_leaderboards(model, report):
    write_card(model, report)
    entries = parse_eval_result_entries(yaml.safe_load((model / EVAL_RESULTS_FILE).read_text()))
    measured = {name: found["value"] for name, found in report.results["brain"].items() if found}
    assert {entry.task_id: entry.value for entry in entries} == measured
    assert all(entry.dataset_id == "small" and "simulated" in entry.notes for entry in entries)
    write_card(model, None)
    assert not (model / EVAL_RESULTS_FILE).exists()


def test_a_card_as_it_was_written_has_the_reports_numbers(model, report):
    write_card(model)
    assert card_differences(model) == []
    write_card(model, report)
    assert card_differences(model) == []


def _changed(text, match):
    """A text with another digit where each match ends."""
    return text[: match.end() - 1] + str((int(match[0][-1]) + 1) % 10) + text[match.end() :]


def test_each_number_in_a_cards_tables_is_compared(model, report):
    path = write_card(model, report)
    text = path.read_text()
    numbers = [
        number
        for line in re.finditer(r"^\|.*\d.*\|$", text, re.MULTILINE)
        for number in re.compile(r"-?\d+(\.\d+)?(?=[\], |])").finditer(text, *line.span())
        if text[number.start() - 1] in " ["
    ]
    assert len(numbers) > 200
    for number in numbers[::31]:
        path.write_text(_changed(text, number))
        assert card_differences(model), number


def test_numbers_in_the_header_and_for_leaderboards_are_compared(model, report):
    path = write_card(model, report)
    text = path.read_text()
    value = re.search(r"value: [\d.]+\d", text)
    path.write_text(_changed(text, value))
    assert any("header" in each for each in card_differences(model))
    path.write_text(_changed(text, re.search(r"ci95:\n +- [\d.]+\d", text)))
    assert any("interval" in each for each in card_differences(model))
    path.write_text(text)
    results = (model / EVAL_RESULTS_FILE).read_text()
    (model / EVAL_RESULTS_FILE).write_text(_changed(results, re.search(r"value: [\d.]+\d", results)))
    assert any(EVAL_RESULTS_FILE in each for each in card_differences(model))


def test_a_table_of_its_own_and_a_row_less_are_differences(model, report):
    path = write_card(model, report)
    text = path.read_text()
    path.write_text(f"{text}\n| score | value |\n|---|---|\n| best | 1.0 |\n")
    assert any("Nothing beside the card stands behind" in each for each in card_differences(model))
    label = report.row("shuffled_brain")["label"]
    path.write_text(text.replace(f"| {label} |", "| other |"))
    assert any("leaves out the row shuffled_brain" in each for each in card_differences(model))


def test_how_training_went_is_shown(model, workplace, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    point = {"train_loss": 2.5, "validation_loss": None}
    curve = [{"stage": HOSTILE, "step": step, **point} for step in range(0, 400, 10)]
    hardware = {"device": "cuda", "name": "NVIDIA H200", "processes": 2, "threads": 4, "precision": "bf16"}
    record = replace(TrainingRecord.load(folder), curve=curve, hardware=hardware, table_license=HOSTILE)
    replace(record, table_source=HOSTILE).save(folder)
    text = write_card(folder).read_text()
    trained = section(text, "How it was trained")
    assert "NVIDIA H200, 2 processes, 4 threads, bf16; " in trained
    assert len(re.findall(r"\| 2.5 \| – \|", trained)) == 6
    assert "| 0 | 2.5" in trained and "| 390 | 2.5" in trained
    assert "<script>" not in text and "**c**" not in text.split("\n---\n", 1)[1]
    assert card_differences(folder) == []


def test_statements_are_text_in_a_card(model):
    path = write_card(model, None, OwnerStatements(HOSTILE, HOSTILE, HOSTILE))
    text = path.read_text()
    assert "<script>" not in text and "**c**" not in text.split("\n---\n", 1)[1]
    data = ModelCard.load(path).data
    assert data.consent == data.redistribution_permission == HOSTILE
    assert OwnerStatements.of_card(path).consent == HOSTILE


def test_data_sets_of_the_header_are_ids(workplace, report, tmp_path):
    shutil.copytree(workplace / "model", tmp_path / "model")
    replace(TrainingRecord.load(tmp_path / "model"), table=HOSTILE).save(tmp_path / "model")
    data = ModelCard.load(write_card(tmp_path / "model", replace(report, data={**report.data, "name": "../ü"}))).data
    assert all(re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name) for name in data.datasets)
    assert data.metrics == [result.metric_type for result in data.eval_results]


def test_what_a_pipeline_draws_with_and_began_with_are_base_models(model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    record = TrainingRecord.load(folder)
    replace(record, recipe={**record.recipe, "initial_model": "user/first"}).save(folder)
    assert ModelCard.load(write_card(folder)).data.base_model == ["user/first"]


@pytest.mark.parametrize(("part", "subject"), [("brain_model", "subj07"), ("processor", "subj02")])
def test_a_single_model_or_processor_has_a_card(workplace, tmp_path, part, subject):
    shutil.copytree(workplace / "model" / part, tmp_path / part)
    path = write_model_card(tmp_path / part, OwnerStatements("mit", consent=HOSTILE))
    assert OwnerStatements.of_card(write_model_card(tmp_path / part)) == OwnerStatements("mit", consent=HOSTILE)
    card = ModelCard.load(path)
    assert card.data.library_name == "fmri_models" and card.data.license == "mit"
    assert "It is not evaluated" in card.text and "pip install" in card.text and "<script>" not in card.text
    assert f"| {subject} | {NUM_VOXELS[subject]} |" in card.text
    names: dict = {}
    exec(python_lines(card.text).replace('"."', repr(str(tmp_path / part))), names)
    assert names["loaded"] is not None


def test_a_folder_without_a_model_has_no_card(tmp_path):
    with pytest.raises(FmriModelsError, match="neither a brain model nor a processor"):
        write_model_card(tmp_path)


def test_a_pipeline_with_card_and_report_is_loaded_and_saved_with_them(model, report, tmp_path):
    write_card(model, report)
    LinearPipeline.from_pretrained(model).save_pretrained(tmp_path / "again")
    for name in ("README.md", "report.json", "report.md", "report.html", "grid.png", EVAL_RESULTS_FILE):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes()


@pytest.mark.parametrize("text", ["My notes", "---\nlibrary_name: diffusers\n---\n", "---\n- a list\n---\n"])
def test_somebody_elses_readme_is_not_replaced(model, text):
    (model / "README.md").write_text(text)
    with pytest.raises(FmriModelsError, match="would be lost; move it away"):
        write_card(model)
    assert (model / "README.md").read_text() == text


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("data", {"fingerprint": "0" * 64}, "fingerprint of the trial table is '0000"),
        ("data", {"split": "semantic"}, "split is 'semantic', the pipeline's is 'default'"),
        ("data", {"folds": [0, 1]}, r"list of folds is \[0, 1\], the pipeline's is \[0\]"),
        ("model", {"method": "mindeye"}, "method is 'mindeye', the pipeline's is 'linear'"),
        ("model", {"subjects": ["subj01"]}, "list of subjects"),
        ("model", {"training_seconds": 1e6}, "training time in seconds is 1000000.0"),
    ],
)
def test_a_report_of_another_model_is_refused(model, report, part, change, message):
    other = replace(report, **{part: {**getattr(report, part), **change}})
    with pytest.raises(FmriModelsError, match=f"does not belong to.*{message}"):
        write_card(model, other)
    assert not (model / "README.md").exists()


def test_a_report_of_a_pipeline_without_record(workplace, tmp_path):
    shutil.copytree(workplace / "model", tmp_path / "model")
    (tmp_path / "model" / "training.json").unlink()
    own = evaluate(tmp_path / "model", workplace / "data", tmp_path / "report", "small_pictures")
    text = write_card(tmp_path / "model", own).read_text()
    assert "model was measured on is simulated" in text
    assert "nobody knows whether it has seen these test pictures" in section(text, "Results")


def test_a_report_of_pictures_alone_is_refused_without_a_record_too(tmp_path, report):
    save_untrained(tmp_path)
    with pytest.raises(FmriModelsError, match="does not belong to"):
        write_card(tmp_path, replace(report, data={}, model={"images": "mine"}))


def test_a_fold_has_a_card_and_the_folder_of_folds_none(workplace):
    write_kfold(workplace / "data", "kfold2", 2)
    out = workplace / "folds"
    train(
        load_recipe(
            "linear",
            [f"data={workplace / 'data'}", f"out={out}", "generator=pixels", "split=kfold2", "folds=all"],
        )
    )
    assert "split `kfold2`, fold 1" in write_card(out / "fold01").read_text()
    with pytest.raises(FmriModelsError, match="is no saved pipeline; pass the folder that training wrote.*fold00"):
        write_card(out)


def test_what_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(FmriModelsError, match="no saved pipeline"):
        write_card(tmp_path / "nowhere")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(FmriModelsError, match="'StableDiffusionPipeline', which is no pipeline of this package"):
        write_card(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "LinearPipeline"}')
    with pytest.raises(FmriModelsError, match="is not whole: "):
        write_card(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model_index.json"]


def test_the_command(model, workplace, capsys):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())

    def run(*arguments):
        parsed = parser.parse_args(["card", str(model), *arguments])
        parsed.run(parsed)
        return capsys.readouterr().out

    assert "nothing was measured" in run("--licence", "cc-by-4.0", "--consent", "subj02, form of 2026")
    assert OwnerStatements.of_card(model / "README.md") == OwnerStatements("cc-by-4.0", "subj02, form of 2026")
    assert run("--report", str(workplace / "report" / "report.json")) == f"wrote {model / 'README.md'}\n"
    assert ModelCard.load(model / "README.md").data.eval_results


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_report_lies_beside_the_card_until_it_is_no_longer_true(workplace, report, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(workplace / "model", folder)
    (folder / "notes.txt").write_text("somebody's")
    before = names(folder)
    write_card(folder, report)
    pages = {"report.json", "report.md", "report.html", "grid.png"}
    assert names(folder) == before | {"README.md", ".eval_results"} | pages
    assert Report.load(folder) == report
    for name in pages - {"report.json"}:
        assert (folder / name).read_bytes() == (workplace / "report" / name).read_bytes()
    write_card(folder)
    assert names(folder) == before | {"README.md"}


def test_a_changed_report_has_no_pages_of_another(workplace, report, tmp_path):
    shutil.copytree(workplace / "model", tmp_path / "model")
    write_card(tmp_path / "model", report)
    changed = replace(report, notes=["changed"])
    write_card(tmp_path / "model", changed)
    assert Report.load(tmp_path / "model").notes == ["changed"]
    assert not {"report.md", "report.html", "grid.png"} & names(tmp_path / "model")


def test_a_pipeline_that_was_evaluated_into_its_own_folder(workplace, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(workplace / "model", folder)
    (folder / "images" / "brain").mkdir(parents=True)
    (folder / "images" / "brain" / "holiday.png").write_text("somebody's")
    own = evaluate(folder, workplace / "data", folder, "small_pictures", overwrite=True)
    before = names(folder)
    write_card(folder, own)
    assert names(folder) == before | {"README.md", ".eval_results"}
    write_card(folder)
    gone = {"report.json", "report.md", "report.html", "grid.png", "items.parquet"}
    assert names(folder) == (before | {"README.md"}) - gone
    assert [path.name for path in (folder / "images").rglob("*.png")] == ["holiday.png"]


def test_somebody_elses_report_json_stays(workplace, tmp_path):
    shutil.copytree(workplace / "model", tmp_path / "model")
    (tmp_path / "model" / "report.json").write_text('{"mine": true}')
    write_card(tmp_path / "model")
    assert (tmp_path / "model" / "report.json").read_text() == '{"mine": true}'


HOSTILE = "<script>alert(1)</script> | `x` [a](http://b) **c** # d"


def test_names_are_text_in_a_card(workplace, report, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(workplace / "model", folder)
    record = TrainingRecord.load(folder)
    replace(record, table=HOSTILE, train_parts=[HOSTILE]).save(folder)
    path = write_card(
        folder,
        replace(
            report,
            data={**report.data, "name": HOSTILE},
            notes=["# mine", f"{HOSTILE}\n\n# own heading"],
            model={**report.model, "settings": {HOSTILE: HOSTILE}},
            versions={"torch": HOSTILE},
        ),
    )
    text = path.read_text()
    assert "<script>" not in text
    assert "**c**" not in text.split("\n---\n", 1)[1]
    assert not re.search(r"^# (mine|own)", text, re.MULTILINE)
    assert len(re.findall(r"^# ", ModelCard.load(path).text, re.MULTILINE)) == 1
    assert "- \\# mine\n" in text
    data = ModelCard.load(path).data
    assert data.model_name == f"linear-{HOSTILE}"
    assert data.eval_results[0].dataset_type == HOSTILE


@pytest.mark.parametrize(
    "header",
    [
        "a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
        "d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\n"
        "f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]\ng: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f]",
        "a: " + "[" * 10_000,
        "library_name: fmri_models\n\tx: 1",
    ],
)
def test_a_hostile_header_is_a_sentence(model, header):
    (model / "README.md").write_text(f"---\n{header}\n---\n")
    with pytest.raises(FmriModelsError, match="would be lost; move it away"):
        write_card(model)


def test_what_a_report_may_leave_out(model, report, tmp_path):
    content = report.to_dict()
    for metrics in content["results"].values():
        for found in metrics.values():
            del found["ci95"]
    for name in ("rows", "comparisons", "permutation", "notes", "versions"):
        del content[name]
    del content["model"]["settings"], content["protocol"]["trial_average"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert "| PixCorr ↑ | – | 0." in write_card(model, Report.load(tmp_path)).read_text()


def test_a_license_is_a_text(model):
    path = write_card(model)
    path.write_text(path.read_text().replace("---\n", "---\nlicense: [a, b]\nlicense_link: 3\n", 1))
    assert ModelCard.load(write_card(model)).data.license == "other"


def test_what_was_learned_from_stands_before_the_figures(model, report):
    sentence = "5 of 10 test pictures are nearly in the training as well."
    card = ModelCard.load(write_card(model, replace(report, warnings=[sentence], notes=[sentence, "Else."])))
    results = section(card.text, "Results")
    assert results.count(sentence) == 1 and results.index(sentence) < results.index("| metric |")
    assert "- Else." in results
    for figure in card.data.eval_results:
        assert figure.dataset_name.endswith("(not known to be figures of new pictures)")
        assert figure.metric_args["warnings"] == [sentence]


@pytest.fixture
def measured(workplace, report, tmp_path):
    """A pipeline with the report on it, its pages and a card with the figures."""
    shutil.copytree(workplace / "model", tmp_path / "measured")
    write_card(tmp_path / "measured", report)
    return tmp_path / "measured"


def adapt(pipeline):
    pipeline.brain_model.add_adapter(peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))


def merge(pipeline):
    config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    pipeline.brain_model = peft.get_peft_model(pipeline.brain_model, config).merge_and_unload()


def train_on(pipeline):
    with torch.no_grad():
        next(pipeline.brain_model.parameters()).mul_(1.5)


def assign(pipeline):
    other = type(pipeline.brain_model)(pipeline.brain_model.config)
    pipeline.brain_model = other.eval()


def exchange_processor(pipeline):
    pipeline.processor = copy.deepcopy(pipeline.processor)


WEIGHTS = [adapt, merge, train_on, assign]


@pytest.mark.parametrize("change", [*WEIGHTS, exchange_processor])
@pytest.mark.parametrize("in_place", [True, False])
def test_other_parts_take_over_no_report(measured, tmp_path, change, in_place):
    pipeline = FmriToImagePipeline.from_pretrained(measured)
    change(pipeline)
    saved = measured if in_place else tmp_path / "saved"
    pipeline.save_pretrained(saved)
    assert not [file.name for file in saved.iterdir() if file.name.startswith(("report.", "grid."))]
    assert "PixCorr" not in (saved / "README.md").read_text()
    record = TrainingRecord.load(saved)
    assert bool(record.unknown_initial_models) == (change in WEIGHTS)
    assert json.loads((saved / "training.json").read_text())["unknown_initial_models"] == record.unknown_initial_models


def test_a_given_brain_model_takes_over_no_report(measured, tmp_path):
    other = FmriToImagePipeline.from_pretrained(measured).brain_model
    FmriToImagePipeline.from_pretrained(measured, brain_model=other).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "report.json").exists()
    assert TrainingRecord.load(tmp_path / "saved").unknown_initial_models


def test_the_same_parts_keep_their_report(measured, tmp_path):
    pipeline = FmriToImagePipeline.from_pretrained(measured)
    pipeline.save_pretrained(tmp_path / "saved")
    type(pipeline).from_pipe(pipeline).save_pretrained(tmp_path / "made")
    for name in ("README.md", "report.json", "training.json"):
        for folder in ("saved", "made"):
            assert (tmp_path / folder / name).read_bytes() == (measured / name).read_bytes()


def test_a_pipeline_with_an_adapter_has_a_report_of_its_own(workplace, measured, tmp_path, report):
    pipeline = FmriToImagePipeline.from_pretrained(measured)
    adapt(pipeline)
    pipeline.save_pretrained(tmp_path / "adapted")
    with pytest.raises(FmriModelsError, match="The report does not belong to .*: its .*weights"):
        write_card(tmp_path / "adapted", report)
    own = evaluate(tmp_path / "adapted", workplace / "data", tmp_path / "own", "small_pictures")
    assert own.results["ridge"] == report.results["ridge"] != own.results["brain"]
    write_card(tmp_path / "adapted", own)
    FmriToImagePipeline.from_pretrained(tmp_path / "adapted").save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "report.json").exists()
