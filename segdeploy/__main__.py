import sys

from segdeploy.cli import main

sys.exit(main())
