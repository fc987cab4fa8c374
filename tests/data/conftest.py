"""All file names of UCF101 and HMDB51, without content, made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.files import lines, touch_many


@pytest.fixture(scope="session")
def ucf_lists(shared_data) -> Path:
    return shared_data / "splits" / "ucf101"


@pytest.fixture(scope="session")
def ucf_root(ucf_lists, tmp_path_factory) -> Path:
    """All 13,320 file names, without content."""
    root = tmp_path_factory.mktemp("ucf")
    touch_many(root / "UCF-101", lines(ucf_lists / "trainlist01.txt", ucf_lists / "testlist01.txt"))
    return root


@pytest.fixture(scope="session")
def hmdb_root(shared_data, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hmdb")
    ending = "_test_split1.txt"
    files = (shared_data / "splits" / "hmdb51").glob(f"*{ending}")
    touch_many(root, [f"{file.name.removesuffix(ending)}/{name}" for file in files for name in lines(file)])
    return root
