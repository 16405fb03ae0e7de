"""python -m labkit.servers.images: the base images of labs/stacks, each here already, pulled, or made on this machine."""

from __future__ import annotations

import sys

from labkit.core.errors import LabkitError
from labkit.servers.images import bases
from labkit.servers.runtimes.base import to_stderr


def main() -> int:
    """Exit code 0 once all are here; else the first error's, which is said."""
    try:
        for ref in bases.public_names():
            to_stderr(f"{bases.ensure(ref)}: here")
    except LabkitError as error:
        to_stderr(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
