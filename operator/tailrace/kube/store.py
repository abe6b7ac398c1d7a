"""Objects of one kind as last seen. Pure.

Rules: older news of a uid is ignored, also after it has vanished (a pod that lost our label and got it back is newer
news); only a whole list says what vanished unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tailrace.kube import objects
from tailrace.kube.client import Document, Listing


class Store:
    """Trimmed documents by uid and by ``namespace/name``."""

    def __init__(self, trim: Callable[[Document], Document]) -> None:
        self._trim = trim
        self._by_uid: dict[str, Document] = {}
        self._by_key: dict[str, str] = {}
        self._gone: dict[str, int] = {}
        self._gone_before: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_uid)

    def __iter__(self) -> Iterator[Document]:
        return iter(list(self._by_uid.values()))

    def get(self, uid: str) -> Document | None:
        """Return the object with this uid."""
        return self._by_uid.get(uid)

    def named(self, key: str) -> Document | None:
        """Return the object of this ``namespace/name``."""
        return self._by_uid.get(self._by_key.get(key, ""))

    def kept(self, document: Document) -> Document:
        """Return what is kept of an object; of one that is here in this version, the very same again."""
        known = self._by_uid.get(objects.uid(document))
        version = objects.version(document)
        return known if known and version and version == objects.version(known) else self._trim(document)

    def seen(self, document: Document) -> bool:
        """Take in an object; return whether that was news."""
        uid = objects.uid(document)
        if not uid or not self._newer(document):
            return False
        self._by_uid[uid] = self._trim(document)
        self._by_key[objects.key(document)] = uid
        return True

    def vanished(self, document: Document, at: int = 0) -> bool:
        """Take in that an object is gone, seen at its own version or at that of a list; return whether that is news."""
        uid = objects.uid(document)
        self._gone[uid] = max(objects.version(document), at)
        known = self._by_uid.pop(uid, None)
        if known and self._by_key.get(objects.key(known)) == uid:
            del self._by_key[objects.key(known)]
        return known is not None

    def sync(self, listing: Listing, namespace: str | None = None) -> tuple[list[Document], list[Document]]:
        """Take in a whole list, of one namespace or of all; return what is news and what has vanished."""
        news = [item for item in listing.items if self.seen(item)]
        moment = int(listing.version) if listing.version.isdecimal() else 0
        missing = self._missing(listing, namespace, moment)
        for document in missing:
            self.vanished(document, moment)
        return news, missing

    def age(self) -> None:
        """Forget vanished uids of two rounds ago; call it once a resync, when no older news can be under way."""
        self._gone_before, self._gone = self._gone, {}

    def _missing(self, listing: Listing, namespace: str | None, moment: int) -> list[Document]:
        listed = {objects.uid(item) for item in listing.items}
        return [
            document
            for uid, document in self._by_uid.items()
            if uid not in listed
            and (namespace is None or objects.namespace(document) == namespace)
            and (not moment or objects.version(document) <= moment)
        ]

    def _newer(self, document: Document) -> bool:
        uid, version = objects.uid(document), objects.version(document)
        known = self._by_uid.get(uid)
        seen_at = objects.version(known) if known else max(self._gone.get(uid, -1), self._gone_before.get(uid, -1))
        return not version or version > seen_at
