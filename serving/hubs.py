"""ModelScope and Hugging Face: the only module that asks a hub for anything.

Both hubs' own clients do the transfer; here their answers become Listings and
their failures WeightsErrors. Nothing is decided here about which files to take.
A file in transfer is `NAME.incomplete` beside its final name, and the next run
goes on where it ends. huggingface_hub's download functions throw such a rest
away, so its lower function `http_get` is used, which can go on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from serving.weights_errors import (
    Cut,
    Damaged,
    Locked,
    Unfit,
    UnknownModel,
    Unprepared,
    Unreachable,
    WeightsError,
)
from serving.weights_listing import File, Listing

Count = Callable[[int], None]  # told of bytes as they arrive; may raise to stop the transfer
LISTING_SECONDS = 20.0
SYMLINK_MODE = 0o120000
RUN_AGAIN = "Run it again: it goes on where it stopped."
NETWORK = "Check the network and run it again."


class Hub(Protocol):
    """A repository on a hub."""

    @property
    def title(self) -> str: ...
    def listing(self) -> Listing: ...
    def cached(self, listing: Listing, file: File) -> Path | None: ...
    def transfer(self, listing: Listing, file: File, folder: Path, count: Count) -> None: ...


def open_hub(source: str, repo: str) -> Hub:
    return ModelScope(repo) if source == "modelscope" else HuggingFace(repo)


@contextmanager
def _installed(package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise Unprepared(
            f"The package {package} is missing ({error}).", "Run ./serve.sh once: it installs it."
        ) from None


@dataclass(frozen=True, slots=True)
class HuggingFace:
    repo: str
    title: str = "Hugging Face"

    def listing(self) -> Listing:
        with _installed("huggingface_hub"):
            from huggingface_hub import HfApi
        with self._named(Unreachable):
            info = HfApi().model_info(self.repo, files_metadata=True, timeout=LISTING_SECONDS)
        return Listing(
            repo=self.repo,
            revision=info.sha or "main",
            files=tuple(_from_sibling(sibling) for sibling in info.siblings or ()),
        )

    def cached(self, listing: Listing, file: File) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo, file.name, revision=listing.revision)
        return Path(found).resolve() if isinstance(found, str) else None

    def transfer(self, listing: Listing, file: File, folder: Path, count: Count) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()  # progress is counted and shown by the caller
        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it narrates its retries
        rest = folder / f"{file.name}.incomplete"
        if rest.exists() and rest.stat().st_size > file.size:
            rest.unlink()
        with self._named(Cut), rest.open("ab") as out:
            count(out.tell())
            http_get(
                hf_hub_url(self.repo, file.name, revision=listing.revision),
                _Counted(out, count),  # type: ignore[arg-type]  # the part of a file it uses
                resume_size=out.tell(),
                headers={**build_hf_headers(), "Accept-Encoding": "identity"},
                expected_size=file.size,
            )
        rest.replace(folder / file.name)

    @contextmanager
    def _named(self, broken: type[WeightsError]) -> Iterator[None]:
        import httpx2
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        try:
            yield
        except OfflineModeIsEnabled:
            raise Unreachable(
                "HF_HUB_OFFLINE is set, so Hugging Face is not asked.", "Unset it and run it again."
            ) from None
        except GatedRepoError:
            raise self._locked() from None
        except (RepositoryNotFoundError, HFValidationError):
            raise _unknown(self.title, self.repo, "HF_TOKEN") from None
        except HfHubHTTPError as error:
            raise self._refused(error.response.status_code, broken) from None
        except httpx2.HTTPError as error:
            raise _broken(self.title, self.repo, type(error).__name__, broken) from None
        except OSError as error:
            if error.errno is not None:
                raise  # the disk's own
            raise _broken(self.title, self.repo, "an unfinished file", broken) from None
        except (ValueError, KeyError, TypeError):  # its client reads whatever was answered
            raise _broken(self.title, self.repo, "an answer that is not a hub's", broken) from None

    def _locked(self) -> Locked:
        from huggingface_hub import get_token

        page = f"https://huggingface.co/{self.repo}"
        if get_token():
            return Locked(
                f"{self.repo} is gated, and the token that is set does not open it.",
                f"Accept its licence at {page} with the account of that token.",
            )
        return Locked(
            f"{self.repo} is gated on Hugging Face and no token is set.",
            f"Accept its licence at {page}, make a token at https://huggingface.co/settings/tokens "
            "and set HF_TOKEN to it.",
        )

    def _refused(self, status: int, broken: type[WeightsError]) -> WeightsError:
        if status == 401:
            return Locked(
                "Hugging Face does not accept the token that is set.",
                "Make a new one at https://huggingface.co/settings/tokens and set HF_TOKEN to it.",
            )
        if status == 403:
            return self._locked()
        if status == 404 and broken is Unreachable:
            return _unknown(self.title, self.repo, "HF_TOKEN")
        if status == 404:
            return Cut(f"A file of {self.repo} is gone from Hugging Face.", "Run it again.")
        return _broken(self.title, self.repo, f"HTTP {status}", broken)


def _from_sibling(sibling: Any) -> File:
    if sibling.lfs is not None:
        return File(sibling.rfilename, sibling.lfs.size, sha256=sibling.lfs.sha256)
    return File(sibling.rfilename, sibling.size or 0, git_sha1=sibling.blob_id)


class _Counted:
    """A file that says how much is written to it."""

    def __init__(self, file: BinaryIO, count: Count) -> None:
        self._file = file
        self._count = count

    def write(self, data: bytes) -> int:
        written = self._file.write(data)
        self._count(len(data))
        return written

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def truncate(self) -> int:
        """http_get starts the file again: the server did not go on where it was asked to."""
        self._count(self._file.tell() - os.fstat(self._file.fileno()).st_size)
        return self._file.truncate()


@dataclass(frozen=True, slots=True)
class ModelScope:
    repo: str
    title: str = "ModelScope"

    def listing(self) -> Listing:
        with self._named(Unreachable):
            entries = _modelscope().legacy.list_repo_files(self.repo, "model")
        files = (_from_entry(entry) for entry in entries if entry.get("Type") != "tree")
        return Listing(repo=self.repo, revision="master", files=tuple(files))

    def cached(self, listing: Listing, file: File) -> Path | None:
        from modelscope_hub.errors import HubError

        try:
            found = _modelscope().download_file(
                self.repo, "model", file.name, local_files_only=True
            )
        except (HubError, ValueError):
            return None
        return Path(found).resolve()

    def transfer(self, listing: Listing, file: File, folder: Path, count: Count) -> None:
        from modelscope_hub import ProgressCallback

        class Told(ProgressCallback):
            def update(self, size: int) -> None:
                count(size)

        with self._named(Cut):
            _modelscope().downloader.download_file(
                self.repo,
                "model",
                file.name,
                revision=listing.revision,
                cache_dir=folder / ".cache",  # its locks
                local_dir=folder,
                expected_sha256=file.sha256,
                file_size=file.size,
                progress_callbacks=[Told],
            )

    @contextmanager
    def _named(self, broken: type[WeightsError]) -> Iterator[None]:
        with _installed("modelscope"):
            _modelscope()
        import requests
        from modelscope_hub import errors

        try:
            yield
        except errors.FileIntegrityError:
            raise Damaged(
                f"A file of {self.repo} came from ModelScope with the wrong size or hash.",
                "Run it again; if it stays so, use --source huggingface.",
            ) from None
        except errors.NotExistError:
            raise _unknown(self.title, self.repo, "MODELSCOPE_API_TOKEN") from None
        except errors.InvalidParameter as error:
            raise Unfit(f"ModelScope does not take {self.repo!r}: {error.message}.", "") from None
        except (errors.AuthenticationError, errors.PermissionDeniedError):
            raise self._locked() from None
        except (errors.HubError, requests.RequestException) as error:
            raise _broken(self.title, self.repo, type(error).__name__, broken) from None
        except (ValueError, KeyError, TypeError, AttributeError):  # as above
            raise _broken(self.title, self.repo, "an answer that is not a hub's", broken) from None

    def _locked(self) -> Locked:
        return Locked(
            f"ModelScope does not open {self.repo} to this machine.",
            f"Accept its licence at https://modelscope.cn/models/{self.repo} and set "
            "MODELSCOPE_API_TOKEN to a token of that account.",
        )


def _modelscope() -> Any:
    """ModelScope's client. Its settings are read from the environment when it is imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # progress is counted and shown by the caller
    # its default gives up a file after an hour, which a shard of 5 GB takes on a slow line;
    # a transfer that stands still is noticed apart from this
    os.environ.setdefault("MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT", str(7 * 24 * 3600))
    os.environ.setdefault("MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS", "2")  # then the other hub
    from modelscope_hub import HubApi

    logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL)  # it narrates its retries
    return HubApi()


def _from_entry(entry: dict[str, Any]) -> File:
    mode = str(entry.get("Mode") or "")
    symlink = mode.isdigit() and int(mode) & 0o170000 == SYMLINK_MODE
    return File(
        name=str(entry.get("Path") or entry.get("Name") or ""),
        size=int(entry.get("Size") or 0),
        sha256=entry.get("Sha256") or None,
        kind="symlink" if symlink else "file",
    )


def _unknown(title: str, repo: str, token: str) -> UnknownModel:
    return UnknownModel(
        f"{title} has no repository {repo} that is open to you.",
        f"Check its name (./serve.sh --list shows the known ones); if it is private, set {token}.",
    )


def _broken(title: str, repo: str, why: str, broken: type[WeightsError]) -> WeightsError:
    if broken is Cut:
        return Cut(f"The transfer of {repo} from {title} broke off ({why}).", RUN_AGAIN)
    return broken(f"{title} cannot be reached ({why}).", NETWORK)
