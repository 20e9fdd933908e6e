"""Our payloads beside those of a program that mounts Perstack: each side keeps its own way of writing."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Self, get_args

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    PayloadConverter,
    SerializationContext,
    StorageDriver,
    StorageDriverSelectContext,
    WithSerializationContext,
)

from ..core.wire import Wire
from .connection import WirePayloadConverter, data_converter

_OURS = WirePayloadConverter()


class NeighbourConverter(PayloadConverter, WithSerializationContext):
    """Converts our values our way and leaves all others to the converter of the program."""

    def __init__(self, theirs: PayloadConverter) -> None:
        self._theirs = theirs

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        """The values as payloads."""
        if not any(isinstance(value, Wire) for value in values):
            return self._theirs.to_payloads(values)
        return [(_OURS if isinstance(value, Wire) else self._theirs).to_payload(value) for value in values]

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """The values of the payloads."""
        hints: list[Any] = list(type_hints or ())
        hints.extend([None] * (len(payloads) - len(hints)))
        if any(map(_is_ours, hints)):
            pairs = zip(payloads, hints, strict=True)
            return [(_OURS if _is_ours(hint) else self._theirs).from_payload(payload, hint) for payload, hint in pairs]
        try:
            return self._theirs.from_payloads(payloads, type_hints)
        except (KeyError, RuntimeError):
            # Details of failures and heartbeats are read without a type; theirs may not know our encoding.
            if type_hints:
                raise
            return _OURS.from_payloads(payloads)

    def with_context(self, context: SerializationContext) -> Self:
        """The same for one workflow or activity, where their converter makes a difference."""
        if not isinstance(self._theirs, WithSerializationContext):
            return self
        return type(self)._beside(self._theirs.with_context(context))

    @classmethod
    def _beside(cls, theirs: PayloadConverter) -> Self:
        made = cls.__new__(cls)
        made._theirs = theirs
        return made


def beside(theirs: DataConverter | None, driver: StorageDriver) -> DataConverter:
    """Their data converter, with which our values can be read and written, too.

    Codec and failure converter stay; so does their external storage, which then holds our large payloads as well.
    """
    if theirs is None:
        return data_converter(driver)
    changes: dict[str, Any] = {"external_storage": _external_storage(theirs.external_storage, driver)}
    if not issubclass(theirs.payload_converter_class, WirePayloadConverter | NeighbourConverter):
        changes["payload_converter_class"] = _neighbour_of(theirs.payload_converter_class)
    return dataclasses.replace(theirs, **changes)


def reads_ours(converter: DataConverter) -> bool:
    """Whether a data converter was made for our values."""
    return issubclass(converter.payload_converter_class, WirePayloadConverter | NeighbourConverter)


def _external_storage(theirs: ExternalStorage | None, driver: StorageDriver) -> ExternalStorage | None:
    if theirs is None:
        return data_converter(driver).external_storage
    if any(one.name() == driver.name() for one in theirs.drivers):
        return theirs
    first = theirs.drivers[0]

    def select(context: StorageDriverSelectContext, payload: Payload) -> StorageDriver:
        return first

    # Ours is there for what others have stored.
    return dataclasses.replace(
        theirs, drivers=[*theirs.drivers, driver], driver_selector=theirs.driver_selector or select
    )


@functools.cache
def _neighbour_of(theirs: type[PayloadConverter]) -> type[PayloadConverter]:
    """A class, because Temporal makes converters from classes without arguments."""

    class Neighbour(NeighbourConverter):
        def __init__(self) -> None:
            super().__init__(theirs())

    return Neighbour


def _is_ours(hint: Any) -> bool:
    if isinstance(hint, type):
        return issubclass(hint, Wire)
    return any(map(_is_ours, get_args(hint)))
