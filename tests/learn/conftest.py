"""What tests of plots share: no figure of one test stays open in the next, in whichever order they run."""

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
