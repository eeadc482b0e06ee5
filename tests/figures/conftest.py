import pytest

from tests.figures.networks import NETWORKS


@pytest.fixture(params=NETWORKS)
def network(request):
    """The name of every one."""
    return request.param
