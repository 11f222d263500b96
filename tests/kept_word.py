"""Whether a folder keeps its word, for tests that are not about its latency.

A latency is recorded at one instant and measured again at another. On a machine that others share, its speed may differ
between the two by more than any tolerance explains, which says nothing about what such a test is about. That latencies
are judged, when they hold and when they do not, tests/artifact/test_verify.py shows on measurements that are given.
"""

from typing import Any

MEASURED_AGAIN = {"latency p50 ms", "latency p90 ms", "latency budget, measured again"}


def broken(verification: dict[str, Any]) -> list[str]:
    """Names of the checks that do not hold, but for those that compare two instants of this machine.

    Args:
        verification: what `netsmith verify --json` prints, or `netsmith.artifact.verify.as_document` gives.
    """
    checks = verification["checks"]
    assert len(checks) > 5, "nothing was checked"
    return [check["name"] for check in checks if check["ok"] is False and check["name"] not in MEASURED_AGAIN]
