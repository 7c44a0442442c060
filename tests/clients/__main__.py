"""See ``matrix.py``."""

from tests.clients.matrix import main

main()
