"""What is known of the terms of published data sets: may they be passed on, and what is said of trained weights.

Facts as of November 2026, each with how it was checked; what nobody confirmed is `unknown` or `unclear`. None of it is
legal advice. `docs/responsible_use.md` shows the table.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Redistribution: TypeAlias = Literal["allowed", "forbidden", "unknown"]
Weights: TypeAlias = Literal["allowed", "forbidden", "unclear"]

_READ = "terms read in a public copy, November 2026"
_FIELD_READ = "licence field of its files read, November 2026"
_RULE_READ = "OpenNeuro's rule read, its own statement not, November 2026"
_NOT_CHECKED = "not confirmed"
_UNKNOWN_CONSENT = "not known here; the consent forms were not read"
_OPENNEURO_CONSENT = (
    "not known here for weights; whoever uploads to OpenNeuro declares to have the ethics permissions for sharing the "
    "data publicly"
)


@dataclass(frozen=True)
class DataTerms:
    """The terms of a data set.

    Attributes:
        name: Short name, as tables are named.
        title: Name for people.
        license: Licence or agreement, as its publishers name it.
        redistribution: Whether the recorded responses may be passed on (`allowed`: by anybody, under the conditions
            that `says` names).
        weights: Whether the terms allow weights that were trained on the data to be shared. Hardly any agreement speaks
            of them, so that most are `unclear`; what the participants agreed to is another question, see `consent`.
        consent: What is known of the participants' consent.
        url: Where the terms are.
        checked: When and how this was checked, or that it was not.
        says: What the terms say, in a sentence.
        stimuli: Whether the pictures or films that were shown may be passed on, which trial tables contain.
    """

    name: str
    title: str
    license: str
    redistribution: Redistribution
    weights: Weights
    consent: str
    url: str
    checked: str
    says: str = ""
    stimuli: Redistribution = "unknown"


@dataclass(frozen=True)
class _Known:
    """A data set and how it is recognised.

    Attributes:
        terms: Its terms.
        names: Names of tables, also with more words behind or before (`nsd` for `nsd-subj01`).
        exact: Names of tables that are this data set's only as a whole, as they are ordinary words.
        marks: Ids, addresses and long names that stand in a table's name, licence or source.
        acronym: What a licence or source may call it in capitals, at its beginning or after "from".
    """

    terms: DataTerms
    names: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    acronym: str = ""


def terms_of(table_name: str, license: str = "", source: str = "") -> DataTerms | None:
    """The terms of the data set that a trial table was made of.

    A data set is known by the table's name, by its ids and addresses wherever they stand, and by its long name where
    the text does not merely compare with it ("voxels chosen as in the Natural Scenes Dataset"). Of several data sets,
    the one that allows least counts. A table of an unknown data set whose own licence forbids redistribution has just
    that.

    Args:
        table_name: Name of the table.
        license: What the table says of its licence.
        source: What the table says of its origin.

    Returns:
        The terms, or None where none are known, as with anybody's own data.
    """
    words = _words(table_name)
    if words[:1] == ["simulated"] and source.strip() == "fmri-models simulate":
        # A part of such a table may have a longer name.
        return SCENES if words[:2] == ["simulated", "scenes"] else None
    found = [
        known.terms for known in reversed(_KNOWN) if _is(known, words, (table_name, license, source), (license, source))
    ]
    if forbids_redistribution(license) and all(terms.redistribution != "forbidden" for terms in found):
        about = found[0] if found else _unknown_data(table_name)
        return replace(
            about,
            license=license,
            redistribution="forbidden",
            weights="unclear",
            says="The licence that the trial table itself states forbids to pass it on.",
            checked="stated by the trial table",
        )
    order = ("forbidden", "unknown", "allowed")
    return min(found, key=lambda terms: order.index(terms.redistribution), default=None)


def shows_built_in_scenes(table_name: str, source: str) -> bool:
    """Whether a trial table was simulated with the scenes that the package draws, each of them always as one picture.

    Args:
        table_name: Name of the table.
        source: What the table says of its origin.
    """
    return terms_of(table_name, "", source) is SCENES


def forbids_redistribution(license: str) -> bool:
    """Whether a licence says in words that the data may not be passed on."""
    return _FORBIDDING.search(_plain(license)) is not None


_FORBIDDING = re.compile(
    r"\b(no|without) (further )?(re-?distribution|re-?sharing)\b"
    r"|\b(re-?distribution|sharing) (of the data |of this data ?set )?(is |are )?"
    r"(not (permitted|allowed)|forbidden|prohibited)\b|\bnot for (re-?)?distribution\b"
    r"|\b(not|never|cannot|can't|don't) (to )?(be )?(re-?distributed?|re-?shared?|passed on|pass on|given to others)\b"
    r"|\bnot to be (distributed|shared)\b|\b(must|may|shall|should|can|do|will) not (be )?(distributed?|shared?)\b"
    r"|\bnot redistributable\b"
)
# What stands before a name where it is compared with, not taken from.
_COMPARING = re.compile(
    r"\b(like|unlike|non|not|no|never|without|after|as|similar|similarly|than|style|inspired|model+ed|resembl\w*|imitat\w*|"
    r"simulat\w*|compar\w*|versus|vs|protocols?|designs?|approved|approval|instead|following|matched|matching)\b"
)


def _is(known: _Known, words: list[str], texts: tuple[str, ...], statements: tuple[str, ...]) -> bool:
    """Whether a table is of a data set, by the words of its name, by all texts, or by its licence and source."""
    if any(words == _words(name) for name in (*known.names, *known.exact)):
        return True
    if any(_begins_or_ends(words, _words(name)) for name in known.names):
        return True
    if any(_mentions(text, mark) for text in texts for mark in known.marks):
        return True
    return bool(known.acronym) and any(_comes_from(text, known.acronym) for text in statements)


def _begins_or_ends(words: list[str], name: list[str]) -> bool:
    """Whether a table's name begins or ends with a data set's, and does not compare with it (`nsd-like`)."""
    if words[: len(name)] == name:
        others = words[len(name) :]
    elif words[-len(name) :] == name:
        others = words[: -len(name)]
    else:
        return False
    return not any(_COMPARING.fullmatch(word) for word in others)


def _mentions(text: str, mark: str) -> bool:
    """Whether a text has an id, address or name as whole words, in a clause that does not compare with it."""
    plain = _plain(text)
    for match in re.finditer(rf"(?<![a-z0-9]){re.escape(mark)}(?![a-z0-9])", plain):
        clause = re.split(r"[;]|\. ", plain[: match.start()])[-1]
        if any(character in mark for character in "/:") or not _COMPARING.search(clause):
            return True
    return False


def _comes_from(text: str, acronym: str) -> bool:
    """Whether a text begins with an acronym, as names of licences do, or says that the data are from it."""
    name = re.escape(acronym)
    what = (
        r"(data|data ?set|betas|trials|terms|dua|licen[cs]e|agreement|subj\w*|sub-\w+|core|general|imagery|synthetic)"
    )
    text = _one_spaced(text)
    if re.match(rf"(the )?{name}(\s*$|\s*[,;:(]|\s+(?i:{what})\b)", text):
        return True
    return any(
        not _COMPARING.search(text[: match.start()].lower())
        for match in re.finditer(rf"\b(?i:from|part of|subset of|betas of|trials of) (the )?{name}\b", text)
    )


def _one_spaced(text: str) -> str:
    """A text with single spaces, in one writing of its letters."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _plain(text: str) -> str:
    return _one_spaced(text).lower()


