"""Reports of methods that train their image generator, and what evaluation makes of fMRI without pictures."""

import json

import numpy as np
import pytest
import torch
import yaml

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_by_stimulus
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report
from fmri_models.evaluation.drawn_rows import draw_rows
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.held_out import held_out_notes, held_out_trials
from fmri_models.evaluation.learning import floor_of, generator_of_references
from fmri_models.evaluation.report_tables import tables
from fmri_models.evaluation.report_terminal import notes_text
from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.modeling_outputs import FmriDecoding
from fmri_models.processing_fmri import FmriProcessor
from fmri_models.registry import METHODS, register_method
from fmri_models.simulation import simulate
from fmri_models.training.exchanged_pairs import refit_on_exchanged_pairs
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.training.learner import METHOD, LearnerConfig, LearnerModel, LearnerObjective, LearnerPipeline

TRAINING = {"batch_size": 4, "learning_rate": 1e-3, "schedule": "constant", "steps": 2, "keep_best": False}
REBUILD = {"name": "rebuild", "objective": {"rebuilds": True}, "repetitions": "single", "training": TRAINING}
DRAW = {"name": "draw", "training": TRAINING, "image_generator": {"train": ["cross_attention"]}}
RECIPE = {
    "method": "learner",
    "targets": ["latents"],
    "processor": {"statistics": "session"},
    "drawing": {"num_inference_steps": 2},
    "stages": [REBUILD, DRAW],
}
# The method decodes both conditions in the same width.
OPTIONS = {"block_out_channels": [8, 16], "context_dim": 32, "num_context_tokens": 2}
TINY = f"generator={json.dumps({'name': 'double_conditioned', 'options': OPTIONS})}"
UNPAIRED = "stages.0.unpaired="


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "table"
    return simulate(
        "builtin:scenes",
        folder,
        num_voxels=30,
        num_train=12,
        num_validation=4,
        num_test=6,
        num_subjects=1,
        unlabelled=6,
    )


@pytest.fixture(scope="module", autouse=True)
def method():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METHODS, "registered", {})
        register_method(METHOD)
        yield


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Trains the method with other options; gives the pipeline's folder."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "learner.yaml"
    path.write_text(yaml.safe_dump(RECIPE))

    def made(name, *overrides):
        if not (folder / name).exists():
            train(load_recipe(str(path), [f"data={data}", f"out={folder / name}", *overrides]))
        return folder / name

    return made


@pytest.fixture(scope="module")
def embedded(trained, data, tmp_path_factory):
    """A report on a method that has trained the embedded generator."""
    model = trained("embedded", f"{UNPAIRED}[{{parts: [validation]}}]", "stages.0.train_on=[train, unlabelled]")
    folder = tmp_path_factory.mktemp("reports") / "embedded"
    return evaluate(model, data, folder, "small_pictures"), model


@pytest.fixture(scope="module")
def tiny(trained, data, tmp_path_factory):
    """A report on one whose generator has no embeddings of pictures and was trained from nothing."""
    model = trained("tiny", TINY)
    folder = tmp_path_factory.mktemp("reports") / "tiny"
    return evaluate(model, data, folder, "small_pictures"), model


# ------------------------------------------------------------------------------------------------------------ drawing


def learner_with(generator, num_voxels=5):
    spaces = {name: space.to_dict() for name, space in generator.learned_condition_spaces.items()}
    config = LearnerConfig(subject_names=["subj01"], num_voxels=[num_voxels], **spaces)
    torch.manual_seed(0)
    fmri = np.random.default_rng(0).normal(size=(20, num_voxels)).astype(np.float32)
    processor = FmriProcessor.fit({"subj01": fmri}, ["subj01"])
    return LearnerPipeline(LearnerModel(config), processor, generator), fmri


def test_a_generator_that_reads_learned_conditions_draws_other_pictures_of_other_fmri():
    generator = DoubleConditionedImageGenerator.for_stimuli((1, 8, 8), **OPTIONS)
    assert generator.generates_from_embeddings
    assert not DoubleConditionedImageGenerator(generator.unet).generates_from_embeddings
    pipeline, fmri = learner_with(generator)
    sources = [torch.Generator().manual_seed(0) for _ in range(2)]
    options = {"num_inference_steps": 2, "generator": sources, "output_type": "pt"}
    one, other = pipeline(fmri[:2], "subj01", **options).images
    assert (one - other).abs().max() > 1e-3
    assert {"num_inference_steps", "guidance_scale"} <= set(pipeline.settings_used(pipeline.drawing_settings))


