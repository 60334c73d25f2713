"""How near test pictures are to the training, and whether kinds alone were read: planted cases, and nulls."""

import copy
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr, ttest_ind

from fmri_models.data import TrialTableWriter
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import stimulus_vectors
from fmri_models.evaluation.audit import PARTS, AuditedItems, audit_notes, audit_tables, checked_audit, overlap
from fmri_models.evaluation.audit.clusters import told_apart
from fmri_models.evaluation.audit.overlap import SubjectOverlap, content
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.overall_verdict import verdict
from fmri_models.evaluation.picture_clusters import cluster_pictures, radius_without_itself
from fmri_models.evaluation.protocols import get_protocol
from fmri_models.evaluation.rank_correlation import bins_of_units, difference_of_samples, rank_correlation
from fmri_models.evaluation.report import Report
from fmri_models.evaluation.report_pages import of_items, to_html, to_markdown
from fmri_models.evaluation.scores import Scores
from fmri_models.evaluation.stimulus_vectors import StimulusVectors, stimulus_space
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.evaluation.damaged_audit import check_damaged
from tests.small_table import write_kfold, write_small_table

KINDS, SIZE, VOXELS = 5, 12, 60
SPACE = {
    "kind": "pixels",
    "name": "pixels",
    "digest": None,
    "values": 9,
    "projected": False,
    "trained_against": False,
}


def write_table_of_kinds(path, trained=range(KINDS), repetitions=2, own=0.0):
    """Pictures of five kinds whose voxels hold the kind and, by the share `own`, the picture itself."""
    rng = np.random.default_rng(0)
    kinds = rng.uniform(0, 1, (KINDS, 4, 4))
    parts = {"train": [k for k in trained for _ in range(16)], "test": [k for k in range(KINDS) for _ in range(6)]}
    of_pictures = [kind for kinds_of in parts.values() for kind in kinds_of]
    details = rng.normal(0, 0.07, (len(of_pictures), 4, 4))
    coarse = np.clip(0.1 + 0.8 * kinds[of_pictures] + details, 0, 1)
    pictures = (coarse.repeat(3, axis=1).repeat(3, axis=2) * 255).astype(np.uint8)
    weights, detailed = rng.normal(size=(KINDS, VOXELS)), rng.normal(size=(16, VOXELS))
    expected = weights[of_pictures] + own * details.reshape(len(details), -1) @ detailed
    ids = [f"kind{kind}_{number:03d}" for number, kind in enumerate(of_pictures)]
    with TrialTableWriter(
        path, name="kinds", simulated=True, description="For tests.", license="CC0", source="drawn"
    ) as writer:
        writer.add_stimuli(
            {"stimulus_id": name, "image": picture, "captions": [], "category": None, "factors": None}
            for name, picture in zip(ids, pictures, strict=True)
        )
        writer.add_voxels("subj01", VOXELS)
        start = trial = 0
        for part, count in (("train", len(parts["train"])), ("test", len(parts["test"]))):
            rows = np.repeat(np.arange(start, start + count), repetitions)
            betas = expected[rows] + 0.3 * rng.standard_normal((len(rows), VOXELS))
            writer.add_trials(
                "subj01", part, stimulus_ids=[ids[row] for row in rows], sessions=[1] * len(rows),
                runs=[1] * len(rows), trials=list(range(trial, trial + len(rows))),
                repetitions=np.tile(np.arange(repetitions), count).tolist(), fmri=betas.astype(np.float32),
            )  # fmt: skip
            start, trial = start + count, trial + len(rows)
    return path


def evaluated(folder, data, audit=("overlap", "clusters"), **options):
    overrides = [f"data={data}", f"out={folder / 'model'}", "generator=pixels", "targets=[latents]"]
    if not (folder / "model").exists():
        train(load_recipe("linear", [*overrides, "processor.statistics=pooled"]))
    return evaluate(folder / "model", data, folder / "report", "small_pictures", audit=list(audit), **options)


@pytest.fixture(scope="module")
def of_kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return evaluated(folder, write_table_of_kinds(folder / "data")), folder / "report"


