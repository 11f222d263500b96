"""Layouts cut for tests."""

from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.select import select
from netsmith.arch.ties import ties


def halved(layout: Layout) -> Layout:
    """Without the first half of every class of tied channels."""
    found = ties(layout_graph(layout))
    seen: set[int] = set()
    drop: set[int] = set()
    for classes in found.channels.values():
        fresh = [number for number in dict.fromkeys(classes) if number not in seen and number not in found.frozen]
        drop |= set(fresh[: len(fresh) // 2])
        seen |= set(fresh)
    return select(layout, found.keep(drop)).layout