def _words(name: str) -> list[str]:
    """The words of a table's name, without what separates them."""
    return [word for word in re.split(r"[^a-z0-9]+", _plain(name)) if word]


def _unknown_data(table_name: str) -> DataTerms:
    return DataTerms(table_name, table_name, "", "unknown", "unclear", _UNKNOWN_CONSENT, "", "")


def _open_neuro(
    name: str,
    title: str,
    number: str,
    checked: str = _RULE_READ,
    stimuli: Redistribution = "unknown",
    of_stimuli: str = "",
) -> DataTerms:
    return DataTerms(
        name=name,
        title=title,
        license="CC0 1.0 (OpenNeuro)",
        redistribution="allowed",
        weights="allowed",
        consent=_OPENNEURO_CONSENT,
        url=f"https://openneuro.org/datasets/{number}",
        checked=checked,
        says=f"In the public domain, without conditions. {of_stimuli}".strip(),
        stimuli=stimuli,
    )


_NSD = DataTerms(
    name="nsd",
    title="Natural Scenes Dataset",
    license="NSD Terms and Conditions (data sharing and usage agreement)",
    redistribution="forbidden",
    weights="unclear",
    consent=_UNKNOWN_CONSENT,
    url="https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions",
    checked=_READ,
    says=(
        "Research and education alone; neither the data set nor its components may be distributed to anybody or sold. "
        "Trained weights are not mentioned; authors have published theirs."
    ),
)
_HCP = DataTerms(
    name="hcp",
    title="Human Connectome Project, Young Adult: open access data",
    license="WU-Minn HCP Consortium Open Access Data Use Terms",
    redistribution="allowed",
    weights="unclear",
    consent=_UNKNOWN_CONSENT,
    url="https://www.humanconnectome.org/study/hcp-young-adult/document/wu-minn-hcp-consortium-open-access-data-use-terms",
    checked=_READ,
    says=(
        "Original and derived data may be passed on under these same terms, which everybody who uses them accepts; no "
        "attempt to identify anybody. Trained weights are not mentioned."
    ),
)
_CRCNS = DataTerms(
    name="vim-1",
    title="vim-1 (Kay et al., 2008)",
    license="CRCNS terms of use",
    redistribution="forbidden",
    weights="unclear",
    consent=_UNKNOWN_CONSENT,
    url="https://crcns.org/terms",
    checked="the archive's terms read, November 2026; the page of the data set may say otherwise",
    says=(
        "For science alone; no redistribution but to direct collaborators and one's students. Trained weights are not "
        "mentioned."
    ),
    stimuli="forbidden",
)
_CNEUROMOD = DataTerms(
    name="cneuromod",
    title="Courtois NeuroMod",
    license="CC0 1.0 for the five subjects who share openly; a data transfer agreement for sub-04",
    redistribution="unknown",
    weights="unclear",
    consent="the project publishes its consent forms; each participant chose between open and restricted sharing",
    url="https://docs.cneuromod.ca/latest/contents/access.html",
    checked="page on access and a licence file read, November 2026",
    says=(
        "Sub-01, sub-02, sub-03, sub-05 and sub-06 may be passed on; all six together need an agreement between "
        "institutions. Films and games are their owners'."
    ),
)
SCENES = DataTerms(
    name="simulated-scenes",
    title="Built-in scenes, simulated",
    license="Apache-2.0",
    redistribution="allowed",
    weights="allowed",
    consent="nobody's: no human brain was recorded",
    url="https://www.apache.org/licenses/LICENSE-2.0",
    checked="drawn and simulated by this package",
    says="Pictures and responses are computed by this package.",
    stimuli="allowed",
)


