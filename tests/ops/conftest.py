import pytest
from op_samples import DEVICES


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param
