"""`fmri-models data info`: what a trial table holds, as text, as JSON, and as pictures to look at."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FmriModelsError
from ..names import one_line
from ..terminal_text import size_text
from .console import SeedOption

if TYPE_CHECKING:
    from ..data.table import TrialTable

_MOST_REGIONS, _MOST_TIMES = 15, 6
_MOST_LABEL, _BAR = 32, 40
_WORDS = {
    "allowed": "may be passed on",
    "forbidden": "may not be passed on",
    "unknown": "of which it is not known whether they may be passed on",
}
_DEFAULT_PICTURES = 48


def add_info(actions: argparse._SubParsersAction) -> None:
    """Adds the action to `fmri-models data`."""
    parser = actions.add_parser(
        "info",
        help="subjects, voxels, regions, noise ceilings, trials, splits; pictures to look at",
        description="Print what is in a trial table: licence and terms, where it comes from, and of each subject\n"
        "trials, regions, positions and noise ceilings; then its splits. --page and --histogram write pictures.",
        epilog="examples:\n  fmri-models data info outputs/demo/data\n"
        "  fmri-models data info outputs/demo/data --page stimuli.png --histogram ceilings.png\n"
        "  fmri-models data info user/name --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="DIR", type=Path, help="the trial table, or its repository, user/name")
    parser.add_argument("--page", metavar="FILE.png", type=Path, help="write a page of stimuli, with their ids")
    parser.add_argument(
        "--pictures",
        type=int,
        metavar="N",
        help=f"how many pictures the page shows at most (default: {_DEFAULT_PICTURES})",
    )
    parser.add_argument(
        "--seed",
        type=int,
        action=SeedOption,
        metavar="N",
        help="draw which stimuli the page shows (default: at even distances in the table)",
    )
    parser.add_argument(
        "--histogram", metavar="FILE.png", type=Path, help="write a histogram of the noise ceilings of each subject"
    )
    parser.set_defaults(run=run_info, usage_error=parser.error)


def run_info(args: argparse.Namespace) -> dict[str, Any]:
    from ..data.table import TrialTable
    from ..data.table_facts import subject_facts, table_facts

    _check_options(args)
    table = TrialTable.open(args.table)
    for file in (args.page, args.histogram):
        if file is not None:
            _check_file(file, table)
    facts = table_facts(table)
    subjects = {name: subject_facts(table, name) for name in table.subjects}
    splits = {name: about_split(table, name) for name in table.split_names()}
    for line in _table_lines(facts):
        print(line)
    for name, subject in subjects.items():
        for line in _subject_lines(name, subject):
            print(line)
    for sentence in [*([] if table.windows is None else [table.windows.sentence()]), *table.cautions]:
        print(one_line(sentence, most=2000))
    for name, split in splits.items():
        print(split_line(name, split))
    for finding in table.findings:
        print(one_line(finding, most=2000))
    return {
        **facts,
        "subjects": subjects,
        "splits": splits,
        "modality": table.modality,
        "windows": table.metadata.get("windows"),
        "cautions": table.cautions,
        "findings": table.findings,
        **_pictures(args, table),
    }


def about_split(table: "TrialTable", name: str) -> dict[str, Any]:
    """What is known of a split."""
    return {
        "folds": table.num_folds(name),
        "trials_of_first_fold": {
            part: sum(len(table.trials(subject, part, name)) for subject in table.subjects)
            for part in ("train", "validation", "test")
        },
        "repeats_stimuli": table.repeats_stimuli(name) or None,
        "how": table.split_how(name),
    }


def split_line(name: str, about: Mapping[str, Any]) -> str:
    """A split in a line, of what [`about_split`] says."""
    counts = ", ".join(f"{count} {part}" for part, count in about["trials_of_first_fold"].items())
    of_first = " in the first" if about["folds"] > 1 else ""
    repeats = f" {one_line(about['repeats_stimuli'], most=2000)}" if about["repeats_stimuli"] else ""
    how = about["how"]
    made = {key: how[key] for key in ("by", "embedder", "clusters", "neighbours", "tau") if key in how}
    by = f" ({', '.join(f'{key} {_short(value)}' for key, value in made.items())})" if "embedder" in made else ""
    return f"split {name}{by}: {counted(about['folds'], 'fold')}, {counts}{of_first}.{repeats}"


def counted(number: int, noun: str, several: str = "") -> str:
    """Such as `1 fold`, `10 folds`; `several` is the plural where that isn't the noun with an s."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def _check_options(args: argparse.Namespace) -> None:
    if args.page is None and (args.pictures is not None or args.seed is not None):
        args.usage_error("--pictures and --seed say what the page of stimuli shows; give --page FILE.png, too")
    if args.page is not None and args.histogram is not None and args.page.absolute() == args.histogram.absolute():
        args.usage_error("--page and --histogram are the same file; give two names")


