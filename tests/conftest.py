"""Settings that every test shares."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

sys.path.insert(0, str(Path(__file__).parent))  # tests share tests/fabric.py


def own_folder(name: str) -> Path:
    """Return an empty folder that is gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# a memory of its own: what one test verified is no other's business, and the user's stays as it is
os.environ["SOVEREIGN_CACHE"] = str(own_folder("sovereign") / "verified.sqlite")
set_hypothesis_home_dir(own_folder("hypothesis"))
# no example database in the work tree, and no deadline: machines are noisy
settings.register_profile("sovereign", database=None, deadline=None, derandomize=True)
# a change must not be refused for what another's draw would have found: `make test-all` alone draws anew
settings.register_profile("anew", settings.get_profile("sovereign"), derandomize=False)
settings.load_profile("sovereign")
