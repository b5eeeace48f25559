"""Pure nouns of Director: pydantic and the standard library only, safe inside a workflow."""
