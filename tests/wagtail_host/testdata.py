"""Rows that belong together: a section, and more pages in it later."""

from stagehand_testdata.registry import Scenario


def section(call, data):
    """An article and two below it."""
    top = call.create("article")
    for _ in range(2):
        call.create("article", parent=top)


scenarios = [Scenario("section", section)]
