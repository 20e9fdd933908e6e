"""Connecting to Temporal: address and credentials, payload conversion, and where the SDK's own log goes."""

import asyncio
import functools
import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_core import to_json
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, GetSystemInfoRequest
from temporalio.client import Client, GrpcCompression
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    ExternalStorage,
    JSONPlainPayloadConverter,
    StorageDriver,
)
from temporalio.envconfig import ClientConfigProfile, ClientConnectConfig
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError, RPCStatusCode

from ..core.failures import ServerError

DEFAULT_NAMESPACE = "default"
MINIMUM_SERVER = (1, 29)
CONNECT_SECONDS = 5.0
EXTERNAL_BYTES = 64 * 1024
LONG_RETENTION = timedelta(days=365)
"""Where histories are kept as long as this, nobody needs an archive."""

_KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
_KEYWORDS = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST
_INT = IndexedValueType.INDEXED_VALUE_TYPE_INT

SEARCH_ATTRIBUTES: dict[str, IndexedValueType.ValueType] = {
    "PerstackJob": _KEYWORD,
    "PerstackExpert": _KEYWORD,
    "PerstackStatus": _KEYWORD,
    "PerstackModel": _KEYWORD,
    "PerstackQuery": _KEYWORD,
    "PerstackTags": _KEYWORDS,
    "PerstackTokens": _INT,
    "PerstackSteps": _INT,
}
"""What a run can be found by in Temporal's own UI."""


@dataclass(frozen=True)
class ServerInfo:
    """The Temporal server in use."""

    address: str
    ui_url: str | None
    namespace: str
    is_embedded: bool
    version: str | None
    """As the server reports it; unknown until `connect` for a server that is not ours."""


class WireConverter(PydanticJSONPlainPayloadConverter):
    """JSON in the spelling of the contract, absent fields left out; a `null` inside data stays."""

    def to_payload(self, value: Any) -> Payload:
        """The value as JSON."""
        return Payload(metadata={"encoding": self.encoding.encode()}, data=to_json(value, exclude_none=True))


class WirePayloadConverter(CompositePayloadConverter):
    """The SDK's converters with our JSON in place of theirs."""

    def __init__(self) -> None:
        # The SDK makes a new one for every call with external storage; the cache of type adapters must outlive it.
        super().__init__(*_CONVERTERS)


_WIRE = WireConverter()
_CONVERTERS = tuple(
    _WIRE if isinstance(one, JSONPlainPayloadConverter) else one
    for one in DefaultPayloadConverter.default_encoding_payload_converters
)


def data_converter(driver: StorageDriver) -> DataConverter:
    """How every client, worker and replay of ours reads and writes payloads."""
    return DataConverter(
        payload_converter_class=WirePayloadConverter,
        external_storage=ExternalStorage(drivers=[driver], payload_size_threshold=EXTERNAL_BYTES),
    )


@functools.cache
def shared_runtime() -> Runtime:
    """The SDK's core, one per process; its log goes to the logger `perstack.temporal`, never to the terminal."""
    logger = logging.getLogger("perstack.temporal")
    # Without any handler Python itself prints warnings on stderr.
    logger.addHandler(logging.NullHandler())
    forwarding = LogForwardingConfig(logger=logger, append_target_to_name=False)
    levels = TelemetryFilter(core_level="WARN", other_level="ERROR")
    runtime = Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=levels, forwarding=forwarding)))
    Runtime.set_default(runtime, error_if_already_set=False)
    return runtime


def load_profile() -> ClientConfigProfile:
    """The Temporal profile of this environment, shared with the `temporal` command line."""
    try:
        return ClientConfigProfile.load()
    except (RuntimeError, ValueError) as error:
        raise ServerError(
            f"the Temporal profile cannot be read: {error}",
            code="temporal.profile",
            hint="correct the file named by TEMPORAL_CONFIG_FILE (or the default one) and TEMPORAL_PROFILE",
        ) from error


