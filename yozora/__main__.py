"""`python -m yozora`."""

import sys

from yozora.cli import main

sys.exit(main())
