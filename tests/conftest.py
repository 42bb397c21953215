"""Fixtures every room's tests share: where the outside test data is, and one small rendered dataset."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A loaded machine makes no law untrue.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def testdata() -> Callable[[str], Path]:
    """Resolve a path below MUM_TESTDATA: skip where the variable is unset, fail where the file is missing."""

    def resolve(relative: str) -> Path:
        root = os.environ.get("MUM_TESTDATA")
        if not root:
            pytest.skip("MUM_TESTDATA is not set: it names the folder with the parity files and photographs")
        path = Path(root) / relative
        if not path.exists():
            pytest.fail(f"MUM_TESTDATA is set to {root}, but {path} does not exist")
        return path

    return resolve