async def connect(info: ServerInfo, *, storage: StorageDriver, timeout_seconds: float = CONNECT_SECONDS) -> Client:
    """A client of the server, which has answered and is recent enough."""
    try:
        async with asyncio.timeout(timeout_seconds):
            client = await Client.connect(
                **_connect_config(info),
                data_converter=data_converter(storage),
                runtime=shared_runtime(),
                # On one machine compression costs time on both sides and saves nothing.
                grpc_compression=GrpcCompression.NONE if info.is_embedded else GrpcCompression.GZIP,
            )
            version = info.version or await server_version(client)
            if not info.is_embedded:
                await _require_namespace(client)
    except (RuntimeError, ValueError, RPCError, OSError) as error:
        raise _unreachable(info, error, timeout_seconds) from error
    check_version(version, info.address)
    return client


@contextmanager
def rpc_failures(info: ServerInfo) -> Generator[None]:
    """Failures of a server that had answered before, in words."""
    try:
        yield
    except RPCError as error:
        raise ServerError(
            f"Temporal at {info.address} failed: {_reason(error)}",
            code="temporal.failed",
            hint=_hint(info),
            details={"address": info.address, "namespace": info.namespace, "status": error.status.name},
        ) from error


def _connect_config(info: ServerInfo) -> ClientConnectConfig:
    if info.is_embedded:
        return {"target_host": info.address, "namespace": info.namespace}
    config = load_profile().to_client_connect_config()
    config["target_host"] = info.address
    config["namespace"] = info.namespace
    return config


def _unreachable(info: ServerInfo, error: Exception, timeout_seconds: float) -> ServerError:
    reason = f"no answer within {timeout_seconds:g} s" if isinstance(error, TimeoutError) else _reason(error)
    details = {"address": info.address, "namespace": info.namespace}
    return ServerError(f"cannot reach Temporal at {info.address}: {reason}", hint=_hint(info), details=details)


async def _require_namespace(client: Client) -> None:
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await client.workflow_service.describe_namespace(request)
    except RPCError as error:
        # Who may use a namespace need not be allowed to look at it.
        if error.status == RPCStatusCode.NOT_FOUND:
            raise


def _hint(info: ServerInfo) -> str:
    if info.is_embedded:
        return "run the command again; if that does not help, end the server with `perstack dev --stop`"
    return (
        "start that server, or correct --address, TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY, "
        "TEMPORAL_TLS_* or the Temporal profile; without an address a local server is started"
    )


def _reason(error: Exception) -> str:
    """What went wrong, without the Rust types around it."""
    text = str(error) or type(error).__name__
    words = re.findall(r'(?:message|error): "([^"]+)"', text)
    return words[-1] if words else text.removeprefix("Failed client connect: ")


async def server_version(client: Client) -> str:
    """The version the server reports of itself."""
    answer = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    return answer.server_version


def check_version(version: str, address: str) -> None:
    """Refuse a server that is too old; one with an unusual version is given the benefit of the doubt."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match and (int(match[1]), int(match[2])) < MINIMUM_SERVER:
        needed = ".".join(map(str, MINIMUM_SERVER))
        raise ServerError(
            f"the Temporal server at {address} is version {version}; {needed} or newer is needed",
            code="temporal.version",
            hint="update the server, or the `temporal` program that starts it",
            details={"version": version, "needed": needed},
        )


async def forgets_soon(client: Client) -> bool:
    """Whether the server forgets closed executions within a year; one that does not say may."""
    request = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        answer = await client.workflow_service.describe_namespace(request, timeout=timedelta(seconds=5))
    except RPCError:
        return True
    return answer.config.workflow_execution_retention_ttl.ToTimedelta() < LONG_RETENTION


async def known_search_attributes(client: Client) -> tuple[str, ...]:
    """Which of our search attributes the server knows with the right type; none when it does not say."""
    request = ListSearchAttributesRequest(namespace=client.namespace)
    try:
        answer = await client.operator_service.list_search_attributes(request, timeout=timedelta(seconds=5))
    except RPCError:
        return ()
    registered = answer.custom_attributes
    return tuple(name for name, kind in SEARCH_ATTRIBUTES.items() if registered.get(name) == kind)