@pytest.fixture(scope="module")
def of_new_kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new_kinds")
    return evaluated(folder, write_table_of_kinds(folder / "data", trained=range(KINDS - 1)))


# ------------------------------------------------------------------------------------------------ the whole evaluation


def test_where_the_kind_alone_is_in_the_brain_only_the_kind_was_read(of_kinds):
    report, _ = of_kinds
    found = report.audit["clusters"]
    (clustering,) = found["clusterings"]
    assert len(clustering["clusters"]) == KINDS and clustering["pictures"] == 6 * KINDS
    assert clustering["silhouette"] > clustering["structureless"][1]
    for cluster in clustering["clusters"]:
        assert cluster["test"] == 6 and 10 <= cluster["training"][0] <= 16
        assert len({example[:5] for example in cluster["examples"]}) == 1
    brain, ceiling = found["identification"]["brain"], found["identification"]["ceiling"]
    assert brain["across"]["value"] > 0.97 and brain["across"]["ci95"][0] > 0.8
    assert brain["within"]["ci95"][0] < 0.5 < brain["within"]["ci95"][1]
    assert ceiling["within"]["value"] == ceiling["across"]["value"] == 1
    notes = [note for note in report.notes if note.startswith("Clusters")]
    assert any("nothing shows that anything else of it was" in note for note in notes)
    assert any("each of the 5 clusters" in note for note in notes)


def granted(report):
    """The report with every control beaten beyond doubt."""
    better = {
        row: {name: found and {**found, "ci95": [0.01, 0.1]} for name, found in each.items()}
        for row, each in report.comparisons.items()
    }
    return replace(report, comparisons=better)


def test_the_verdict_says_what_an_audit_takes_from_it(of_kinds, of_new_kinds):
    report, _ = of_kinds
    said = "nothing shows that more than the kind of a picture was read"
    found = verdict(granted(report))
    assert found.status == "yes" and "The audit narrows that: " in found.text and said in found.text, found.text
    assert all(said in page(granted(report)) for page in (to_markdown, to_html))
    assert "narrows" not in verdict(replace(granted(report), audit={})).text
    assert "pictures far from the training are read" in verdict(granted(of_new_kinds)).text
    # What is not better than its controls needs no narrowing.
    assert verdict(report).status == "no" and "narrows" not in verdict(report).text


@pytest.mark.slow
def test_where_pictures_are_in_the_brain_more_than_the_kind_was_read(tmp_path):
    report = evaluated(tmp_path, write_table_of_kinds(tmp_path / "data", own=2.0), ["clusters"])
    assert report.audit["clusters"]["identification"]["brain"]["within"]["ci95"][0] > 0.5
    assert any("more was read than the kind" in note for note in report.notes)
    assert "narrows" not in verdict(granted(report)).text
    assert set(report.audit) == {"clusters"}


def test_a_kind_that_was_not_learned_from_is_said_to_be_new(of_kinds, of_new_kinds):
    (clustering,) = of_new_kinds.audit["clusters"]["clusterings"]
    new = [cluster for cluster in clustering["clusters"] if cluster["training"] == [0, 0]]
    assert [{example[:5] for example in cluster["examples"]} for cluster in new] == [{"kind4"}]
    assert any("1 of 5 clusters of test pictures (6 of 30 pictures) have no training" in n for n in of_new_kinds.notes)
    old, now = of_kinds[0].audit["overlap"]["nearest"], of_new_kinds.audit["overlap"]["nearest"]
    # Pictures of kinds that were learned from are as far from the training as held-out training pictures.
    assert old["farther"]["ci95"][0] < 0.5 < old["farther"]["ci95"][1]
    assert now["test"][-1] > 3 * old["test"][-1]
    assert old["held_out"] == [16, 16] and now["held_out"] == [12, 12]


def test_new_kinds_are_read_worse_and_the_ceiling_is_not(of_new_kinds):
    found = of_new_kinds.audit["overlap"]
    related = found["relation"]["brain"]["pixcorr"]
    assert related["rho"] < -0.4 and related["p"] < 0.05 and related["n"] == 30
    assert found["less"]["ceiling"]["pixcorr"][-1]["difference"] < found["less"]["ceiling"]["pixcorr"][0]["difference"]
    (note,) = [
        each for each in of_new_kinds.notes if "the farther a test picture is from the training, the worse" in each
    ]
    assert "falls behind the ceiling there" in note


