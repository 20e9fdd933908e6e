"""An S3 server over real HTTP on loopback that can be away for a while and then has what it had."""

# moto and werkzeug's server have no types that strict checking could use; nothing untyped leaves this module.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

KEY = "AKIATESTTESTTESTTEST"
SECRET = "secret-of-a-test-0123456789"

_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_SLOW = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"

_quiet = logging.getLogger("werkzeug")
_quiet.setLevel(logging.ERROR)


class S3Server:
    """A server with one bucket; what it holds survives `stop` and `start`."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self.requests: Counter[str] = Counter()
        """By method."""
        self.refusal: tuple[str, bytes] | None = None
        """Answers everything in place of the store."""
        self._store: Any = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        """What makes AWS tools use this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = make_server("127.0.0.1", self._port, self._answer, True, request_handler=MotoRequestHandler)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more: who connects is refused."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def deny(self) -> None:
        """Answer everything with 403, as for credentials that have expired."""
        self.refusal = ("403 Forbidden", _DENIED)

    def slow_down(self) -> None:
        """Answer everything with 503."""
        self.refusal = ("503 Slow Down", _SLOW)

    def keys(self) -> list[str]:
        """The names of all objects."""
        found = self.client().list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return [str(one["Key"]) for one in found]

    def client(self) -> Any:
        """A client of the server that is not the code under test."""
        return boto3.Session().client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )

    def __enter__(self) -> Self:
        self.start()
        self.client().create_bucket(Bucket=self.bucket)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.requests[environ["REQUEST_METHOD"]] += 1
        if self.refusal is None:
            return self._store(environ, start_response)
        status, body = self.refusal
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]
