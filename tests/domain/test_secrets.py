"""Values of secret-looking variables are hidden, in definitions and in texts."""

from director.domain.secrets import MASK, masked, redacted


def test_secret_looking_names_are_masked_in_a_definition_and_its_steps() -> None:
    environment = {"API_KEY": "k", "DB_PASSWORD": "p", "GITHUB_TOKEN": "t", "NODE_ENV": "test"}
    definition = {"environment": environment, "steps": [{"environment": environment}, {}]}

    shown = masked(definition)

    hidden = {"API_KEY": MASK, "DB_PASSWORD": MASK, "GITHUB_TOKEN": MASK, "NODE_ENV": "test"}
    assert shown["environment"] == hidden
    assert shown["steps"][0]["environment"] == hidden


def test_a_text_loses_the_values_of_secret_looking_variables_only() -> None:
    variables = {"TOKEN": "abcd-1234", "MODE": "verbose", "PASSWORD": "x"}

    assert redacted("abcd-1234 is verbose, x", variables) == f"{MASK} is verbose, x"


def test_a_secret_that_holds_another_is_hidden_whole() -> None:
    assert redacted("12345678", {"A_KEY": "1234", "B_KEY": "12345678"}) == MASK
