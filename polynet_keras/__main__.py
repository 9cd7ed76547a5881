"""`python -m polynet_keras`: the program `polynet`, for a shell that does not find it."""

import sys

from polynet_keras.cli.main import program

if __name__ == "__main__":
    sys.exit(program())
