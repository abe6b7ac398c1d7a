"""`tailrace` with the barrier taken out: the proof that the proof of zero loss can fail."""

from tailrace.__main__ import main
from tailrace.core.drain import Drains

BARRIER = "_nothing_left"

if __name__ == "__main__":
    assert hasattr(Drains, BARRIER), "the barrier has another name now: name it here, or this proves nothing"
    setattr(Drains, BARRIER, lambda *_: True)
    main()