def test_candidates_of_a_generator_that_embeds_no_pictures_are_not_ranked():
    pipeline, fmri = learner_with(DoubleConditionedImageGenerator.for_stimuli((1, 8, 8), **OPTIONS))
    decoding = pipeline.decode(torch.from_numpy(fmri[:2]), torch.zeros(2, dtype=torch.long))
    decoding = FmriDecoding(**decoding, retrieval_embeds=torch.ones(2, 3))
    output = pipeline.generate(decoding, num_inference_steps=2, num_candidates=2)
    assert output.scores is None and len(output.candidates[0]) == 2


# ------------------------------------------------------------------------------------------------- generators and rows


def test_the_generator_before_training_is_known_by_the_training_and_not_by_the_conditions(embedded):
    pipeline = FmriToImagePipeline.from_pretrained(embedded[1])
    assert pipeline.has_trained_generator
    before = generator_of_references(pipeline)
    assert before is pipeline.untrained_image_generator is not pipeline.image_generator
    # As of a method that decodes the generator's own embeddings, and has trained it.
    for name in pipeline.image_generator.learned_condition_spaces:
        setattr(pipeline.brain_model.config, name, None)
    assert not pipeline.brain_model.config.has_learned_conditions
    assert pipeline.untrained_image_generator is before
    pipeline.register_to_config(untrained_generator_source=None)
    assert pipeline.has_trained_generator, "the training record says so"
    assert pipeline.untrained_image_generator is None and generator_of_references(pipeline) is None
    pipeline.training_record = None
    assert not pipeline.has_trained_generator
    assert pipeline.untrained_image_generator is pipeline.image_generator


def test_references_are_drawn_by_the_generator_before_training(embedded):
    report, _ = embedded
    assert set(report.results) == {
        "brain", "shuffled_brain", "permuted_training", "mean_image", "nearest_train", "floor", "ceiling",
        "ceiling_embeds_only", "ridge", "noise_free", "background",
    }  # fmt: skip
    assert report.missing_rows == {}
    assert report.model["image_generator_was_trained"] is True
    assert report.results["ceiling"]["pixcorr"]["value"] > report.results["brain"]["pixcorr"]["value"]
    assert "as it was before training" in report.rows["ridge"]["description"]
    assert any("ceiling_embeds_only, ridge are drawn by it as it was before" in note for note in report.notes)
    assert not any("--refit-permuted" in note for note in report.notes)


@pytest.mark.slow
def test_the_ridge_row_is_that_of_the_linear_method_with_the_same_generator(embedded, data, tmp_path):
    # A method that never drops its conditions draws without guidance.
    overrides = ["drawing.num_inference_steps=2", "drawing.guidance_scale=1", "processor.statistics=session"]
    train(load_recipe("linear", [f"data={data}", f"out={tmp_path / 'linear'}", *overrides]))
    linear = evaluate(tmp_path / "linear", data, tmp_path / "report", "small_pictures")
    for row in ("ridge", "ceiling", "ceiling_embeds_only", "permuted_training"):
        for metric, found in linear.results[row].items():
            value = None if found is None else pytest.approx(found["value"], abs=1e-6)
            assert value == (embedded[0].results[row][metric] or {}).get("value"), (row, metric)


def test_rows_that_nothing_draws_are_missing_with_a_reason(tiny):
    report, _ = tiny
    missing = ["permuted_training", "ceiling", "ceiling_embeds_only", "ridge"]
    assert list(report.missing_rows) == missing and not set(missing) & set(report.results)
    reason = report.missing_rows["ridge"]
    assert "nobody is said to have that one" in reason
    assert report.notes.count(reason) == 1
    content = json.loads((report.folder / "report.json").read_text())
    assert content["missing_rows"] == report.missing_rows
    for name in ("report.md", "report.html"):
        text = (report.folder / name).read_text()
        assert "Rows that are missing" in text and "permuted training (ridge)" in text.replace("\\", "")
        assert text.count("nobody is said to have that one") == 1
    assert Report.load(report.folder).to_dict() == report.to_dict()
    assert {"brain", "shuffled_brain", "mean_image", "nearest_train", "floor"} <= set(report.results)
    assert "Rows that are missing" not in [table.title for table in tables(Report({}, {}))]
    assert "nobody is said" in notes_text(report).replace("\n  ", " ")


