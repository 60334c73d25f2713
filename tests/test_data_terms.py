"""The terms of published data sets, and how a trial table's data set is recognised."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmri_models.data_terms import DATA_TERMS, DataTerms, forbids_redistribution, terms_of
from fmri_models.names import is_name


def _name(*arguments: str) -> str | None:
    terms = terms_of(*arguments)
    return None if terms is None else terms.name


@pytest.mark.parametrize(
    "table",
    [
        ("nsd",),
        ("NSD",),
        ("nsd-subj01",),
        ("nsd_subj01_nsdgeneral",),
        ("subj01_nsdgeneral",),
        ("mindeye_nsd",),
        ("Natural Scenes Dataset, subject 1",),
        ("mine", "NSD"),
        ("mine", "NSD Terms and Conditions"),
        ("mine", "NSD DUA, see https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions"),
        ("mine", "cc-by-4.0", "s3://natural-scenes-dataset/nsddata_betas/ppdata/subj01"),
        ("mine", "", "https://huggingface.co/datasets/pscotti/mindeyev2"),
        ("mine", "", "Betas from NSD, subjects 1, 2, 5 and 7"),
        ("mine", "", "Betas of the Natural Scenes Dataset (Allen et al., 2022)"),
    ],
)
def test_nsd_is_known_by_name_licence_or_source(table: tuple[str, ...]) -> None:
    terms = terms_of(*table)
    assert terms is not None
    assert (terms.name, terms.redistribution, terms.weights) == ("nsd", "forbidden", "unclear")


@pytest.mark.parametrize(
    "table",
    [
        ("mine",),
        ("nsdx",),
        ("our-nsd-pilot",),
        ("nsd-like-scenes",),
        ("not-nsd",),
        ("non_nsd_pictures",),
        ("hcp-style",),
        ("mine", "cc-by-4.0", "Our own scans; voxels chosen as in the Natural Scenes Dataset (Allen et al., 2022)"),
        ("mine", "cc-by-4.0", "Design after the Natural Scenes Dataset"),
        ("mine", "cc-by-4.0", "Pictures not from NSD but our own"),
        ("mine", "", "Reported to the data protection office (NSD), project 123"),
        ("mine", "", "Approved by NSD; recorded in Bergen"),
        ("mine", "", "A comparison with HCP follows"),
        ("dir",),
        ("faces",),
        ("things",),
        ("godzilla",),
        ("mine", "ds0014991"),
        ("mine", "research only"),
        ("mine", "Not for commercial use."),
        ("simulated-photos", "", "fmri-models simulate"),
        ("simulated-nsd", "", "fmri-models simulate"),
    ],
)
def test_ones_own_data_are_nobody_elses(table: tuple[str, ...]) -> None:
    assert terms_of(*table) is None


@pytest.mark.parametrize(
    ("table", "name"),
    [
        (("nsd-imagery",), "nsd-imagery"),
        (("nsd_synthetic",), "nsd-synthetic"),
        (("algonauts_2023",), "algonauts2023"),
        (("algonauts2025",), "algonauts2025"),
        (("bold5000-csi1",), "bold5000"),
        (("mine", "", "OpenNeuro ds001499"), "bold5000"),
        (("mine", "", "https://openneuro.org/datasets/ds001246/versions/1.2.1"), "god"),
        (("god",), "god"),
        (("ds001506-sub-01",), "dir"),
        (("things-fmri",), "things-fmri"),
        (("vim1",), "vim-1"),
        (("hcp-7t-movie",), "hcp-7t-movie"),
        (("hcp",), "hcp"),
        (("hcp_aging",), "hcp-lifespan"),
        (("mine", "", "Human Connectome Project in Aging"), "hcp-lifespan"),
        (("mine", "WU-Minn HCP Consortium Open Access Data Use Terms"), "hcp"),
        (("digits69",), "digits69"),
        (("mine", "", "https://github.com/ChangdeDu/DGMM"), "digits69"),
        (("simulated-scenes", "apache-2.0", "fmri-models simulate"), "simulated-scenes"),
    ],
)
def test_other_data_sets(table: tuple[str, ...], name: str) -> None:
    assert _name(*table) == name


def test_of_several_data_sets_the_strictest_counts() -> None:
    terms = terms_of("bold5000", "CC0", "s3://natural-scenes-dataset")
    assert terms is not None
    assert terms.name == "nsd"


@pytest.mark.parametrize(
    "license",
    [
        "research only, not to be passed on",
        "No redistribution.",
        "Redistribution is not permitted",
        "The data may not be shared",
        "You must not distribute the data",
        "not redistributable",
        "May not be re-distributed without permission",
        "not for redistribution",
    ],
)
def test_a_licence_of_its_own_may_forbid(license: str) -> None:
    assert forbids_redistribution(license)
    terms = terms_of("mine", license)
    assert terms is not None
    assert (terms.title, terms.redistribution, terms.license) == ("mine", "forbidden", license)


@pytest.mark.parametrize("license", ["cc-by-nc-4.0", "CC0", "", "redistribution allowed with attribution", "MIT"])
def test_other_licences_do_not(license: str) -> None:
    assert not forbids_redistribution(license)


def test_each_record_is_whole_and_found_by_its_name() -> None:
    assert len({terms.name for terms in DATA_TERMS}) == len(DATA_TERMS)
    for terms in DATA_TERMS:
        assert is_name(terms.name)
        for field in fields(DataTerms):
            text = getattr(terms, field.name)
            assert text == " ".join(text.split())
            assert text or field.name in ("says", "url"), (terms.name, field.name)
        assert terms.url.startswith(("https://", "http://www.pymvpa.org/")) or not terms.url


def test_what_nobody_confirmed_allows_nothing() -> None:
    for terms in DATA_TERMS:
        if terms.checked.startswith("not confirmed"):
            assert terms.redistribution != "allowed"
            assert terms.weights != "allowed"


@given(st.text(max_size=60), st.text(max_size=200), st.text(max_size=200))
def test_any_text_has_an_answer(name: str, license: str, source: str) -> None:
    terms = terms_of(name, license, source)
    assert terms is None or terms.redistribution in ("allowed", "forbidden", "unknown")


@given(st.sampled_from(["ds001499", "s3://natural-scenes-dataset", "NSD Terms and Conditions"]), st.data())
def test_an_id_inside_a_longer_word_is_none(mark: str, data: st.DataObject) -> None:
    letters = data.draw(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=5))
    assert terms_of("mine", "", f"at {mark}, as said") is not None
    assert terms_of("mine", "", f"at {letters}{mark}{letters}, as said") is None
