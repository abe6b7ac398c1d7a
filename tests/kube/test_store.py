"""The cache of one kind: order of news, and what a list may say."""

from typing import Any

from tests.kube.documents import pod

from tailrace.kube.client import Listing
from tailrace.kube.store import Store


def store(*documents: dict[str, Any]) -> Store:
    made = Store(lambda document: document)
    for document in documents:
        made.seen(document)
    return made


def names(found: list[dict[str, Any]]) -> list[str]:
    return [document["metadata"]["name"] for document in found]


def test_older_and_equal_news_of_an_object_is_no_news() -> None:
    known = store(pod(version=5))
    assert not known.seen(pod(version=4))
    assert not known.seen(pod(version=5))
    assert known.seen(pod(version=6))


def test_what_is_kept_of_an_object_is_made_once_a_version() -> None:
    known = Store(dict)
    known.seen(pod(version=5))
    assert known.kept(pod(version=5)) is known.get("uid-a")
    for other in (pod(version=6), pod(version=4), pod("b", version=5)):
        kept = known.kept(other)
        assert kept == other
        assert kept is not other
        assert kept is not known.get("uid-a")


def test_objects_without_a_version_are_not_taken_for_the_same() -> None:
    known = Store(dict)
    known.seen(pod(version=0))
    assert known.kept(pod(version=0, labels={})) == pod(version=0, labels={})


def test_a_vanished_object_is_not_brought_back_by_an_older_list() -> None:
    known = store(pod(version=5))
    known.vanished(pod(version=9))
    assert known.sync(Listing((pod(version=8),), "8")) == ([], [])
    assert known.get("uid-a") is None


def test_an_object_that_lost_our_label_and_got_it_back_is_known_again() -> None:
    known = store(pod(version=5))
    known.vanished(pod(version=9))
    assert known.seen(pod(version=10))


def test_a_list_takes_away_what_it_does_not_name() -> None:
    known = store(pod("a", version=5), pod("b", version=6))
    news, missing = known.sync(Listing((pod("b", version=6), pod("c", version=7)), "8"))
    assert (names(news), names(missing)) == (["c"], ["a"])
    assert known.get("uid-a") is None


def test_what_was_made_after_a_list_was_taken_stays() -> None:
    known = store(pod("a", version=9))
    assert known.sync(Listing((), "8")) == ([], [])
    assert known.get("uid-a") is not None


def test_a_list_of_one_namespace_says_nothing_about_another() -> None:
    known = store(pod("a", version=5))
    known.sync(Listing((), "8"), "elsewhere")
    assert known.get("uid-a") is not None


def test_an_object_of_the_same_name_is_found_by_name_after_the_first_is_gone() -> None:
    first, second = pod("a", version=5), pod("a", version=6)
    second["metadata"]["uid"] = "uid-new"
    known = store(first, second)
    known.vanished(first)
    found = known.named("ns/a")
    assert found is not None
    assert found["metadata"]["uid"] == "uid-new"


def test_vanished_objects_are_forgotten_after_two_rounds() -> None:
    known = store(pod(version=5))
    known.vanished(pod(version=9))
    known.age()
    assert not known.seen(pod(version=8))
    known.age()
    assert known.seen(pod(version=8))
