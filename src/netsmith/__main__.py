"""`python -m netsmith`, the same as the command `netsmith`."""

from netsmith.cli.main import main

if __name__ == "__main__":
    main()
