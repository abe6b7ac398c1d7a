"""The requests of examples/requests.csv: `python -m tests.simulate.example` writes them."""

from pathlib import Path

from tailrace.simulate.workloads import generate

FILE = Path(__file__).resolve().parent.parent.parent / "examples" / "requests.csv"
SEED, SECONDS, RATE = 7, 300.0, 2.0


def table() -> str:
    """Return five minutes of conversations, as a router's own log could tell of them."""
    rows = [
        f"{each.at:.2f},{each.prompt},{each.output},{each.session}"
        for each in generate("sessions", SEED, seconds=SECONDS, rate=RATE).arrivals
    ]
    return "\n".join(["seconds,prompt,output,session", *rows]) + "\n"


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
