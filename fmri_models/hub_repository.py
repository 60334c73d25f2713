"""Folders on the Hub: what is fetched of one, and how one is uploaded, with sentences for what can go wrong."""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    RepoUrl,
    errors,
    snapshot_download,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from .errors import FmriModelsError, check_path, system_sentence
from .names import did_you_mean, one_line
from .progress import download_bars
from .saving import weights_family
from .upload_checks import check_upload

# Arguments of `from_pretrained` that say how files are fetched.
FETCH_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
# Arguments of `save_pretrained` that go with `push_to_hub=True`.
PUSH_OPTIONS = ("repo_id", "private", "token", "revision", "commit_message", "commit_description", "create_pr")

RepoType = Literal["model", "dataset", "space"]
_Result = TypeVar("_Result")
logger = logging.getLogger(__name__)
# What connections raise, of whichever HTTP library huggingface_hub uses: httpx of its version 1, httpx2 of 2.
_HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
# All that asking the Hub raises where the network, the Hub or what was asked for is at fault.
HUB_ERRORS = (HfHubHTTPError, _HTTPError, XetDownloadError, HFValidationError, OSError, ValueError)
# What the Hub answers for a while: it is asked again, and not for longer than somebody waits. The library does so
# itself where it sends large files, and not where it asks for a repository, makes one or commits.
_PASSING_STATUSES = (429, 500, 502, 503, 504)
_WAITS = (1.0, 2.0, 4.0, 8.0)
_LONGEST_WAIT = 20.0
_REPOSITORY_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WEIGHTS_BASES = ("model", "diffusion_pytorch_model")
# What is said of the weights of a pipeline beside its index.
_PIPELINES_INDEX = "model_index.json"
_REPORT_PATTERNS = ("report.json", "report.md", "report.html", "grid.png", ".eval_results/*")
# How the Hub's cache names the folder of a repository, below which it allows commits alone.
_CACHED_REPOSITORY = re.compile(r"(model|dataset|space)s--.+")


class NotFetchedError(FmriModelsError):
    """A repository is not to be had; what the library said is its cause."""


def is_repository_id(text: str) -> bool:
    """Whether a text has the form `user/name`."""
    return _REPOSITORY_ID.fullmatch(text) is not None


def is_folder(name_or_path: str) -> bool:
    """Whether a text is the path of a folder.

    Raises:
        FmriModelsError: It is nothing that can be a path or a repository: empty, too long, or with a NUL character.
    """
    check_path(name_or_path)
    try:
        return Path(name_or_path).is_dir()
    except OSError as error:
        raise FmriModelsError(system_sentence(error, name_or_path)) from error


def is_in_hub_cache(path: str | os.PathLike) -> bool:
    """Whether a path is in a commit of the Hub's cache, wherever that is; nothing may be written there or beside it."""
    return commit_of(path) is not None


def commit_of(path: str | os.PathLike) -> str | None:
    """The commit that a path of the Hub's cache is in; None for all other paths."""
    parts = Path(path).absolute().parts
    found = (
        commit
        for repository, folder, commit in zip(parts, parts[1:], parts[2:], strict=False)
        if _CACHED_REPOSITORY.fullmatch(repository) and folder == "snapshots"
    )
    return next(found, None)