def test_what_an_audit_found_is_read_again_and_shown(of_kinds):
    report, folder = of_kinds
    read = Report.load(folder)
    assert read.audit == report.to_dict()["audit"]
    assert list(audit_notes(read.audit)) == [note for note in report.notes if note.split(":")[0] in LABELS]
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert "Overlap: score against distance" in text and "within clusters" in text
    assert (folder / "report.html").read_text().count("<svg") >= 2
    assert [table.figure is not None for table in audit_tables(report.audit)].count(True) == 2


def test_the_nearest_pairs_are_shown_side_by_side(of_kinds):
    report, folder = of_kinds
    page = (folder / "report.html").read_text()
    start = page.index("<h3>Nearest to the training</h3>")
    group = page[start : page.index("</section>", start)]
    first = report.audit["overlap"]["closest"][0]
    for alt in (f"shown: {first['stimulus']}", f"learned from: {first['training']}"):
        assert alt in group
    assert group.count("<img") == 12 and f"distance {first['distance']:.3f}" in group
    # A page that is made of report.json again has them, too.
    assert "Nearest to the training" in of_items(page)


LABELS = {PARTS[name].label for name in ("overlap", "clusters")}


@pytest.mark.parametrize(
    ("part", "place", "value"),
    [
        ("overlap", ("nearest", "test"), [0.1] * 4),
        ("overlap", ("nearest", "test", 0), 2.5),
        ("overlap", ("space", "kind"), "people"),
        ("overlap", ("bins",), []),
        ("overlap", ("relation", "brain", "pixcorr", "p"), 1.5),
        ("overlap", ("relation", "brain", "no_such_metric"), None),
        ("overlap", ("points", "scores"), [0.5]),
        ("clusters", ("clusterings",), []),
        ("clusters", ("clusterings", 0, "clusters", 0, "training"), [-1, 3]),
        ("clusters", ("identification", "brain", "within", "value"), "high"),
        ("clusters", ("space", "trained_against"), None),
    ],
)
def test_contents_of_others_are_checked(of_kinds, part, place, value):
    audit = copy.deepcopy(of_kinds[0].to_dict()["audit"])
    checked_audit(audit)
    *above, last = place
    inner = audit[part]
    for step in above:
        inner = inner[step]
    inner[last] = value
    with pytest.raises(ValueError, match=f"what an audit says of {part}"):
        checked_audit(audit)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["overlap", "clusters"])
def test_damaged_files_are_refused_or_shown(of_kinds, part):
    _, refused = check_damaged(part, of_kinds[0].to_dict()["audit"][part])
    assert refused > 20


def test_names_of_files_stay_text(of_kinds):
    report, _ = of_kinds
    report = copy.deepcopy(report)
    bad = "<b>*x*|"
    report.audit["overlap"]["closest"][0]["training"] = bad
    report.audit["clusters"]["clusterings"][0]["clusters"][0]["examples"] = [bad]
    report.audit["overlap"]["space"]["name"] = bad
    from fmri_models.evaluation.report_pages import to_html, to_markdown

    assert bad not in to_html(report, None) and "&lt;b&gt;" in to_html(report, None)
    assert bad not in to_markdown(report)


@pytest.mark.slow
def test_single_trials_and_folds_are_audited_too(tmp_path):
    data = write_small_table(tmp_path / "data", ("subj02",))
    report = evaluated(tmp_path, data, repetitions="single")
    found = report.audit["overlap"]
    assert found["stimuli"] == 12 and found["relation"]["brain"]["pixcorr"]["n"] == 12
    assert found["scores"]["brain"]["pixcorr"][0]["n"] == 3 * found["bins"][0]["stimuli"]
    write_kfold(data, "kfold3", 3)
    overrides = [f"data={data}", f"out={tmp_path / 'folds'}", "generator=pixels", "targets=[latents]"]
    train(load_recipe("linear", [*overrides, "split=kfold3", "folds=all"]))
    merged = evaluate(tmp_path / "folds", data, tmp_path / "merged", "small_pictures", audit=["overlap", "clusters"])
    assert sum(each["stimuli"] for each in merged.audit["overlap"]["bins"]) == 82
    assert len(merged.audit["clusters"]["clusterings"]) == 3


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(FmriModelsError, match="no part 'overlaps' of an audit.*overlap"):
        evaluate(tmp_path, tmp_path, tmp_path / "r", audit=["overlaps"])


