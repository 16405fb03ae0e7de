"""Sliders over plain functions. The function draws a figure and is tested alone; without a widget front end it is
drawn once with the first values, so that a notebook reads the same everywhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explore(draw: Callable[..., Figure], **controls: Any) -> Any:
    """Show `draw(**values)` with a control for each keyword: a tuple (low, high, step) is a slider, a list a menu.

    The first drawing is shown at once. Returns the box of widgets, or None where ipywidgets is not installed.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    try:
        import ipywidgets
    except ImportError:
        fig = draw(**{name: first(control) for name, control in controls.items()})
        display(fig)
        plt.close(fig)  # or the notebook shows it a second time
        return None

    inputs = {name: _control(name, control) for name, control in controls.items()}
    # an Output widget would do too, but nbclient answers its messages while it waits for the cell's reply, and then may
    # not see the reply until it times out (jupyter/nbclient issue 312)
    picture = ipywidgets.Image(format="png")

    def redraw(_: object = None) -> None:
        fig = draw(**{name: widget.value for name, widget in inputs.items()})
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png")
        plt.close(fig)
        picture.value = buffer.getvalue()

    for widget in inputs.values():
        widget.observe(redraw, names="value")
    redraw()
    box = ipywidgets.VBox([*inputs.values(), picture])
    display(box)
    return box


def first(control: Any) -> Any:
    """The value a control starts with: a range's middle step, a list's first entry, or the value itself."""
    if isinstance(control, tuple):
        low, high, step = control
        return type(low)(low + step * round((high - low) / step / 2))
    return control[0] if isinstance(control, list) else control


def _control(name: str, control: Any) -> Any:
    import ipywidgets

    label, style = name.replace("_", " "), {"description_width": "initial"}
    if isinstance(control, tuple):
        low, high, step = control
        kind = ipywidgets.IntSlider if all(isinstance(v, int) for v in control) else ipywidgets.FloatSlider
        return kind(value=first(control), min=low, max=high, step=step, description=label, style=style, continuous_update=False)
    if isinstance(control, list):
        return ipywidgets.Dropdown(options=control, value=control[0], description=label, style=style)
    return ipywidgets.Text(value=str(control), description=label, style=style, continuous_update=False)
