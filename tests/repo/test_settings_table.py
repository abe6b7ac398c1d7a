from tests.repo.settings_table import PAGE, page_with_table

from tailrace.settings import Settings


def test_every_setting_stands_in_the_operations_page_as_the_code_has_it() -> None:
    text = PAGE.read_text()
    assert text == page_with_table(text), "docs/operations.md is old: run `python -m tests.repo.settings_table`"


def test_every_setting_says_what_it_is() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]
