"""Large payloads in a bucket of S3 or of a server that speaks like it."""

# Neither boto3 nor botocore has types; nothing untyped leaves this module.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import threading
import uuid
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.exceptions import ConnectionError as NoConnectionError

from ...core.failures import StorageError, UsageError
from .base import Storage

CONNECT_SECONDS = 3
READ_SECONDS = 15
ATTEMPTS = 2
MAX_CONNECTIONS = 32
_ID = "storage-id"
_ABSENT = {"NoSuchKey", "404", "NotFound"}
_EXISTS = {"PreconditionFailed", "ConditionalRequestConflict"}
_DENIED = {
    "AccessDenied",
    "403",
    "Forbidden",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_HINT = "see that it can be reached (AWS_ENDPOINT_URL_S3, AWS_REGION), and that the network is up"
_CREDENTIALS_HINT = (
    "correct the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role); "
    "they need s3:GetObject, s3:PutObject and s3:ListBucket"
)

T = TypeVar("T")


class S3Storage(Storage):
    """Objects below one prefix of a bucket; safe for any number of processes and machines.

    Region, endpoint and credentials come from where every AWS tool looks for them.

    Raises:
        UsageError: the AWS profile cannot be read.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        super().__init__(f"s3://{bucket}/{prefix}".rstrip("/"), hint=_HINT)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._id: str | None = None
        self._id_lock = threading.Lock()
        try:
            self._s3: Any = _client()
        except (BotoCoreError, ValueError) as error:
            raise UsageError(
                f"PERSTACK_STORAGE names {self.location}, but the AWS settings cannot be used: {error}",
                code="storage.setting",
                hint="correct AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_S3 or the AWS configuration file",
            ) from error

    @property
    def storage_id(self) -> str:
        """The identity of this prefix, made on first use; asking proves that the bucket can be read and written."""
        with self._id_lock:
            if self._id is None:
                # First the write: who may not list a bucket is told of an absent object that it is forbidden.
                self._made_once(_ID, f"{uuid.uuid4().hex}\n".encode())
                found = self._read(_ID)
                if found is None:
                    raise self._unavailable("used", f"{_ID} was written and is not there")
                self._id = found.decode().strip()
            return self._id

    def _made_once(self, name: str, content: bytes) -> None:
        try:
            self._ask("written", lambda: self._put(name, content, IfNoneMatch="*"))
        except _RefusedError as error:
            if error.code not in _EXISTS:
                raise self._refusal("written", error) from error

    def _write(self, name: str, content: bytes) -> None:
        try:
            self._ask("written", lambda: self._put(name, content))
        except _RefusedError as error:
            raise self._refusal("written", error) from error

    def _put(self, name: str, content: bytes, **condition: str) -> None:
        self._s3.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content, **condition)

    def _read(self, name: str) -> bytes | None:
        def read() -> bytes:
            return self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()

        try:
            return self._ask("read", read)
        except _RefusedError as error:
            if error.code in _ABSENT:
                return None
            raise self._refusal("read", error) from error

    def _names(self, prefix: str) -> list[str]:
        top = f"{self._prefix}named/"

        def read() -> list[str]:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=top + prefix)
            return [str(one["Key"]).removeprefix(top) for page in pages for one in page.get("Contents", ())]

        try:
            return self._ask("listed", read)
        except _RefusedError as error:
            raise self._refusal("listed", error) from error

    def _ask(self, action: str, request: Callable[[], T]) -> T:
        try:
            return request()
        except ClientError as error:
            raise _RefusedError(error) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise self._unavailable(action, "there are no AWS credentials", hint=_CREDENTIALS_HINT) from error
        except NoConnectionError as error:
            endpoint = self._s3.meta.endpoint_url
            raise self._unavailable(action, f"no connection to {endpoint} ({type(error).__name__})") from error
        except (BotoCoreError, OSError) as error:
            # A body that breaks off raises what the transport raises.
            raise self._unavailable(action, str(error) or type(error).__name__) from error

    def _refusal(self, action: str, error: "_RefusedError") -> StorageError:
        if error.code == "NoSuchBucket":
            hint = "make the bucket, or correct PERSTACK_STORAGE or AWS_ENDPOINT_URL_S3"
            return self._unavailable(action, f"there is no bucket {self._bucket}", hint=hint)
        if error.code in _DENIED or error.status == 403:
            return self._unavailable(action, f"access was denied ({error.code})", hint=_CREDENTIALS_HINT)
        return self._unavailable(action, f"{error.code} ({error.status}): {error.text}")


class _RefusedError(Exception):
    """The server answered, but not with what it was asked for."""

    def __init__(self, error: ClientError) -> None:
        answer: Any = error.response
        super().__init__(str(error))
        self.code = str(answer.get("Error", {}).get("Code", "?"))
        self.text = str(answer.get("Error", {}).get("Message", ""))[:200]
        self.status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _client() -> Any:
    # A session of our own: the default one is shared by the process and not safe to make clients with from threads.
    session = boto3.Session()
    s3 = _made(session, {})
    host = urlsplit(s3.meta.endpoint_url).hostname or ""
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return s3
    # Elsewhere a bucket is rarely a name of its own in the DNS.
    return _made(session, {"addressing_style": "path"})


def _made(session: Any, addressing: dict[str, str]) -> Any:
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=MAX_CONNECTIONS,
        # Content is checked against its name when it is read; other makers' servers often know no checksum trailers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3=addressing,
    )
    return session.client("s3", config=config)
