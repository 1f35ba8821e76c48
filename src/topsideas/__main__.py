"""``python -m topsideas``."""

import sys

from topsideas.cli import main

if __name__ == "__main__":
    sys.exit(main())
