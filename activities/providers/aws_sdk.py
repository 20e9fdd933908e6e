"""boto3 as Bedrock needs it: credentials of one environment mapping, bodies as bytes, calls that can be cut off."""

# Neither boto3 nor botocore has types; nothing untyped leaves this module.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedBaseClass=false

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import boto3
from botocore.awsrequest import AWSHTTPConnection, AWSHTTPConnectionPool, AWSHTTPSConnection, AWSHTTPSConnectionPool
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import (
    AssumeRoleWithWebIdentityProvider,
    ContainerProvider,
    EnvProvider,
    create_credential_resolver,
)
from botocore.eventstream import ParserError as FrameError
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from botocore.tokens import FrozenAuthToken
from botocore.utils import get_environ_proxies

from .chains import aws_file, aws_profile

MAX_CONNECTIONS = 1000
_OPERATION = "bedrock-runtime.ConverseStream"
_ROLE_VARIABLES = (
    ("web_identity_token_file", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("role_arn", "AWS_ROLE_ARN"),
    ("role_session_name", "AWS_ROLE_SESSION_NAME"),
)


_lines = threading.Lock()
"""Held while a connection goes from one call to another."""


class CutError(Exception):
    """The call was cut off by its owner, who no longer listens."""


class Line:
    """What one call sends, and its connection, which any thread may cut to end the one that waits for it."""

    def __init__(self, body: bytes, read_seconds: float) -> None:
        self.body = body
        self.read_seconds = read_seconds
        self.content_type = ""
        """Of the answer, as soon as its head is there."""
        self.has_head = False
        self.is_cut = False
        self._connection: Any = None
        self._response: Any = None

    def answered(self, response: Any) -> None:
        """The head has come."""
        self._response = response.raw
        self.content_type = str(response.headers.get("content-type", ""))
        self.has_head = response.status_code < 300

    def taken_by(self, connection: Any) -> None:
        """This connection carries the call from now on.

        Raises:
            CutError: the call is cut already.
        """
        with _lines:
            connection.line = self
            self._connection = connection
            is_cut = self.is_cut
        if is_cut:
            connection.close()
            raise CutError("The call was cut off.")

    def cut(self) -> None:
        """End the call; closing alone would not wake a thread that reads."""
        with _lines:
            self.is_cut = True
            # Back in the pool, the connection may carry another call by now.
            if self._connection is None or self._connection.line is not self:
                return
            connected = self._connection.sock
            with suppress(OSError):
                if connected is not None:
                    connected.shutdown(socket.SHUT_RDWR)
        # Where the server wants the connection closed, only the response still knows the socket.
        if connected is None and self._response is not None:
            with suppress(OSError, ValueError, RuntimeError):
                self._response.shutdown()

    def hang_up(self) -> None:
        """Close a response that was not read to its end; one that was is in the pool already."""
        if self._response is not None:
            with suppress(OSError, ValueError):
                self._response.close()


_here = threading.local()
"""The line of the call that this thread makes: botocore has no other way to hand it down."""


class _Connection(AWSHTTPConnection):
    def connect(self) -> None:
        super().connect()
        _line().taken_by(self)

    def request(self, *args: Any, **kwargs: Any) -> Any:
        _line().taken_by(self)
        return super().request(*args, **kwargs)


class _SecureConnection(AWSHTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _line().taken_by(self)

    def request(self, *args: Any, **kwargs: Any) -> Any:
        _line().taken_by(self)
        return super().request(*args, **kwargs)


def _line() -> Line:
    return _here.line


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(AWSHTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Http(URLLib3Session):
    """botocore's own HTTP, over connections that can be cut."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._pool_classes_by_scheme: Any = {"http": _Pool, "https": _SecurePool}
        self._manager.pool_classes_by_scheme = self._pool_classes_by_scheme

    def close(self) -> None:
        # Cleared pools close their connections when they are collected, whenever that is.
        for manager in (self._manager, *self._proxy_managers.values()):
            for key in manager.pools.keys():  # noqa: SIM118
                manager.pools[key].close()
        super().close()


class Bedrock:
    """One client; made by the first call, in its thread, because looking for credentials may ask the network."""

    def __init__(
        self, env: Mapping[str, str], *, region: str, endpoint: str, proxy: str, connect_seconds: float
    ) -> None:
        self._env = env
        self._region = region
        self._endpoint = endpoint
        self._proxies = {"http": proxy, "https": proxy} if proxy else None
        self._connect_seconds = connect_seconds
        self._lock = threading.Lock()
        self._client: Any = None
        self._http: Any = None

    def events(self, model: str, line: Line) -> Iterator[Mapping[str, Any]]:
        """The events of one answer, as they come.

        Raises:
            FrameError: an event cannot be read; and whatever botocore and urllib3 raise.
        """
        _here.line = line
        client = self._ready()
        try:
            yield from client.converse_stream(modelId=model)["stream"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # What botocore's parser makes of an event that is JSON of another shape.
            raise FrameError(str(error)) from error

    @property
    def endpoint(self) -> str:
        """The address, as far as it is known."""
        return self._client.meta.endpoint_url if self._client is not None else self._endpoint

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._http.close()

    def _ready(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connected()
            return self._client

    def _connected(self) -> Any:
        session = _session(self._env, self._region, self._proxies)
        token = self._env.get("AWS_BEARER_TOKEN_BEDROCK", "").strip()
        session.register_component("token_provider", _Token(token))
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=self._connect_seconds,
            max_pool_connections=MAX_CONNECTIONS,
            proxies=self._proxies,
            # Said here, because botocore would look for the token in the environment of the process.
            signature_version="bearer" if token else "v4",
            ignore_configured_endpoint_urls=True,
        )
        client: Any = boto3.Session(botocore_session=session, region_name=self._region).client(
            "bedrock-runtime", config=config, endpoint_url=self._endpoint or None
        )
        url = client.meta.endpoint_url
        self._http = _Http(
            proxies=self._proxies if self._proxies is not None else get_environ_proxies(url),
            verify=session.get_config_variable("ca_bundle") or self._env.get("REQUESTS_CA_BUNDLE") or True,
            timeout=(self._connect_seconds, None),
            max_pool_connections=MAX_CONNECTIONS,
        )
        client.meta.events.register(f"before-call.{_OPERATION}", _hand_over)
        client.meta.events.register(f"before-send.{_OPERATION}", self._send)
        return client

    def _send(self, request: Any, **_: Any) -> Any:
        response = self._http.send(request)
        _line().answered(response)
        return response


def _hand_over(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Put our bytes in the place of the body that botocore has built, before it is signed."""
    params["body"] = _line().body
    context["read_timeout"] = _line().read_seconds


class _Token:
    """The bearer token of the mapping, and no other."""

    def __init__(self, token: str) -> None:
        self._token = FrozenAuthToken(token) if token else None

    def load_token(self, **_: Any) -> Any:
        """What botocore asks for."""
        return self._token


def _session(env: Mapping[str, str], region: str, proxies: Mapping[str, str] | None) -> Any:
    """A session that takes from the environment what `env` holds, and nothing from that of the process."""
    variables = {name: (key, None, default, kind) for name, (key, _, default, kind) in _variables()}
    session = Session(session_vars=variables, profile=aws_profile(env) or None)
    for name, (_, variable, _, _) in _variables():
        names: Sequence[str] = (variable,) if isinstance(variable, str) else variable or ()
        value = next((env[one] for one in names if env.get(one, "").strip()), None)
        if value is not None and name != "profile":
            session.set_config_variable(name, value)
    session.set_config_variable("config_file", str(aws_file(env, "AWS_CONFIG_FILE", "config")))
    session.set_config_variable("credentials_file", str(aws_file(env, "AWS_SHARED_CREDENTIALS_FILE", "credentials")))
    session.set_config_variable("region", region)
    if proxies:
        session.set_default_client_config(Config(proxies=dict(proxies)))
    session.register_component("credential_provider", _credentials(session, env, region))
    return session


def _variables() -> Any:
    return BOTOCORE_DEFAUT_SESSION_VARIABLES.items()


def _credentials(session: Any, env: Mapping[str, str], region: str) -> Any:
    """botocore's chain, its members that read the environment of the process replaced."""
    resolver = create_credential_resolver(session, region_name=region)
    resolver.remove("env")
    resolver.insert_before("assume-role", EnvProvider(environ=_stripped(env)))
    resolver.remove("assume-role-with-web-identity")
    resolver.insert_after("assume-role", _web_identity(session, env, region))
    resolver.insert_after("container-role", ContainerProvider(environ=_stripped(env)))
    # Removes the first, which is not ours.
    resolver.remove("container-role")
    resolver.remove("ec2-credentials-file")
    resolver.remove("boto-config")
    if env.get("AWS_EC2_METADATA_DISABLED", "").strip().lower() == "true":
        resolver.remove("iam-role")
    return resolver


def _stripped(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value.strip() for name, value in env.items() if name.startswith("AWS_") and value.strip()}


def _web_identity(session: Any, env: Mapping[str, str], region: str) -> Any:
    profile = aws_profile(env) or "default"
    given = {key: env[name].strip() for key, name in _ROLE_VARIABLES if env.get(name, "").strip()}

    def config() -> Any:
        known = session.full_config
        profiles = known.get("profiles", {})
        return {**known, "profiles": {**profiles, profile: {**profiles.get(profile, {}), **given}}}

    def client(service: str, **options: Any) -> Any:
        return session.create_client(service, **{"region_name": region, **options})

    return AssumeRoleWithWebIdentityProvider(
        load_config=config, client_creator=client, profile_name=profile, cache={}, disable_env_vars=True
    )
