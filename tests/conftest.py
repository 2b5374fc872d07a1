"""Settings that every test shares."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # tests share tests/fabric.py
# no example database in the work tree, and no deadline: machines are noisy
settings.register_profile("sovereign", database=None, deadline=None)
settings.load_profile("sovereign")