def fetch_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments of `from_pretrained` that say how files are fetched."""
    return {name: kwargs[name] for name in FETCH_OPTIONS if kwargs.get(name) is not None}


def at_revision(place: str, revision: str | None) -> dict[str, Any]:
    """The argument of `from_pretrained` that asks for a branch, tag or commit; a folder has none."""
    return {} if is_folder(place) else {"revision": revision}


def weights_patterns(prefix: str, variant: str | None) -> list[str]:
    """Patterns of the safetensors files of one variant, whole or in shards, and of their index."""
    dotted = f".{variant}" if variant else ""
    return [
        f"{prefix}{base}{ending}"
        for base in _WEIGHTS_BASES
        for ending in (f"{dotted}.safetensors", f"{dotted}-*-of-*.safetensors", f".safetensors.index{dotted}.json")
    ]


def fetch_folder(repo_id: str, patterns: Iterable[str], repo_type: RepoType = "model", **options: Any) -> Path:
    """The folder of the cache with those files of a repository that fit the patterns.

    Args:
        repo_id: `user/name`.
        patterns: What is fetched; nothing else is.
        repo_type: Whether it is a model, a data set or a Space.
        **options: Those of [`FETCH_OPTIONS`].

    Raises:
        NotFetchedError: There is no such repository or revision, it is closed, or there is neither network nor a copy.
    """
    started = time.time()
    with hub_errors_as_sentences(repo_id, options.get("revision"), repo_type):
        shown: dict[str, Any] = {"tqdm_class": bars} if (bars := download_bars(repo_id)) else {}
        options = {"repo_type": repo_type, "allow_patterns": list(patterns), **shown, **options}
        folder = Path(_retried(lambda: snapshot_download(repo_id, **options)))
        _check_arrived_whole(folder, repo_id, started)
    return folder


def local_folder(name_or_path: str, patterns: Iterable[str], **options: Any) -> Path:
    """A folder itself, or that of the cache with what was asked for of a repository; the arguments are as above.

    Raises:
        NotFetchedError: It is neither a folder nor a repository, or as in [`fetch_folder`].
    """
    check_place(name_or_path)
    return Path(name_or_path) if is_folder(name_or_path) else fetch_folder(name_or_path, patterns, **options)


def check_place(name_or_path: str) -> None:
    """Refuses what is neither a folder nor may be a repository.

    Raises:
        NotFetchedError: It is neither.
    """
    if not is_folder(name_or_path) and not is_repository_id(name_or_path):
        raise NotFetchedError(
            f"There is no folder {one_line(name_or_path, 120)}, and it is no repository of the Hub (user/name) either; "
            "check the path."
        )


@contextmanager
def hub_errors_as_sentences(repo_id: str, revision: str | None, repo_type: RepoType = "model") -> Iterator[None]:
    """Turns what the Hub's libraries raise inside the block into a sentence.

    Raises:
        NotFetchedError: Whatever of the repository was asked for is not to be had.
    """
    try:
        yield
    except FmriModelsError:
        raise
    except HUB_ERRORS as error:
        raise NotFetchedError(_not_fetched(repo_id, revision, repo_type, error)) from error


@contextmanager
def uploading_errors_as_sentences(repo_id: str) -> Iterator[None]:
    """Turns what the Hub's libraries raise inside the block, which uploads, into a sentence.

    Raises:
        FmriModelsError: There is no network, or the token may not write there.
    """
    try:
        yield
    except FmriModelsError:
        raise
    except (*HUB_ERRORS, RuntimeError) as error:
        # Of a large file that does not go up, a RuntimeError says the name alone.
        raise FmriModelsError(_not_uploaded(repo_id, error)) from error


class UploadedInSentences:
    """Goes before a library's class with a `push_to_hub` of its own: what it raises is a sentence."""

    def push_to_hub(self, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """Saves it and uploads what was saved; the arguments are those of the library's `push_to_hub`.

        Raises:
            FmriModelsError: It can't be saved, there is no network, or the token may not write there.
        """
        with uploading_errors_as_sentences(repo_id):
            return super().push_to_hub(repo_id, *args, **kwargs)  # type: ignore[misc]


def list_files(repo_id: str, revision: str | None = None, token: str | bool | None = None) -> list[str] | None:
    """Names of a repository's files; None if the Hub can't be asked."""
    try:
        # One request; a listing of the tree is asked for again and again where nobody answers.
        siblings = HfApi().model_info(repo_id, revision=revision, token=token).siblings
        return [file.rfilename for file in siblings or ()]
    except HUB_ERRORS:
        return None


def upload(
    folder: Path,
    files: Sequence[str],
    repo_id: str,
    commit_message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_description: str | None = None,
    create_pr: bool = False,
    repo_type: RepoType = "model",
    additions: Mapping[str, bytes] | None = None,
) -> CommitInfo:
    """Uploads files of a folder in one commit, into a repository that is made where there is none.

    Args:
        folder: Where the files are.
        files: Their names, relative to the folder.
        repo_id: `user/name`, or a name in the namespace of the token's user.
        commit_message: First line of the commit.
        private: Whether a repository that is made is private; None takes the namespace's default.
        token: Token; None takes the one that is logged in.
        revision: Branch, which is made where there is none; None takes the main one.
        commit_description: Further lines of the commit.
        create_pr: Propose the commit instead of making it.
        repo_type: Whether it is a model or a data set.
        additions: Name in the repository ▶ what goes up in place of the folder's file, or besides.

    Raises:
        FmriModelsError: A file may not be published (see [`check_upload`]), there is no network, or the token may not
            write there.
    """
    check_upload(folder, files, additions)
    contents: dict[str, Path | bytes] = {name: Path(folder) / name for name in files} | dict(additions or {})
    repo_id = make_repository(repo_id, repo_type, private, token, revision).repo_id
    no_longer_true: list[str] = []
    if repo_type == "model" and not _is_proposal(revision):
        no_longer_true = _no_longer_true(files_there(repo_id, repo_type, token, revision), contents)
    return commit(
        repo_id,
        contents,
        no_longer_true,
        repo_type,
        token,
        commit_message=commit_message,
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
    )


def make_repository(
    repo_id: str,
    repo_type: RepoType,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    **options: Any,
) -> RepoUrl:
    """Makes a repository, and a branch of it, where there is none.

    Args:
        repo_id: `user/name`, or a name in the namespace of the token's user.
        repo_type: What it is.
        private: Whether a repository that is made is private; None takes the namespace's default.
        token: Token; None takes the one that is logged in.
        revision: Branch; None takes the main one.
        **options: Further arguments of `HfApi.create_repo`, for a repository that is made.

    Returns:
        Its address, which knows its name with the namespace.

    Raises:
        FmriModelsError: There is no network, the token may not write there, or it should be private and is there
            already as a public one.
    """
    api = HfApi()
    where: dict[str, Any] = {"repo_type": repo_type, "token": token}
    with uploading_errors_as_sentences(repo_id):
        made = _retried(lambda: api.create_repo(repo_id, private=private, exist_ok=True, **options, **where))
        if revision is not None and not _is_proposal(revision):
            _retried(lambda: api.create_branch(made.repo_id, branch=revision, exist_ok=True, **where))
    # The Hub leaves one that is there as it is, and what was meant for few would be open to all.
    if private and not is_private(made.repo_id, repo_type, token):
        raise FmriModelsError(
            f"{made.repo_id} is there already and is public, and nothing was uploaded; make it private in its settings "
            "on the Hub, or give another name."
        )
    return made


def files_there(
    repo_id: str, repo_type: RepoType, token: str | bool | None = None, revision: str | None = None
) -> list[str]:
    """Names of the files of a repository that is about to be written to.

    Raises:
        FmriModelsError: There is no network, or the token does not open it.
    """
    api = HfApi()
    asked: dict[str, Any] = {"repo_type": repo_type, "revision": revision, "token": token}
    with uploading_errors_as_sentences(repo_id):
        found = _retried(lambda: api.repo_info(repo_id, **asked))
    return [file.rfilename for file in getattr(found, "siblings", None) or ()]


def commit(
    repo_id: str,
    contents: Mapping[str, Path | bytes],
    deleted: Collection[str],
    repo_type: RepoType,
    token: str | bool | None = None,
    **options: Any,
) -> CommitInfo:
    """Makes one commit of what was checked before.

    Args:
        repo_id: `user/name`.
        contents: Name in the repository ▶ a file here, or what it holds.
        deleted: Names of files that leave the repository.
        repo_type: What it is.
        token: Token; None takes the one that is logged in.
        **options: Further arguments of `HfApi.create_commit`.

    Raises:
        FmriModelsError: There is no network, or the token may not write there.
    """
    api = HfApi()
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, content) for name, content in sorted(contents.items())
    ]
    operations += [CommitOperationDelete(name) for name in sorted(deleted)]
    where: dict[str, Any] = {"repo_id": repo_id, "repo_type": repo_type, "token": token}
    with uploading_errors_as_sentences(repo_id):
        return _retried(lambda: api.create_commit(operations=operations, **where, **options))