def test_one_without_embeddings_before_training_says_so(tiny, monkeypatch):
    pipeline = FmriToImagePipeline.from_pretrained(tiny[1])
    monkeypatch.setattr(type(pipeline), "untrained_image_generator", pipeline.image_generator)
    from fmri_models.evaluation.learning import why_without_references

    assert generator_of_references(pipeline) is None
    assert "that one, a DoubleConditionedImageGenerator, has no embeddings" in why_without_references(pipeline)


# -------------------------------------------------------------------------------------------------------------- floor


def test_the_floor_is_the_mean_training_condition(tiny, data, monkeypatch):
    report, model = tiny
    pipeline, record = FmriToImagePipeline.from_pretrained(model), TrainingRecord.load(model)
    assert record.trains_generator and not record.drops_conditions
    assert floor_of(pipeline, record) == "mean condition"
    assert "mean of the conditions" in report.rows["floor"]["description"]
    assert any("trained without dropout of its condition" in note for note in report.notes)
    seen = []
    drawn = "fmri_models.evaluation.evaluate.draw_rows"
    monkeypatch.setattr(drawn, lambda of, rows: seen.append(of) or draw_rows(of, rows))
    evaluate(model, data, report.folder.parent / "again", "small_pictures")
    (of,) = seen
    trials = TrialTable.open(data).trials("subj01", "train")
    features = pipeline.processor(trials.fmri(), subject="subj01", session=trials.sessions)["fmri"]
    averaged = torch.stack([features[trials.stimulus_ids == name].mean(0) for name in set(trials.stimulus_ids)])
    expected = pipeline.brain_model.conditions(averaged).given
    assert of.mean_condition.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(of.mean_condition[name], values.mean(0), atol=1e-5, rtol=1e-4)
    drawn = pipeline.image_generator(
        **{name: values.mean(0).expand(len(of), *values.shape[1:]) for name, values in expected.items()},
        num_inference_steps=2,
        guidance_scale=pipeline.drawing_settings.guidance_scale,
        generator=[torch.Generator().manual_seed(number) for number in range(len(of))],
        output_type="pt",
    ).images
    torch.testing.assert_close(of.rows["floor"].images, drawn, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_floor_is_drawn_from_nothing_where_that_was_learned(trained, data, tmp_path, monkeypatch):
    monkeypatch.setattr(LearnerObjective, "drops_conditions", property(lambda self: True))
    model = trained("dropped", TINY)
    record = TrainingRecord.load(model)
    assert [stage.get("drops_conditions") for stage in record.stages] == [None, True]
    report = evaluate(model, data, tmp_path / "report", "small_pictures")
    assert "without any condition" in report.rows["floor"]["description"]
    assert any("floor is drawn from no condition" in note for note in report.notes)


# ------------------------------------------------------------------------------------- nearest pictures and retrieval


@pytest.mark.slow
def test_the_nearest_training_picture_is_that_of_the_reconstruction(embedded, data, monkeypatch):
    report, model = embedded
    assert any("nearest to the reconstruction by the embedding of EmbeddedImageGenerator" in n for n in report.notes)
    assert report.rows["nearest_train"]["description"] == "The training picture nearest to the reconstruction."
    seen = []
    drawn = "fmri_models.evaluation.evaluate.draw_rows"
    monkeypatch.setattr(drawn, lambda of, rows: seen.append(of) or draw_rows(of, rows))
    evaluate(model, data, report.folder.parent / "nearest", "small_pictures")
    (of,) = seen
    table, generator = TrialTable.open(data), EmbeddedImageGenerator.from_assets()
    ids = sorted(set(table.trials("subj01", "train").stimulus_ids.tolist()))
    pictures = of.as_drawn(table.stimuli.images(ids))
    known, drawn = (generator.embed_images(each).flatten(1) for each in (pictures, of.rows["brain"].images))
    nearest = torch.nn.functional.cosine_similarity(drawn[:, None], known[None], dim=-1).argmax(1)
    assert torch.equal(of.rows["nearest_train"].images, pictures[nearest])


@pytest.mark.slow
def test_without_an_embedding_a_network_of_the_protocol_tells_what_is_near(tiny, data, tmp_path, monkeypatch):
    report, model = tiny
    assert any("by the latents of DoubleConditionedImageGenerator" in note for note in report.notes)

    class Network:
        def __call__(self, images):
            return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)

    monkeypatch.setattr("fmri_models.evaluation.training_pictures.load_extractor", lambda name, weights: Network())
    found = evaluate(model, data, tmp_path / "report", "standard")
    assert any("by the features of efficientnet_lite0" in note for note in found.notes)
    assert found.results["brain"]["retrieval_query_brain_top1"] is None
    assert any("no embeddings of brain responses and pictures to compare" in note for note in found.notes)


