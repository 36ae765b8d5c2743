import pytest
from detectron2.utils.events import EventStorage


@pytest.fixture(autouse=True)
def storage():
    """What heads log into."""
    with EventStorage() as storage:
        yield storage
