"""`python -m sovereign`, which is what torchrun starts."""

from sovereign.cli.main import main

main()