# ------------------------------------------------------------------------------------------------- scores and distances


def audited(scores_of_rows, distances, subjects=1, seed=0):
    """The content of made-up scores and distances, of subjects who saw different pictures."""
    count = len(distances)
    size = count // subjects
    names = np.asarray([f"s{number:03d}" for number in range(count)])
    scores = Scores(
        {row: {"pixcorr": values} for row, values in scores_of_rows.items()},
        np.repeat([f"subj{number}" for number in range(subjects)], size),
        names,
        np.zeros(count, dtype=np.int64),
    )
    measured = [
        SubjectOverlap(
            f"subj{number}", 0, SPACE, names[at].tolist(), names[at], distances[at], distances[at],
            ["t"] * size, distances[at], np.random.default_rng(1).uniform(0.2, 0.4, 50),
            [f"held{place}" for place in range(50)], 200, 0,
        )
        for number in range(subjects)
        for at in [slice(number * size, (number + 1) * size)]
    ]  # fmt: skip
    return content(AuditedItems(measured, None, scores, get_protocol("small_pictures"), seed))


def notes_of(found):
    return " ".join(PARTS["overlap"].notes(found))


def test_memory_shows_and_the_generators_own_ease_does_not_pass_for_it():
    rng = np.random.default_rng(0)
    distances = rng.uniform(0.1, 0.5, 60)
    easy = 0.9 - distances + 0.02 * rng.standard_normal(60)
    memory = {"brain": easy - distances, "ceiling": 0.8 + 0.02 * rng.standard_normal(60), "nearest_train": easy}
    found = audited(memory, distances)
    assert found["relation"]["brain"]["pixcorr"]["rho"] < -0.9
    assert found["far_less_near"]["brain"]["pixcorr"]["ci95"][1] < 0
    assert "It falls behind the ceiling there (PixCorr)" in notes_of(found)
    ease = {"brain": easy - 0.2 + 0.02 * rng.standard_normal(60), "ceiling": easy}
    text = notes_of(audited(ease, distances))
    assert "typical pictures are easier for the generator itself" in text
    assert "the generator's own ease with typical pictures may be all there is" in text


def test_a_relation_is_found_where_there_is_none_as_rarely_as_it_says():
    rng = np.random.default_rng(0)
    found = [
        rank_correlation(rng.uniform(size=24), rng.uniform(size=24), np.arange(24).astype(str), [np.arange(24)], draw)
        for draw in range(200)
    ]
    assert 0.015 < np.mean([each.p <= 0.05 for each in found]) < 0.1
    assert np.mean([each.ci95[0] <= 0 <= each.ci95[1] for each in found]) > 0.9


def test_without_a_relation_nothing_is_said_to_be_proved():
    rng = np.random.default_rng(1)
    text = notes_of(audited({"brain": rng.uniform(size=40)}, rng.uniform(0.1, 0.5, 40)))
    assert "beyond doubt" in text and "no proof that there is none" in text


def test_subjects_who_are_read_better_and_have_nearer_pictures_are_no_relation():
    rng = np.random.default_rng(0)
    distances = np.concatenate([rng.uniform(0.1, 0.2, 30), rng.uniform(0.5, 0.6, 30)])
    brain = np.concatenate([rng.uniform(0.8, 1, 30), rng.uniform(0, 0.2, 30)])
    assert spearmanr(distances, brain).statistic < -0.6
    found = audited({"brain": brain}, distances, subjects=2)
    assert abs(found["relation"]["brain"]["pixcorr"]["rho"]) < 0.3
    assert [each["stimuli"] for each in found["bins"]] == [20, 20, 20]