def _check_file(file: Path, table: "TrialTable") -> None:
    """Refuses a name that is none of a PNG file, or lies in the table's folder, whose files are its own."""
    from ..output_folders import check_apart

    if file.suffix.lower() != ".png":
        raise FmriModelsError(f"The picture {one_line(file)} would be a PNG file; give a name that ends in .png.")
    check_apart(file, [table.path])


def _pictures(args: argparse.Namespace, table: "TrialTable") -> dict[str, Any]:
    """Writes the pictures that were asked for, and says what they show."""
    told: dict[str, Any] = {}
    if args.page is not None:
        from ..data.stimulus_page import write_stimulus_page

        page = write_stimulus_page(
            table, args.page, _DEFAULT_PICTURES if args.pictures is None else args.pictures, args.seed
        )
        if page is None:
            print(f"no page was written: no stimulus of {one_line(table.name)} has a picture")
        else:
            damaged = f"; {len(page.unreadable)} can't be read" if page.unreadable else ""
            print(f"saved {one_line(args.page, 5000)} ({len(page.shown):,} of {page.pictures:,} pictures{damaged})")
        told["page"] = None if page is None else {**vars(page)}
    if args.histogram is not None:
        from ..data.ceiling_histogram import write_ceiling_histogram

        voxels = {}
        for subject in table.subjects:
            try:
                voxels[subject] = table.voxels(subject)
            except FmriModelsError:
                # Its lines say so already.
                continue
        shown = write_ceiling_histogram(table.name, voxels, args.histogram)
        if shown:
            print(f"saved {one_line(args.histogram, 5000)} ({counted(len(shown), 'subject')})")
        else:
            print(f"no histogram was written: no noise ceiling of {one_line(table.name)} is known")
        told["histogram"] = {"file": args.histogram, "subjects": shown} if shown else None
    return told


def _table_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    stimuli, pictures = facts["stimuli"], facts["pictures"]
    with_picture = f", {pictures or 'none'} with a picture"
    of_pictures = "" if pictures == stimuli else with_picture
    kind = "simulated" if facts["simulated"] else "measured"
    yield f"{one_line(facts['name'])} ({kind}), {stimuli} stimuli{of_pictures}"
    yield f"fingerprint {facts['fingerprint']}"
    yield f"licence {one_line(facts['license'], 500) or 'not stated'}; {_terms_in_words(facts['terms'])}"
    if facts["source"]:
        yield f"source {one_line(facts['source'], 500)}"
    yield _prepared_in_words(facts["prepared"])


def _terms_in_words(terms: Mapping[str, Any] | None) -> str:
    if terms is None:
        return "no other terms are known"
    said = []
    if about := terms.get("responses"):
        said.append(f"terms of {about['title']}: responses {_WORDS[about['responses']]}")
    if about := terms.get("pictures"):
        of = "" if about == terms.get("responses") else f"terms of {about['title']}: "
        said.append(f"{of}pictures {_WORDS[about['pictures']]}")
    urls = list(dict.fromkeys(about["url"] for about in terms.values() if about["url"]))
    return ", ".join(said) + (f" ({', '.join(urls)})" if urls else "")


def _prepared_in_words(prepared: Mapping[str, Any]) -> str:
    package = f"fmri_models {one_line(prepared['package_version'] or 'of unknown version', 40)}"
    if prepared["script"] is None:
        by = one_line(prepared["by"] or "an unknown program", 200)
        return f"written by {by}, {package}; its source files are not recorded"
    script = f"{one_line(prepared['script'], 200)}, version {one_line(prepared['script_version'], 20)}"
    by = f"prepared by {script}, {package}"
    if prepared["source_files"] is None:
        return f"{by}; its source files are not recorded"
    size = size_text(prepared["source_bytes"])
    return f"{by}, from {counted(prepared['source_files'], 'file')} ({size}), {prepared['checksums']:,} with SHA-256"