def space_variables(repo_id: str, token: str | bool | None = None) -> dict[str, str]:
    """Name ▶ value of the variables that a Space has in its settings.

    Raises:
        FmriModelsError: There is no network, or the token does not open it.
    """
    api = HfApi()
    with uploading_errors_as_sentences(repo_id):
        found = _retried(lambda: api.get_space_variables(repo_id, token=token))
    return {name: variable.value for name, variable in found.items()}


def set_space_variable(repo_id: str, name: str, value: str, token: str | bool | None = None) -> None:
    """Sets a variable of a Space, which is then started again.

    Raises:
        FmriModelsError: There is no network, or the token may not write there.
    """
    api = HfApi()
    with uploading_errors_as_sentences(repo_id):
        _retried(lambda: api.add_space_variable(repo_id, name, value, token=token))


def is_private(repo_id: str, repo_type: RepoType, token: str | bool | None = None) -> bool:
    """Whether a repository that is there is private.

    Raises:
        NotFetchedError: There is no such repository, it is closed, or there is no network.
    """
    api = HfApi()
    with hub_errors_as_sentences(repo_id, None, repo_type):
        return bool(_retried(lambda: api.repo_info(repo_id, repo_type=repo_type, token=token).private))


def upload_saved(
    save_directory: str | os.PathLike,
    files: Sequence[str],
    what: str,
    options: dict[str, Any],
    additions: Mapping[str, bytes] | None = None,
) -> CommitInfo:
    """Uploads what `save_pretrained(push_to_hub=True)` has written, to `repo_id` or the folder's name.

    Args:
        save_directory: The folder.
        files: What was written, relative to it.
        what: What it is, for the commit's message.
        options: Those of [`PUSH_OPTIONS`] that the caller gave.
        additions: As in [`upload`].
    """
    folder = Path(save_directory).absolute()
    options = {"repo_id": folder.name, "commit_message": f"Upload {what}", **options}
    if options["commit_message"] is None:
        options["commit_message"] = f"Upload {what}"
    return upload(folder, files, additions=additions, **options)