@pytest.mark.parametrize("sizes", [[2] * 10, [3] * 6 + [22]])
def test_many_small_folds_are_no_more_stimuli_than_they_are(sizes):
    """Ranks of one fold sum up to 0: stimuli of all folds that changed places would scatter too little."""
    rng, ends = np.random.default_rng(0), np.cumsum([0, *sizes])
    units = np.arange(ends[-1]).astype(str)
    strata = [np.arange(*each) for each in pairwise(ends)]
    found = [
        rank_correlation(rng.uniform(size=len(units)), rng.uniform(size=len(units)), units, strata, draw, 300)
        for draw in range(300)
    ]
    assert np.mean([each.p <= 0.05 for each in found]) < 0.08
    assert np.mean([each.ci95[0] <= 0 <= each.ci95[1] for each in found if each.ci95]) > 0.92


def test_folds_of_one_stimulus_tell_nothing():
    found = rank_correlation(
        *np.random.default_rng(0).uniform(size=(2, 12)),
        np.arange(12).astype(str),
        [np.arange(6, 12), *np.eye(6, 12, dtype=int).argmax(1)[:, None]],
    )
    assert found.ci95 is None and found.p > 0.001


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 6, 40).astype(float), rng.standard_normal(40)
    other[3] = np.nan
    units = np.arange(40).astype(str)
    found = rank_correlation(one, other, units, [np.arange(40)])
    known = np.isfinite(other)
    assert found.rho == pytest.approx(spearmanr(one[known], other[known]).statistic) and found.n == 39
    for few in (4, 0):
        assert rank_correlation(one[:few], other[:few], units[:few], [np.arange(few)]) is None
    assert rank_correlation(np.ones(40), other, units, [np.arange(40)]) is None


