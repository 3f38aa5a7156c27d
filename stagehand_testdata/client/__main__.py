"""`python -m stagehand_testdata.client`: the same as `stagehand-testdata`."""

from __future__ import annotations

import sys

from .command import main

sys.exit(main())
