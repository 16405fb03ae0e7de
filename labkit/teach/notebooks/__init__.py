"""Sources in, notebooks out: find a lab, read its parameters, build its forms, see whether the built ones have drifted.

A lab is edited in one place only, labs/sources/NN_topic.py. Everything else is built from it:

>>> from labkit.teach import notebooks
>>> [lab.name for lab in map(notebooks.find, (2, "02"))]  # doctest: +SKIP
['02_model_selection', '02_model_selection']
>>> notebooks.write_all(check=True)  # doctest: +SKIP
[]
"""

from labkit.teach.notebooks.build import build, write_all
from labkit.teach.notebooks.locate import LabFile, find, sources

__all__ = ["LabFile", "build", "find", "sources", "write_all"]
