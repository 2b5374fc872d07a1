"""Settings that every test shares."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

sys.path.insert(0, str(Path(__file__).parent))  # tests share tests/fabric.py
# a memory of its own: what one test verified is no other's business, and the user's stays as it is
os.environ["SOVEREIGN_CACHE"] = str(Path(tempfile.mkdtemp(prefix="sovereign-")) / "verified.sqlite")
set_hypothesis_home_dir(tempfile.mkdtemp(prefix="hypothesis-"))
# no example database in the work tree, and no deadline: machines are noisy
settings.register_profile("sovereign", database=None, deadline=None)
settings.load_profile("sovereign")
