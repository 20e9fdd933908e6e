"""The base of every model that leaves the process: camelCase JSON outside, snake_case inside."""

from functools import cache
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A frozen value with the JSON spelling of the contract; unknown keys of newer writers are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        frozen=True,
        extra="ignore",
        protected_namespaces=(),
    )

    def replaced(self, **changes: Any) -> Self:
        """This value with some fields changed, nothing validated; ten times as fast as `model_copy`."""
        return type(self)._assembled({**self.__dict__, **changes})

    @classmethod
    def trusted(cls, **values: Any) -> Self:
        """A value made of parts that are known to fit: their validation would walk whole conversations."""
        return cls._assembled({**_defaults(cls), **values})

    @classmethod
    def _assembled(cls, values: dict[str, Any]) -> Self:
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", values)
        object.__setattr__(made, "__pydantic_fields_set__", set(values))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made

    def wire_json(self) -> str:
        """This value as one line of JSON, absent fields left out."""
        return self.model_dump_json(exclude_none=True)


@cache
def _defaults(model: type[Wire]) -> dict[str, Any]:
    """Of every field, in their order; what has no default stands in it, too, and is always given."""
    return {name: field.default for name, field in model.model_fields.items()}
