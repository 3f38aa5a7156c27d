"""Payloads from a seed, through the whole API; `benchmarks.payloads` is the long run."""

from __future__ import annotations

import pytest
from django.db import connection

from tests.payloads import PER_RUN, fuzzing

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor == "mysql", reason="the witness has no triggers for it"),
]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_payload_raises_a_privilege_touches_a_real_row_or_breaks_the_server(seed: int) -> None:
    with fuzzing(seed) as fuzz:
        while fuzz.sent < 200:
            fuzz.run(PER_RUN)
        # Enough of them get as far as rows.
        assert fuzz.statuses[201] > 30, fuzz.statuses
        assert len(fuzz.made) > 10, fuzz.made
