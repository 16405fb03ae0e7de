"""Points for submissions: the bridge to nbgrader."""
