"""Answers that are data: from what a user gives as a schema to values of the user's own types."""

from kimi_magic.structured.schema import (
    ANY_JSON,
    Mode,
    OutputSchema,
    SchemaMismatch,
    output_schema,
)

__all__ = ["ANY_JSON", "Mode", "OutputSchema", "SchemaMismatch", "output_schema"]
