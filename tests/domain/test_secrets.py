"""Values of secret-looking variables are hidden, in definitions."""

from director.domain.secrets import MASK, masked


def test_secret_looking_names_are_masked_in_a_definition_and_its_steps() -> None:
    environment = {"API_KEY": "k", "DB_PASSWORD": "p", "GITHUB_TOKEN": "t", "NODE_ENV": "test"}
    definition = {"environment": environment, "steps": [{"environment": environment}, {}]}

    shown = masked(definition)

    hidden = {"API_KEY": MASK, "DB_PASSWORD": MASK, "GITHUB_TOKEN": MASK, "NODE_ENV": "test"}
    assert shown["environment"] == hidden
    assert shown["steps"][0]["environment"] == hidden
