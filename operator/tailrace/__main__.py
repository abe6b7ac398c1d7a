"""`python -m tailrace` and the `tailrace` program."""

from tailrace.cli.main import app


def main() -> None:
    """Run the command line."""
    app(prog_name="tailrace")


if __name__ == "__main__":
    main()
