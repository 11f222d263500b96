"""Which pictures the ranges of a rounded graph are chosen from."""

from hashlib import sha256

from netsmith.data.items import Dataset, Item


def calibration_pictures(dataset: Dataset, count: int, *, seed: int) -> list[Item]:
    """Training pictures of all classes alike: each class in turn gives its next, in the order of a hash.

    Args:
        dataset: with its splits; pictures with several tags count for the first whose turn it is, those without any
            are a class of their own.
        count: of pictures, fewer where there are fewer.
        seed: another seed chooses others.
    """
    items = sorted(
        {item.key: item for item in dataset.subset("train")}.values(),
        key=lambda item: sha256(f"calibration {seed} {item.key}".encode()).digest(),
    )
    untagged = len(dataset.classes)
    queues: list[list[Item]] = [[] for _ in range(untagged + 1)]
    for item in reversed(items):  # so that the first stands at a queue's end
        for label in item.labels or (untagged,):
            queues[label].append(item)
    chosen: dict[str, Item] = {}
    while queues and len(chosen) < count:
        for queue in queues:
            while queue and queue[-1].key in chosen:
                queue.pop()
            if queue and len(chosen) < count:
                item = queue.pop()
                chosen[item.key] = item
        queues = [queue for queue in queues if queue]
    return list(chosen.values())
