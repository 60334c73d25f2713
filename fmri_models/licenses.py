"""Licences as the Hub names them, for the headers of cards."""

import re
import unicodedata

NOT_STATED = {"license": "other", "license_name": "not-stated"}
_MOST_OF_A_NAME = 96
# All that the Hub knows; it takes no others.
HUB_LICENSES = frozenset(
    {
        "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
        "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause",
        "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
        "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
        "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m",
        "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
        "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "h-research",
        "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3", "llama3.1",
        "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1",
        "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib",
    }
)  # fmt: skip
_ALSO = {"cc0": "cc0-1.0", "odbl-1.0": "odbl", "pddl-1.0": "pddl", "odc-by-1.0": "odc-by", "apache": "apache-2.0"}


def license_fields(stated: str) -> dict[str, str]:
    """The fields of a card's header for a licence that somebody has stated.

    Args:
        stated: An id of the Hub in any writing (`CC BY 4.0`), another licence's name, an address, or nothing.

    Returns:
        `license`, and for one that the Hub does not know `license_name` (and `license_link`) besides. A name may have
        the letters a-z alone there, so that one in other letters is written as host names are (`xn--…`, Punycode).
    """
    text = stated.strip()
    name = re.sub(r"[\s_]+", "-", re.sub(r"\b(the|licen[cs]e|version)\b,?", " ", text.lower()).strip())
    name = _ALSO.get(name, name)
    if name in HUB_LICENSES - {"other"}:
        return {"license": name}
    slug = _slug(text)
    if not slug:
        return dict(NOT_STATED)
    link = {"license_link": text} if re.fullmatch(r"https?://[^\s<>\"]+", text) else {}
    return {"license": "other", "license_name": slug, **link}


def _slug(text: str) -> str:
    """A text as a name of the characters a-z, 0-9, `.` and `-`; empty where it has no letter or digit."""
    marked = unicodedata.normalize("NFKD", text).lower()
    letters = "".join(character for character in marked if not unicodedata.combining(character))
    slug = re.sub(r"[^\w.]+|_+", "-", letters).strip("-.")[:_MOST_OF_A_NAME]
    if not slug.isascii():
        slug = f"xn--{slug.encode('punycode').decode()}"
    return slug[:_MOST_OF_A_NAME].rstrip("-.")