def _subject_lines(name: str, about: Mapping[str, Any]) -> Iterator[str]:
    counts = ", ".join(f"{count} {part}" for part, count in about["trials_of_parts"].items())
    dropped = f" ({about['dropped_voxels']} were dropped)" if about["dropped_voxels"] else ""
    line = (
        f"{name}: {about['voxels']} voxels{dropped}, {about['trials']} trials ({counts}), "
        f"{counted(about['sessions'], 'session')}, {_shown_in_words(about['shown_times'])}"
    )
    if about["mean_noise_ceiling"] is None:
        yield f"{line}, noise ceiling unknown"
    else:
        yield (
            f"{line}, mean noise ceiling {about['mean_noise_ceiling']:.3f} of {about['noise_ceiling_repetitions']} "
            f"averaged repetitions ({about['noise_ceiling_source']})"
        )
    yield f"  {_runs_in_words(about)}"
    if about["voxels_unreadable"]:
        yield f"  voxels: {one_line(about['voxels_unreadable'], 1000)}"
        return
    yield from (f"  {line}" for line in _region_lines(about))
    yield f"  {_position_in_words(about)}"
    yield from (f"  {line}" for line in _ceiling_lines(about["noise_ceiling"]))


def _shown_in_words(times: Sequence[int] | None) -> str:
    if times is None:
        return "no stimulus shown"
    fewest, most = times
    return f"each stimulus shown {fewest if fewest == most else f'{fewest} to {most}'}x"


def _runs_in_words(about: Mapping[str, Any]) -> str:
    by_times = list(about["stimuli_by_times_shown"].items())
    shown = [
        f"{counted(count, 'stimulus', 'stimuli')}{' shown' if place == 0 else ''} {_times(int(times))}"
        for place, (times, count) in enumerate(by_times[:_MOST_TIMES])
    ]
    if rest := sum(count for _, count in by_times[_MOST_TIMES:]):
        shown.append(f"{rest:,} more often")
    imagined = f"; {counted(about['imagery_trials'], 'trial')} of imagery" if about["imagery_trials"] else ""
    runs = f"{counted(about['runs'], 'run')} in {counted(about['sessions'], 'session')}"
    return f"{runs}{'; ' if shown else ''}{', '.join(shown)}{imagined}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _region_lines(about: Mapping[str, Any]) -> Iterator[str]:
    regions = about["regions"]
    if not regions:
        yield "regions: none known"
        return
    named, rest = regions[:_MOST_REGIONS], regions[_MOST_REGIONS:]
    lines = [(one_line(each["label"], _MOST_LABEL), each["voxels"], each["share"]) for each in named]
    if rest:
        count, share = (sum(each[key] for each in rest) for key in ("voxels", "share"))
        lines.append((f"{counted(len(rest), 'region')} more", count, share))
    if outside := about["voxels_in_no_region"]:
        lines.append(("in no region", outside, outside / about["voxels"]))
    width = max(len("region"), *(len(label) for label, *_ in lines))
    yield f"{'region':<{width}}  {'voxels':>9}   share"
    for label, count, share in lines:
        yield f"{label:<{width}}  {count:>9,}  {100 * share:5.1f}%"


def _position_in_words(about: Mapping[str, Any]) -> str:
    places, grid = about["coordinates"], about["grid"]
    known = "positions: not known"
    if places is not None:
        count = "all voxels" if places["voxels"] == about["voxels"] else f"{places['voxels']:,} voxels"
        known = f"positions: of {count}, in mm ({one_line(places['space'], 80) or 'space not stated'})"
    if grid is None:
        return known
    shape = " x ".join(map(str, grid["shape"]))
    size = " x ".join(f"{side:g}" for side in grid["voxel_size_mm"])
    return f"{known}; from volumes of {shape} voxels of {size} mm, mask {grid['mask_sha256'][:12]}"


def _ceiling_lines(ceilings: Mapping[str, Any] | None) -> Iterator[str]:
    if ceilings is None:
        yield "noise ceilings: not known"
        return
    low, middle, high = ceilings["quartiles"]
    unknown = f", {ceilings['unknown']:,} unknown" if ceilings["unknown"] else ""
    yield (
        f"noise ceilings: {counted(ceilings['voxels'], 'voxel')}{unknown}; lowest {ceilings['lowest']:.3f}, quartiles "
        f"{low:.3f} {middle:.3f} {high:.3f}, highest {ceilings['highest']:.3f}"
    )
    edges, counts = ceilings["histogram"]["edges"], ceilings["histogram"]["voxels"]
    most = max(counts)
    for first, last, count in zip(edges, edges[1:], counts, strict=False):
        bar = "#" * max(1 if count else 0, round(_BAR * count / most))
        yield f"{first:.1f} to {last:.1f}  {count:>9,}  {bar}".rstrip()


def _short(value: str | int | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else one_line(value, 80)
