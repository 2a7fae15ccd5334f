"""`python -m calotype`: the same command as `calotype`."""

from calotype.cli import main

if __name__ == "__main__":
    main()
