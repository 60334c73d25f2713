"""Licences in the headers of cards are ids that the Hub knows."""

import re

import pytest

from fmri_models.licenses import HUB_LICENSES, license_fields


@pytest.mark.parametrize(
    ("stated", "fields"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("Apache License, Version 2.0", {"license": "apache-2.0"}),
        ("CC BY-NC 4.0", {"license": "cc-by-nc-4.0"}),
        ("CC0", {"license": "cc0-1.0"}),
        ("", {"license": "other", "license_name": "not-stated"}),
        ("…", {"license": "other", "license_name": "not-stated"}),
        ("other", {"license": "other", "license_name": "other"}),
        ("For research only!", {"license": "other", "license_name": "for-research-only"}),
        (
            "https://example.org/terms",
            {
                "license": "other",
                "license_name": "https-example.org-terms",
                "license_link": "https://example.org/terms",
            },
        ),
        ("Données ouvertes", {"license": "other", "license_name": "donnees-ouvertes"}),
        ("仅供研究", {"license": "other", "license_name": "xn--rmq3tl58gz8b"}),
        ("Только 2.0", {"license": "other", "license_name": "xn---2.0-k5dfuc6azh"}),
        ("x" * 500, {"license": "other", "license_name": "x" * 96}),
    ],
)
def test_a_stated_licence_is_one_of_the_hub(stated, fields):
    assert license_fields(stated) == fields
    assert fields["license"] in HUB_LICENSES


@pytest.mark.parametrize("stated", ["仅供研究", "Лицензия № 3", "研究 only", "ελεύθερο_", "ß" * 100_000])
def test_a_licence_in_other_letters_was_stated(stated):
    name = license_fields(stated)["license_name"]
    assert re.fullmatch("[a-z0-9][a-z0-9.-]{0,95}", name) and name.startswith("xn--")
    assert license_fields(stated + "x") != license_fields(stated) or len(stated) > 96
