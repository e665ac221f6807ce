"""`python -m yozora.cli`."""

import sys

from yozora.cli import main

sys.exit(main())