def _unconfirmed(name: str, title: str, url: str = "", says: str = "") -> DataTerms:
    return DataTerms(name, title, "not confirmed", "unknown", "unclear", _UNKNOWN_CONSENT, url, _NOT_CHECKED, says=says)


_IMAGENET = "The pictures are ImageNet's, whose terms let researchers give them to colleagues who accept them, too."

_KNOWN = (
    # What is more special stands behind what it is a part of, as the last that fits counts.
    _Known(
        _NSD,
        names=("nsd", "natural-scenes-dataset", "naturalscenesdataset"),
        marks=(
            "natural scenes dataset",
            "natural scenes data set",
            "natural-scenes-dataset",
            "naturalscenesdataset",
            "naturalscenesdataset.org",
            "s3://natural-scenes-dataset",
            "pscotti/naturalscenesdataset",
            "pscotti/mindeyev2",
            "clane9/nsd-flat",
            "medarc/nsd-flat-wds",
            "nsddata_betas",
            "nsdgeneral",
            "nsd terms and conditions",
            "nsd data access agreement",
            "cvnlab.slite.page/p/ib6bsew_7o",
            "10.1038/s41593-021-00962-x",
            "a massive 7t fmri dataset to bridge cognitive neuroscience",
        ),
        acronym="NSD",
    ),
    _Known(
        replace(
            _NSD,
            name="nsd-synthetic",
            title="NSD-Synthetic",
            checked=f"{_READ}; they name this part",
        ),
        names=("nsd-synthetic", "nsdsynthetic"),
        marks=("nsd-synthetic", "nsdsynthetic"),
    ),
    _Known(
        replace(
            _NSD,
            name="nsd-imagery",
            title="NSD-Imagery",
            checked="NSD's terms read, November 2026; that they cover this part was not confirmed",
        ),
        names=("nsd-imagery", "nsdimagery"),
        marks=("nsd-imagery", "nsdimagery"),
    ),
    _Known(
        replace(
            _NSD,
            name="algonauts2023",
            title="Algonauts Project 2023 (responses of NSD)",
            checked=f"{_READ}; the challenge's own rules were not",
        ),
        names=("algonauts2023", "algonauts-2023"),
        marks=("algonauts 2023", "algonauts project 2023", "algonauts_2023", "algonauts-2023"),
    ),
    _Known(
        _HCP,
        names=("hcp-ya", "hcp-young-adult", "hcp1200", "hcp-s1200"),
        exact=("hcp",),
        marks=(
            "wu-minn hcp",
            "hcp open access data use terms",
            "hcp-open-access-data-use-terms",
            "wu-minn-hcp-consortium-open-access-data-use-terms",
            "hcp young adult",
            "hcp-young-adult",
            "medarc/hcp-flat-wds",
        ),
    ),
    _Known(
        _unconfirmed("hcp-lifespan", "Human Connectome Project, other studies (Development, Aging, Early Psychosis)"),
        names=("hcp-a", "hcp-aging", "hcp-d", "hcp-development", "hcp-ep", "hcp-lifespan"),
        marks=("hcp-aging", "hcp-development", "hcp lifespan", "human connectome project in"),
    ),
    _Known(
        replace(
            _HCP,
            name="hcp-7t-movie",
            title="Human Connectome Project, Young Adult: films at 7 T",
            says=f"{_HCP.says} The films are their owners'.",
        ),
        names=("hcp-7t-movie", "hcp7t", "hcp-7t"),
    ),
    _Known(
        replace(
            _HCP,
            name="hcp-restricted",
            title="Human Connectome Project, Young Adult: restricted data",
            license="WU-Minn HCP Consortium Restricted Data Use Terms",
            redistribution="forbidden",
            weights="unclear",
            url="https://www.humanconnectome.org/study/hcp-young-adult/document/wu-minn-hcp-consortium-restricted-data-use-terms",
            checked="overview of the terms read, November 2026",
            says=(
                "Family structure, exact age and more: everybody who uses them applies and is approved, so that they "
                "can't be passed on; combinations that make a person recognisable may not be published."
            ),
        ),
        names=("hcp-restricted",),
        marks=("hcp restricted", "restricted data use terms", "wu-minn-hcp-consortium-restricted-data-use-terms"),
    ),
    _Known(_CRCNS, names=("vim-1", "vim1"), marks=("vim-1", "crcns.org/data-sets/vc/vim-1", "10.6080/k0qn64nw")),
    _Known(
        replace(_CRCNS, name="vim-2", title="vim-2 (Nishimoto et al., 2011)"),
        names=("vim-2", "vim2"),
        marks=("vim-2", "crcns.org/data-sets/vc/vim-2", "10.6080/k00z715x"),
    ),
    _Known(
        DataTerms(
            name="digits69",
            title="Hand-written sixes and nines (van Gerven et al., 2010)",
            license="none stated where the file is published; the original came under a data use agreement",
            redistribution="forbidden",
            weights="unclear",
            consent=_UNKNOWN_CONSENT,
            url="https://github.com/ChangdeDu/DGMM",
            checked="not confirmed; treated as forbidden until its authors say otherwise",
            says="For research, not to be passed on.",
        ),
        names=("digits69", "digit69"),
        marks=("digit69_28x28.mat", "changdedu/dgmm", "neural decoding with hierarchical generative models"),
    ),
    _Known(
        DataTerms(
            name="laion-fmri",
            title="LAION-fMRI",
            license="CC0 1.0 for responses; a closed licence for pictures",
            redistribution="allowed",
            weights="allowed",
            consent=_UNKNOWN_CONSENT,
            url="https://laion-fmri.hebartlab.com/laion_fmri_package/license.html",
            checked=_READ,
            says=(
                "Responses, anatomy and metadata are in the public domain; the pictures come under an agreement that "
                "forbids passing them on, commercial use and training general-purpose models."
            ),
            stimuli="forbidden",
        ),
        names=("laion-fmri", "laionfmri"),
        marks=("laion-fmri", "laion-fmri.hebartlab.com"),
    ),
    _Known(
        _open_neuro(
            "bold5000",
            "BOLD5000 (Chang et al., 2019)",
            "ds001499",
            _FIELD_READ,
            stimuli="forbidden",
            of_stimuli="The pictures are of SUN, COCO and ImageNet, with terms of their own; those of ImageNet let "
            "researchers give them to colleagues who accept them, too.",
        ),
        names=("bold5000",),
        marks=("ds001499", "bold5000", "bold5000.org", "public fmri dataset while viewing 5000 visual images"),
    ),
    _Known(
        _open_neuro(
            "god",
            "Generic Object Decoding (Horikawa and Kamitani, 2017)",
            "ds001246",
            stimuli="forbidden",
            of_stimuli=_IMAGENET,
        ),
        names=("generic-object-decoding", "genericobjectdecoding", "kamitani-god"),
        exact=("god",),
        marks=("ds001246", "generic object decoding", "generic decoding of seen and imagined objects"),
    ),
    _Known(
        _open_neuro(
            "dir",
            "Deep Image Reconstruction (Shen et al., 2019)",
            "ds001506",
            _FIELD_READ,
            stimuli="forbidden",
            of_stimuli=_IMAGENET,
        ),
        names=("deep-image-reconstruction", "deepimagereconstruction", "kamitani-dir"),
        marks=("ds001506", "deep image reconstruction"),
    ),
    _Known(
        _open_neuro(
            "things-fmri",
            "THINGS-fMRI (Hebart et al., 2023)",
            "ds004192",
            "OpenNeuro's rule and what loaders of others state read, November 2026",
            stimuli="forbidden",
            of_stimuli="The THINGS pictures come for research, in an archive with a password, and are treated as "
            "not to be passed on.",
        ),
        names=("things-fmri", "thingsfmri", "things-data"),
        marks=(
            "ds004192",
            "things-fmri",
            "things-data, a multimodal collection",
            "10.25452/figshare.plus.c.6161151",
        ),
    ),
    _Known(
        _open_neuro(
            "nod",
            "Natural Object Dataset (Gong et al., 2023)",
            "ds004496",
            _FIELD_READ,
            stimuli="forbidden",
            of_stimuli=_IMAGENET,
        ),
        names=("natural-object-dataset",),
        exact=("nod",),
        marks=("ds004496", "natural object dataset"),
    ),
    _Known(
        _open_neuro(
            "bmd",
            "BOLD Moments (Lahner et al., 2024)",
            "ds005165",
            _FIELD_READ,
            of_stimuli="The clips are given out by a form.",
        ),
        names=("bold-moments", "boldmoments"),
        exact=("bmd",),
        marks=("ds005165", "bold moments"),
    ),
    _Known(
        DataTerms(
            name="mosaic",
            title="MOSAIC (Lahner et al., 2025)",
            license="that of each of its eight data sets",
            redistribution="unknown",
            weights="unclear",
            consent=_UNKNOWN_CONSENT,
            url="https://mosaic.csail.mit.edu",
            checked=_NOT_CHECKED,
            says="Seven of its data sets are in the public domain; NSD's responses may not be passed on.",
        ),
        names=("mosaic", "mosaic-fmri"),
        marks=("s3://mosaicfmri", "mosaic.csail.mit.edu"),
    ),
    _Known(
        _open_neuro("nfed", "Natural Facial Expressions (Chen et al., 2024)", "ds005047", _FIELD_READ),
        names=("nfed",),
        marks=("ds005047",),
    ),
    _Known(
        _open_neuro(
            "faces",
            "Faces (VanRullen and Reddy, 2019)",
            "ds001761",
            _FIELD_READ,
            of_stimuli="The pictures are CelebA's.",
        ),
        names=("vanrullen-faces",),
        marks=("ds001761",),
    ),
    _Known(
        _open_neuro("had", "Human Action Dataset", "ds004488"), names=("human-action-dataset",), marks=("ds004488",)
    ),
    _Known(
        _open_neuro("spacetop", "Spacetop", "ds005256"),
        names=("spacetop",),
        marks=("ds005256", "spacetop"),
    ),
    _Known(
        _open_neuro("tgbh", "The Grand Budapest Hotel", "ds003017", of_stimuli="The film is its owners'."),
        names=("tgbh", "grand-budapest-hotel"),
        marks=("ds003017",),
    ),
    _Known(
        DataTerms(
            name="studyforrest",
            title="studyforrest",
            license="PDDL 1.0",
            redistribution="allowed",
            weights="allowed",
            consent=_UNKNOWN_CONSENT,
            url="https://www.studyforrest.org",
            checked="statement of its first release read, November 2026; those of later ones not",
            says="The responses are in the public domain, and derived data may be passed on. The film is its owners'.",
        ),
        names=("studyforrest",),
        marks=("studyforrest", "studyforrest.org"),
    ),
    _Known(_CNEUROMOD, names=("cneuromod",), marks=("cneuromod", "courtois neuromod", "courtois-neuromod")),
    _Known(
        replace(
            _CNEUROMOD,
            name="algonauts2025",
            title="Algonauts Project 2025 (responses of CNeuroMod)",
        ),
        names=("algonauts2025", "algonauts-2025"),
        marks=("algonauts 2025", "algonauts project 2025", "algonauts_2025", "algonauts-2025"),
    ),
    _Known(
        _unconfirmed("brains", "Hand-written characters (Schoenmakers et al., 2013)", "https://data.ru.nl"),
        names=("schoenmakers2013",),
        marks=("schoenmakers et al",),
    ),
    _Known(
        _unconfirmed("miyawaki2008", "Miyawaki et al., 2008", "https://github.com/KamitaniLab/VBCCA"),
        names=("miyawaki2008", "miyawaki"),
        marks=(
            "kamitanilab/vbcca",
            "visual image reconstruction from human brain activity using a combination of multiscale",
        ),
    ),
    _Known(
        DataTerms(
            name="haxby2001",
            title="Haxby et al., 2001",
            license="CC BY-SA 3.0",
            redistribution="allowed",
            weights="unclear",
            consent=_UNKNOWN_CONSENT,
            url="http://www.pymvpa.org/datadb/tutorial_data.html",
            checked="statement of a copy of it (PyMVPA) read, November 2026",
            says="May be passed on with its authors' names, under the same licence. Trained weights are not mentioned.",
        ),
        names=("haxby2001", "haxby"),
        marks=("ds000105", "distributed and overlapping representations of faces and objects"),
    ),
    _Known(
        DataTerms(
            name="wen2018",
            title="Wen et al., 2018 (films)",
            license="CC0 1.0",
            redistribution="allowed",
            weights="allowed",
            consent=_UNKNOWN_CONSENT,
            url="https://purr.purdue.edu/publications/2809",
            checked="page of the data set read in a public copy, November 2026",
            says="In the public domain, without conditions. Clips of others may have owners.",
        ),
        names=("wen2018", "cc2017"),
        marks=("purr.purdue.edu/publications/2809",),
    ),
    _Known(
        _unconfirmed(
            "stns",
            "Doctor Who (Seeliger et al., 2019)",
            "https://data.ru.nl",
            "Agreements of its archive that were read forbid redistribution; which of them holds was not confirmed.",
        ),
        names=("stns", "doctor-who", "brainstream-doctor-who"),
    ),
    _Known(
        _unconfirmed(
            "eeg-voa",
            "EEG-VOA (Spampinato et al., 2017)",
            "https://github.com/perceivelab/eeg_visual_classification",
            "No licence stands where the files are published. " + _IMAGENET,
        ),
        names=("eeg-voa", "eeg_voa"),
        marks=("perceivelab/eeg_visual_classification", "perceivelab/ eeg_visual_classification"),
    ),
    _Known(
        _unconfirmed(
            "things-eeg",
            "THINGS-EEG2 (Gifford et al., 2022)",
            "https://osf.io/3jk45",
            "The THINGS pictures have terms of their own.",
        ),
        names=("things-eeg", "things_eeg", "thingseeg", "things-eeg2"),
        marks=("osf.io/3jk45", "10.1016/j.neuroimage.2022.119754"),
    ),
    _Known(
        _unconfirmed("natview", "NATVIEW EEG-fMRI", "https://fcon_1000.projects.nitrc.org/indi/retro/nat_view.html"),
        names=("natview", "nat-view"),
        marks=("natview",),
    ),
)

DATA_TERMS = (*(known.terms for known in _KNOWN), SCENES)