def test_bins_part_no_ties_and_need_five_stimuli_each():
    units = np.arange(30).astype(str)
    parted = bins_of_units(np.arange(30.0), units, [np.arange(30)])
    assert [len(each) for each in parted] == [10, 10, 10] and parted[0].max() < parted[1].min()
    tied = bins_of_units(np.repeat([0.0, 1.0], 15), units, [np.arange(30)])
    assert [len(each) for each in tied] == [15, 15]
    assert bins_of_units(np.zeros(30), units, [np.arange(30)]) == []
    assert bins_of_units(np.arange(9.0), units[:9], [np.arange(9)]) == []
    # Two items of a stimulus go to one bin.
    twice = bins_of_units(np.arange(30.0), np.repeat(units[:15], 2), [np.arange(30)])
    assert all(set(each // 2) for each in twice) and sum(map(len, twice)) == 30


def test_two_samples_have_welchs_interval():
    rng = np.random.default_rng(0)
    one, other = rng.normal(1, 2, 20), rng.normal(0, 1, 9)
    found = difference_of_samples(one, np.arange(20).astype(str), other, np.arange(9).astype(str))
    expected = ttest_ind(one, other, equal_var=False).confidence_interval()
    assert found.ci95 == pytest.approx((expected.low, expected.high))
    assert difference_of_samples(one[:4], np.arange(4).astype(str), other, np.arange(9).astype(str)).ci95 is None


def test_a_sentence_takes_the_place_of_what_is_not_defined():
    scores = Scores({"brain": {"pixcorr": np.zeros(3)}}, np.full(3, "s"), np.arange(3).astype(str), np.zeros(3))
    for name in ("overlap", "clusters", "span"):
        items = AuditedItems(["Nothing was seen."], None, scores, get_protocol("small_pictures"), 0)
        assert PARTS[name].content(items) == {"not_defined": "Nothing was seen."}
        assert list(audit_tables({name: {"not_defined": "Nothing was seen."}})) == []


def test_few_stimuli_have_no_relation_and_no_bins():
    found = audited({"brain": np.array([0.1, 0.2, 0.3])}, np.array([0.1, 0.2, np.nan]))
    assert found["bins"] == [] and found["relation"]["brain"]["pixcorr"] is None
    text = notes_of(found)
    assert "fewer than five stimuli" in text and "too few test stimuli" in text
    PARTS["overlap"].schema.model_validate(found)
    assert audited({"brain": np.array([0.1, 0.2])}, np.array([0.1, np.nan])).keys() == {"not_defined"}


# ------------------------------------------------------------------------------------------------------------- vectors


class Given(StimulusVectors):
    """Vectors that are given."""

    def __init__(self, training):
        self.training, self.mean = training, training.mean(axis=0)


def test_the_nearest_are_found_in_blocks_and_a_picture_is_not_its_own(monkeypatch):
    rng = np.random.default_rng(0)
    training, tested = rng.normal(3, 1, (50, 8)).astype(np.float32), rng.normal(3, 1, (6, 8)).astype(np.float32)
    tested[0] = training[17]
    monkeypatch.setattr(stimulus_vectors, "_ROWS", 7)
    vectors = Given(training)
    unit = lambda rows: (c := rows - training.mean(axis=0)) / np.linalg.norm(c, axis=1, keepdims=True)  # noqa: E731
    expected = 1 - unit(tested) @ unit(training).T
    found = vectors.nearest(tested, 5)
    assert found.distances == pytest.approx(np.sort(expected, axis=1)[:, :5], abs=1e-5)
    assert found.positions.tolist() == expected.argmin(axis=1).tolist() and found.distances[0, 0] == 0
    held = np.arange(10, 20)
    rest = vectors.nearest(tested, 60, without=held)
    assert rest.distances.shape == (6, 40) and rest.distances[0, 0] > 0.01
    kept = np.setdiff1d(np.arange(50), held)
    assert rest.positions.tolist() == kept[expected[:, kept].argmin(axis=1)].tolist()
    assert np.isnan(vectors.nearest(vectors.mean[None], 1).distances).all()


def test_wide_vectors_keep_their_angles():
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((6, 20_000)).astype(np.float32)
    wide[1] = wide[0] + 0.5 * wide[1]
    narrow = stimulus_vectors.RandomProjection(20_000)(wide)
    assert narrow.shape == (6, stimulus_vectors.MOST_VALUES)
    assert np.corrcoef(narrow) == pytest.approx(np.corrcoef(wide), abs=0.08)


def space(extractors, size, decoded, encoder="openai/clip-vit-large-patch14"):
    of_generator = None if encoder is None else SimpleNamespace(encoder=encoder)
    generator = SimpleNamespace(image_size=(3, size, size), image_embedding_space=of_generator)
    config = SimpleNamespace(
        space=lambda name: SimpleNamespace(encoder=decoded) if decoded and name == "image_embedding_space" else None
    )
    pipeline = SimpleNamespace(image_generator=generator, brain_model=SimpleNamespace(config=config))
    return stimulus_space(SimpleNamespace(pipeline=pipeline, extractors=extractors, weights=None))


def test_a_network_that_the_decoder_was_not_trained_against_comes_first():
    clip, names = "openai/clip-vit-large-patch14", ("alexnet2", "clip_vit_l14", "efficientnet_lite0")
    assert space(names, 64, clip).name == "efficientnet_lite0"
    assert not space(names, 64, clip).trained_against
    # AlexNet has more features than those of a whole training set can be held of.
    assert space(names[:2], 64, None).name == "clip_vit_l14"
    assert space(names[1:2], 64, clip).trained_against
    small = space(names, 28, clip)
    assert (small.kind, small.trained_against) == ("generator", True)
    assert space(names, 28, None).trained_against is False
    assert space((), 28, None, encoder=None).kind == "pixels"
    assert space((), 28, "pixels", encoder=None).trained_against


# ------------------------------------------------------------------------------------------------------------ clusters


def blobs(distance, sizes=(20, 12, 8), width=30, seed=0):
    rng = np.random.default_rng(seed)
    centres = distance * rng.standard_normal((len(sizes), width))
    of_each = np.repeat(np.arange(len(sizes)), sizes)
    return centres[of_each] + rng.standard_normal((len(of_each), width)), of_each


@pytest.mark.slow
def test_groups_that_there_are_are_found_and_others_are_not_claimed():
    vectors, of_each = blobs(3)
    found = cluster_pictures(vectors, 0)
    assert found.labels.tolist() == of_each.tolist() and found.count == 3 and found.are_distinct
    claimed = [cluster_pictures(blobs(0, seed=seed)[0], seed, draws=9).are_distinct for seed in range(6)]
    assert sum(claimed) <= 2
    assert cluster_pictures(vectors[:9], 0) is None and cluster_pictures(np.ones((20, 4)), 0) is None


def test_the_radius_of_a_cluster_holds_new_members_of_it():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(50):
        members, others = rng.standard_normal((6, 200)), rng.standard_normal((50, 200))
        radius = radius_without_itself(members)
        inside.append((np.linalg.norm(others - members.mean(axis=0), axis=1) <= radius).mean())
    # The farthest of six: that of seven is a new one once in seven.
    assert np.mean(inside) == pytest.approx(6 / 7, abs=0.06)
    assert radius_without_itself(rng.standard_normal((1, 5))) is None


def test_who_knows_the_group_tells_across_and_not_within():
    vectors, of_each = blobs(3, sizes=(20, 20, 20), seed=1)
    truth, shown = torch.from_numpy(vectors), np.arange(60)
    rng = np.random.default_rng(2)
    centre = np.stack([vectors[of_each == each].mean(axis=0) for each in of_each])
    drawn = torch.from_numpy(centre + 0.1 * rng.standard_normal(centre.shape))
    within, across = told_apart(truth, drawn, shown, of_each)
    assert across.mean() > 0.99 and within.mean() == pytest.approx(0.5, abs=0.1)
    within, across = told_apart(truth, truth, shown, of_each)
    assert (within == 1).all() and (across == 1).all()
    # What is blank can't be identified, is nobody's rival, and as a reconstruction it fails.
    truth[0], drawn[1] = 0.5, 0.5
    within, across = told_apart(truth, drawn, shown, of_each)
    assert np.isnan(within[0]) and within[1] == across[1] == 0
    alone = told_apart(truth[:2], drawn[:2], np.arange(2), np.array([0, 1]))
    assert np.isnan(alone[0]).all()


def farther(rng, away, width=10, training=150, tested=24, subjects=1):
    """The interval of how probably test vectors are the farther ones, of some that differ where others do not."""
    flat = np.append(np.ones(width - 1), 0.1)
    vectors = Given((rng.standard_normal((training, width)) * flat).astype(np.float32) + 2)
    queries = (2 + rng.standard_normal((tested, width)) * flat).astype(np.float32)
    queries[:, -1] += away * rng.choice([-1, 1], tested)
    names = np.arange(tested).astype(str)
    distances = vectors.nearest(queries, 1).distances[:, 0]
    held = overlap._held_out(training, tested, 0)
    to_rest, of_held = (
        vectors.nearest(each, 1, without=held).distances[:, 0] for each in (queries, vectors.training[held])
    )
    people = [f"subj{number}" for number in range(subjects)]
    measured = [
        SubjectOverlap(
            name, 0, SPACE, names.tolist(), names, distances, distances, ["t"] * tested, to_rest, of_held,
            [f"held{place}" for place in held], training, 0,
        )
        for name in people
    ]  # fmt: skip
    every = subjects * tested
    scores = Scores(
        {"brain": {"pixcorr": rng.uniform(size=every)}}, np.repeat(people, tested), np.tile(names, subjects),
        np.zeros(every),
    )  # fmt: skip
    found = content(AuditedItems(measured, None, scores, get_protocol("small_pictures"), 0))
    return found["nearest"]["farther"]["ci95"]


def test_new_pictures_of_the_same_kind_are_no_farther_and_others_are():
    rng = np.random.default_rng(0)
    alike = [farther(rng, 0) for _ in range(60)]
    assert np.mean([low <= 0.5 <= high for low, high in alike]) >= 0.9
    assert np.mean([farther(rng, 4)[0] > 0.5 for _ in range(20)]) > 0.8


def test_subjects_who_learned_from_the_same_pictures_do_not_make_the_interval_narrower():
    one, four = (farther(np.random.default_rng(0), 0, tested=200, subjects=subjects) for subjects in (1, 4))
    assert one == pytest.approx(four)
