"""The base of every model that leaves the process: camelCase JSON outside, snake_case inside."""

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

    def wire_json(self) -> str:
        """This value as one line of JSON, absent fields left out."""
        return self.model_dump_json(exclude_none=True)
