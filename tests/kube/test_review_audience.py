"""A token counts only for the audience it was issued for."""

from typing import cast

import pytest

from tailrace.kube.client import Api, Document
from tailrace.kube.reviews import answer
from tailrace.link import Review


class _Answering:
    """Answers every TokenReview with one status."""

    def __init__(self, status: Document) -> None:
        self._status = status

    async def create(self, *_: object, **__: object) -> Document:
        return {"status": self._status}


@pytest.mark.parametrize(
    ("audiences", "counts"), [(["tailrace"], True), (["other"], False), ([], False), (None, False)]
)
async def test_a_token_counts_only_when_the_api_server_confirms_the_audience(
    audiences: list[str] | None, counts: bool
) -> None:
    status: Document = {"authenticated": True, "user": {"username": "u"}}
    if audiences is not None:
        status["audiences"] = audiences
    told = await answer(cast("Api", _Answering(status)), Review(1, "t", audience="tailrace"))
    assert told.authenticated is counts