def split_push_options(
    kwargs: dict[str, Any], others: Collection[str] = (), method: str = "save_pretrained"
) -> dict[str, Any]:
    """Takes the arguments that go with `push_to_hub=True` out of those of `save_pretrained`.

    Args:
        kwargs: What the caller gave; these arguments are removed.
        others: Further arguments that the library's own `save_pretrained` takes.
        method: What takes them.

    Raises:
        FmriModelsError: An argument is none of these; the library would pass over it.
    """
    known = [*PUSH_OPTIONS, *others]
    if unknown := next((name for name in kwargs if name not in known), None):
        raise FmriModelsError(f"{method} takes no {unknown!r}.{did_you_mean(unknown, [*known, 'push_to_hub'])}")
    return {name: kwargs.pop(name) for name in PUSH_OPTIONS if name in kwargs}


def _is_proposal(revision: str | None) -> bool:
    """Whether a revision is a proposed commit and no branch."""
    return (revision or "").startswith("refs/pr")


def _retried(ask: Callable[[], _Result]) -> _Result:
    """Asks the Hub, and again after a while where it answers that it can't just now."""
    end = time.monotonic() + _LONGEST_WAIT
    for wait in _WAITS:
        try:
            return ask()
        except HUB_ERRORS as error:
            response = _response(error)
            if response is None or response.status_code not in _PASSING_STATUSES:
                raise
            stated = str(response.headers.get("Retry-After", ""))
            wait = float(stated) if stated.isdecimal() else wait
            if time.monotonic() + wait > end:
                raise
            logger.warning("The Hub answers %s and is asked again in %g s.", response.status_code, wait)
        time.sleep(wait)
    return ask()


