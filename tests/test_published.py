"""The committed schemas are the ones the models generate."""

from __future__ import annotations

import json

import pytest

from sovereign.canonical import pretty
from sovereign.published import DOCUMENTS, schema
from sovereign.verification import SCHEMAS


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_committed_schema_equals_the_model(name: str) -> None:
    """A changed model without its schema, or the reverse, is found (mend: `make schemas`)."""
    assert pretty(schema(name)) == (SCHEMAS / f"{name}.schema.json").read_bytes()


def test_no_schema_is_left_over() -> None:
    """A schema without a model would describe nothing."""
    assert sorted(DOCUMENTS) == sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.json"))


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_schemas_are_valid_and_closed(name: str) -> None:
    """Every schema is valid draft 2020-12, and refuses unknown keys at every object that it describes."""
    from jsonschema import Draft202012Validator

    found = schema(name)
    Draft202012Validator.check_schema(found)
    objects = [found, *found.get("$defs", {}).values()]

    assert [] == [
        one["title"] for one in objects if one.get("type") == "object" and one.get("additionalProperties") is not False
    ]
    assert json.loads(pretty(found)) == found