@pytest.mark.slow
def test_where_nothing_embeds_a_reconstruction_the_row_is_missing(tiny, data, tmp_path, monkeypatch):
    monkeypatch.setattr("fmri_models.evaluation.evaluated_subject.EvaluatedSubject.nearest_by", None)
    report = evaluate(tiny[1], data, tmp_path / "report", "small_pictures")
    assert "nothing embeds its reconstructions" in report.missing_rows["nearest_train"]


@pytest.mark.slow
def test_a_low_level_picture_beside_learned_conditions_is_a_part(embedded, data, tmp_path, monkeypatch):
    decode = LearnerModel.decode

    def with_latents(self, fmri, *arguments, **options):
        return FmriDecoding(**decode(self, fmri, *arguments, **options), latents=torch.zeros(len(fmri), 12, 8, 8))

    monkeypatch.setattr(LearnerModel, "decode", with_latents)
    report = evaluate(embedded[1], data, tmp_path / "report", "small_pictures")
    assert {"brain_low_level", "brain_embeds_only"} <= set(report.results)
    low_level = report.results["brain_low_level"]["mse"]["value"]
    assert low_level != report.results["brain_embeds_only"]["mse"]["value"]


@pytest.mark.slow
def test_retrieval_embeddings_that_nothing_can_be_compared_with_are_no_error(tiny, data, tmp_path, monkeypatch):
    decode = LearnerModel.decode

    def with_retrieval(self, fmri, *arguments, **options):
        return FmriDecoding(**decode(self, fmri, *arguments, **options), retrieval_embeds=self.embed(fmri).detach())

    monkeypatch.setattr(LearnerModel, "decode", with_retrieval)
    report = evaluate(tiny[1], data, tmp_path / "report", "small_pictures")
    assert "nearest_train" in report.results


# ---------------------------------------------------------------------------------------------- fMRI without pictures


def test_trials_without_pictures_are_looked_up_nowhere(embedded, data):
    report, model = embedded
    record = TrainingRecord.load(model)
    assert record.train_parts == ["train", "unlabelled"] == report.data["train_parts"]
    own, other = record.learned_from
    assert (own.parts, own.fmri_of) == (["train", "validation", "unlabelled"], None)
    assert (other.parts, other.fmri_of, other.pictures) == (["validation"], ["subj01"], "")
    assert report.model["transductive"] is False and report.warnings == []
    assert report.data["test_factor_combinations_seen_in_training"] is not None


@pytest.mark.slow
def test_fmri_of_test_trials_makes_a_report_transductive(trained, data, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="fmri_models"):
        model = trained("transductive", TINY, f"{UNPAIRED}[{{parts: [validation, test]}}]")
    assert "test trials of subj01 without their pictures: every report" in caplog.text
    report = evaluate(model, data, tmp_path / "report", "small_pictures")
    assert report.model["transductive"] is True
    table, pipeline = TrialTable.open(data), FmriToImagePipeline.from_pretrained(model)
    count = len(table.trials("subj01", "test"))
    assert any(f"the fMRI of {count} of these {count} test trials" in each for each in report.warnings)
    assert "transductive" in (report.folder / "report.md").read_text().split("## Scores")[0]
    held_out = held_out_trials(pipeline, table, "subj01")
    assert not held_out.is_unseen and "transductive" in held_out_notes([held_out])[0]
    assert held_out.learned == frozenset()
    with pytest.raises(FmriModelsError, match="reference .* has learned from the fMRI of test trials"):
        evaluate(trained("tiny", TINY), data, tmp_path / "r2", "small_pictures", reference=model)


@pytest.mark.slow
def test_a_start_from_such_a_model_is_transductive_too(trained, data, tmp_path):
    before = trained("transductive", TINY, f"{UNPAIRED}[{{parts: [validation, test]}}]")
    values = yaml.safe_load((before.parent / "learner.yaml").read_text())
    record = TrainingRecord.load(before)
    record.learned_from[0].parts = ["train"]
    path = tmp_path / "learner.yaml"
    path.write_text(yaml.safe_dump({**values, "stages": values["stages"][1:]}))
    with pytest.MonkeyPatch.context() as patch:
        # Weights of learned conditions go with the generator that they were trained with, which is another one here.
        patch.setattr("fmri_models.training.building.load_initial_weights", lambda *arguments: None)
        overrides = [f"data={data}", f"out={tmp_path / 'out'}", TINY, f"initial_model={before}"]
        train(load_recipe(str(path), overrides))
    fmri = [each.fmri_of for each in TrainingRecord.load(tmp_path / "out").learned_from]
    assert fmri.count(["subj01"]) == 1
    assert evaluate(tmp_path / "out", data, tmp_path / "r", "small_pictures").model["transductive"] is True


