"""Entry point of `python -m newsbert`, which is the same as `newsbert`."""

from newsbert.cli.app import main

if __name__ == "__main__":
    main()
