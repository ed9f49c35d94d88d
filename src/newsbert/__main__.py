"""`python -m newsbert` is `newsbert`."""

from newsbert.cli.app import main

if __name__ == "__main__":
    main()
