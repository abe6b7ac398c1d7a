"""The table of settings in docs/operations.md, made from the code: `python -m tests.repo.settings_table` writes it."""

from pathlib import Path

from tailrace.settings import Settings

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"


def table() -> str:
    """Return the rows: variable, default, what it is and why its default is that."""
    rows = ["| variable | default | what it is, and why the default |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "the host's name" if field.default_factory else _shown(field.default)
        rows.append(f"| `TAILRACE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def _shown(value: object) -> str:
    return f"`{value}`" if value not in (None, ()) else "none"


def page_with_table(text: str) -> str:
    """Return the page with the present table in its place."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text()))