def _response(error: BaseException | None) -> Any:
    """The Hub's answer that an error, or what caused it, is about; None where there was none."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return response
        error = error.__cause__
    return None


def _no_longer_true(there: Sequence[str], uploaded: Collection[str]) -> list[str]:
    """Files of a repository that an upload replaces without having their names: former shards, a former report.

    A reader would find two sets of weights, or a report on others than these.
    """
    families = {(str(PurePosixPath(name).parent), weights_family(PurePosixPath(name).name)) for name in uploaded}

    def is_superseded(name: str) -> bool:
        path = PurePosixPath(name)
        family = weights_family(path.name)
        if family is not None:
            return (str(path.parent), family) in families
        return _PIPELINES_INDEX in uploaded and any(fnmatchcase(name, each) for each in _REPORT_PATTERNS)

    return [name for name in there if name not in uploaded and is_superseded(name)]


def _check_arrived_whole(folder: Path, repo_id: str, since: float) -> None:
    """Compares what has just been fetched with the digests by which the cache names it; the library looks at sizes.

    Raises:
        NotFetchedError: A file differs; it is taken out of the cache.
    """
    for path in folder.rglob("*"):
        content = path.resolve()
        # Where the cache can't link, nothing says what a file's digest is.
        if not path.is_symlink() or content.parent.name != "blobs" or not content.is_file():
            continue
        if content.stat().st_mtime < since - 1 or _digest_is(content):
            continue
        content.unlink()
        path.unlink()
        raise NotFetchedError(
            f"{one_line(path.relative_to(folder))} of {repo_id} arrived damaged from the Hub, and was removed; fetch "
            "it again."
        )


def _digest_is(content: Path) -> bool:
    """Whether a file of the cache has the digest that is its name: that of large files, or git's of small ones."""
    size = content.stat().st_size
    made = {64: hashlib.sha256(), 40: hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)}.get(len(content.name))
    if made is None:
        return True
    with content.open("rb") as file:
        while chunk := file.read(2**20):
            made.update(chunk)
    return made.hexdigest() == content.name


def _not_fetched(repo_id: str, revision: str | None, repo_type: RepoType, error: BaseException) -> str:
    at = "" if revision is None else f" at {revision}"
    what = {"model": "repository", "dataset": "data set", "space": "Space"}[repo_type]
    option = "" if repo_type == "model" else f"--repo-type {repo_type} "
    if isinstance(error, RevisionNotFoundError):
        return f"{repo_id} on the Hub has no revision {revision}; name a branch, a tag or a commit of it."
    response = _response(error)
    stated = "" if response is None else response.headers.get("X-Error-Message", "")
    # To whoever sends no token, the Hub does not say which of the two it is.
    is_anonymous = getattr(response, "status_code", None) == 401 and not stated.startswith("Invalid credentials")
    if isinstance(error, RepositoryNotFoundError) or is_anonymous:
        return (
            f"There is no {what} {repo_id} on the Hub, or it is private and your token does not open it; check the "
            "name, or log in with `hf auth login`."
        )
    if response is not None and response.status_code == 401:
        return (
            f"The Hub does not know your token, with which {repo_id}{at} was asked for; log in anew with "
            "`hf auth login`, or take the token out of HF_TOKEN where you need none."
        )
    if response is not None and response.status_code >= 400 and not isinstance(error, OfflineModeIsEnabled):
        return f"The Hub does not give {repo_id}{at} ({_reason(error)}); try again later, or check your token."
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, _HTTPError, XetDownloadError, OSError)):
        return (
            f"{repo_id}{at} is neither a folder here nor complete in the cache, and the Hub could not be asked "
            f"({_reason(error)}); check the name and the network, or download it before with `hf download "
            f"{option}{repo_id}`."
        )
    return f"{repo_id}{at} could not be fetched from the Hub ({_reason(error)}); check the name."


def _not_uploaded(repo_id: str, error: BaseException) -> str:
    status = getattr(_response(error), "status_code", None)
    if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
        return (
            f"The Hub does not let your token write to {repo_id} ({_reason(error)}); log in with `hf auth login`, "
            "with a token that may write there."
        )
    if status == 402:
        return (
            f"The Hub makes {repo_id} only for accounts that pay for it ({_reason(error)}); see its prices, or name "
            "one that is there already."
        )
    return (
        f"{repo_id} could not be uploaded to the Hub ({_reason(error)}); check the name and the network and try again."
    )


def _reason(error: BaseException) -> str:
    # What goes around a cause names a file, at most.
    while isinstance(error, (RuntimeError, LocalEntryNotFoundError)) and isinstance(error.__cause__, HUB_ERRORS):
        error = error.__cause__
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."), 200)
