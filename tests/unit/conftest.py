import numpy as np
import pytest

from hjbridge.data.images import Images


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
    return Images(images, np.arange(20, dtype=np.int64) % 3, "own")
