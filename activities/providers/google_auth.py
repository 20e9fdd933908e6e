"""Google's application default credentials, found by the variables of a run and refreshed through its proxy."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import google.auth
import httpx2
from google.auth.credentials import Credentials
from google.auth.exceptions import DefaultCredentialsError, TransportError
from google.auth.transport import Request, Response
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from .chains import google_file

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TOKEN_SECONDS = 30.0
"""For one request for a token; nothing can cancel it."""


@dataclass(frozen=True, slots=True)
class Chain:
    """What the chain of credentials gave."""

    credentials: Credentials
    project: str | None


def chain(env: Mapping[str, str], client: httpx2.Client) -> Chain:
    """The credentials of the file that `env` leads to, else those of the machine.

    Raises:
        GoogleAuthError: there are none, or the file does not hold any.
    """
    path = google_file(env)
    if path is None:
        # The metadata server is next door: no proxy, and the SDK's own requests.
        return Chain(*cast("Any", google.auth).default(scopes=SCOPES))
    request = _TokenRequest(client)
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        return Chain(_Refreshed(_loaded(info, request), request), None)
    except (OSError, ValueError, AttributeError) as error:
        raise DefaultCredentialsError(f"{path} holds no credentials of Google: {error}") from error


def _loaded(info: dict[str, Any], request: Request) -> Credentials:
    match info.get("type"):
        case "service_account":
            return cast("Any", service_account).Credentials.from_service_account_info(info, scopes=SCOPES)
        case "authorized_user":
            # Its scopes were settled when the user logged in.
            return cast("Any", user_credentials).Credentials.from_authorized_user_info(info)
        case _:
            with warnings.catch_warnings():
                # It warns of files from strangers; this one the user has named.
                warnings.simplefilter("ignore", DeprecationWarning)
                found = cast("Any", google.auth).load_credentials_from_dict(info, scopes=SCOPES, request=request)
            return found[0]


class _Refreshed(Credentials):
    """Credentials whose tokens come through our client, whichever the SDK would use."""

    def __init__(self, own: Credentials, request: Request) -> None:
        super().__init__()
        self._own: Any = own
        self._own_request = request
        self._quota_project_id: str | None = self._own.quota_project_id

    def refresh(self, request: Request) -> None:
        """Get a new token."""
        self._own.refresh(self._own_request)
        self.token, self.expiry = self._own.token, self._own.expiry


class _TokenRequest(Request):
    """How google-auth sends its requests."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Response:
        seconds = min(timeout or TOKEN_SECONDS, TOKEN_SECONDS)
        try:
            return _TokenResponse(self._client.request(method, url, content=body, headers=headers, timeout=seconds))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise TransportError(error) from error


class _TokenResponse(Response):
    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def data(self) -> bytes:
        return self._response.content
