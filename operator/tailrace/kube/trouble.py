"""A trouble that lasts is told when it begins, when it becomes another, and when it is over."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Trouble:
    """One kind of it, such as a list that fails. ``said`` is what it is just now, empty when all is well.

    ``what`` begins each line of the log; ``consequence`` says what it means until it is over.
    """

    def __init__(self, what: str, consequence: str) -> None:
        """Begin without trouble."""
        self.said = ""
        self._what = what
        self._consequence = consequence

    def met(self, error: object) -> None:
        """Tell of it, once for each text."""
        text = str(error)
        if text != self.said:
            log.warning("%s: %s; %s", self._what, text, self._consequence)
        self.said = text

    def over(self) -> None:
        """Tell that it is over, when there was any."""
        if self.said:
            log.info("%s: goes well again", self._what)
        self.said = ""