@pytest.mark.slow
def test_test_trials_that_are_another_parts_elsewhere_are_refused(trained, data, tmp_path, caplog):
    table = TrialTable.open(data)
    add_split(table, "other", split_by_stimulus(SplitTrials.of_table(table), 1, test_fraction=0.3))
    other = table.trials("subj01", ["train", "validation"], "other").trials.tolist()
    both = set(other) & set(table.trials("subj01", "test").trials.tolist())
    assert both
    source = "{split: other, parts: [train, validation]}"
    with caplog.at_level("WARNING", logger="fmri_models"):
        model = trained("leaking", TINY, f"{UNPAIRED}[{source}]")
    assert "No evaluation will take the pipeline: This training has learned from the fMRI of" in caplog.text
    message = rf"learned from the fMRI of {len(both)} of the \d+ test trials of subj01 .* as train and validation of"
    with pytest.raises(FmriModelsError, match=message):
        evaluate(model, data, tmp_path / "report", "small_pictures")
    # The same table, named by its folder.
    model = trained("leaking_by_folder", TINY, f"{UNPAIRED}[{source.replace('{', '{data: ' + str(data) + ', ')}]")
    with pytest.raises(FmriModelsError, match=message):
        evaluate(model, data, tmp_path / "report", "small_pictures")
    (data / "splits" / "other.parquet").unlink()
    with pytest.raises(FmriModelsError, match="'other' .*does not have as it was then"):
        evaluate(model, data, tmp_path / "report", "small_pictures")
    assert not (tmp_path / "report").exists()


@pytest.mark.slow
def test_another_tables_fmri_is_on_record_and_that_table_is_not_evaluated_on(trained, data, tmp_path):
    elsewhere = simulate(
        "builtin:scenes",
        tmp_path / "elsewhere",
        num_voxels=30,
        num_train=8,
        num_validation=0,
        num_test=4,
        num_subjects=1,
        seed=5,
    )
    model = trained("of_two_tables", TINY, f"{UNPAIRED}[{{data: {elsewhere}, parts: [train, test]}}]")
    table = TrialTable.open(elsewhere)
    entry = TrainingRecord.load(model).learned_from[1]
    assert (entry.table_fingerprint, entry.parts, entry.split) == (table.fingerprint, ["train", "test"], "default")
    report = evaluate(model, data, tmp_path / "report", "small_pictures")
    assert report.model["transductive"] is False and report.warnings == []
    assert any(f"learned from, too: train and test of {table.name} (split 'default'" in each for each in report.notes)
    with pytest.raises(FmriModelsError, match="trained on the table"):
        evaluate(model, elsewhere, tmp_path / "report2", "small_pictures")
    held_out = held_out_trials(FmriToImagePipeline.from_pretrained(model), table, "subj01", any_table=True)
    assert len(held_out.learned_fmri) == len(held_out.trials)


def test_a_model_that_has_learned_from_no_picture_is_refused(trained, data, tmp_path):
    values = {**RECIPE, "stages": [{**REBUILD, "train_on": ["unlabelled"], "validate_on": []}]}
    path = tmp_path / "pretraining.yaml"
    path.write_text(yaml.safe_dump(values))
    train(load_recipe(str(path), [f"data={data}", f"out={tmp_path / 'out'}"]))
    assert TrainingRecord.load(tmp_path / "out").learned_from[0].parts == ["unlabelled"]
    with pytest.raises(FmriModelsError, match="has learned from unlabelled alone"):
        evaluate(tmp_path / "out", data, tmp_path / "report", "small_pictures")


# -------------------------------------------------------------------------------------------------------------- refit


def test_a_method_that_trains_its_generator_is_not_trained_anew(tiny, data, tmp_path):
    with pytest.raises(FmriModelsError, match="trains its image generator, too.*without --refit-permuted"):
        evaluate(tiny[1], data, tmp_path / "report", "small_pictures", refit=refit_on_exchanged_pairs)
    pipeline, record = FmriToImagePipeline.from_pretrained(tiny[1]), TrainingRecord.load(tiny[1])
    with pytest.raises(FmriModelsError, match="trains the image generator, too"):
        refit_on_exchanged_pairs(pipeline, TrialTable.open(data), record, 0)
