"""Sends a folder to a repository on the Hub, in one commit; what is there besides stays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import MissingExtra, RequestError, ServerError
from segdeploy.serve.hub.card import card_text
from segdeploy.serve.hub.contents import CARD, Contents, contents_to_push

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class PushRequest:
    folder: Path
    repository: str  # OWNER/NAME
    public: bool = False  # of a repository that is new
    revision: str | None = None  # a branch
    message: str = "Files with their records, by segdeploy"

    def demand_sense(self) -> None:
        if not REPOSITORY.fullmatch(self.repository):
            raise RequestError(
                f"{self.repository!r} is no repository of the Hub; expected OWNER/NAME, as in acme/streets"
            )


@dataclass(frozen=True)
class Pushed:
    contents: Contents
    card: str | None  # None: the folder has one of its own
    url: str = ""  # of the commit; empty where nothing was sent


def prepare(request: PushRequest) -> Pushed:
    """Say what would be sent, without the network."""
    request.demand_sense()
    contents = contents_to_push(request.folder)
    return Pushed(contents, None if contents.own_card else card_text(contents, request.repository))


def push(request: PushRequest) -> Pushed:
    """Make the repository if there is none, and send all files in one commit."""
    ready = prepare(request)
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", "hub", "sending files to the Hub") from error
    api = HfApi(library_name="segdeploy")
    files = [
        CommitOperationAdd(path.as_posix(), ready.contents.content(path)) for path in ready.contents.files
    ]
    if ready.card is not None:
        files.append(CommitOperationAdd(CARD, ready.card.encode(errors="backslashreplace")))
    try:
        api.create_repo(request.repository, private=not request.public, exist_ok=True)
        if request.revision:
            api.create_branch(request.repository, branch=request.revision, exist_ok=True)
        commit = api.create_commit(
            request.repository, files, commit_message=request.message, revision=request.revision
        )
    except LocalTokenNotFoundError as error:
        raise ServerError("the Hub asks who you are: hf auth login, or give HF_TOKEN") from error
    except HfHubHTTPError as error:
        raise hub_refusal(request.repository, error) from error
    except Exception as error:  # no network, proxies, certificates: the types change with its HTTP library
        raise ServerError(f"{request.repository} could not be sent: {first_line_of(error)}") from error
    return Pushed(ready.contents, ready.card, str(commit.commit_url))


def hub_refusal(repository: str, error: Exception) -> ServerError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return ServerError(
            f"the Hub does not let you write to {repository} ({status}): hf auth login with a token that may write"
        )
    return ServerError(f"the Hub answered {status or 'no status'} for {repository}: {first_line_of(error)}")


def first_line_of(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
