"""``sparse-vae`` and ``python -m sparse_vae``: the command line, which is a part of the extra ``report``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one command; returns the exit status."""
    try:
        from sparse_vae.report import cli
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
