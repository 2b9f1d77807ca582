import json

import pytest

from hjbridge.ledger import files


@pytest.fixture(params=sorted(files.notebooks()))
def chapter(request):
    return request.param


@pytest.fixture
def cells(chapter):
    return json.loads(files.notebooks()[chapter].read_text(encoding="utf-8"))["cells"]
