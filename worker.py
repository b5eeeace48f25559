"""Start a Director worker: `python worker.py`, with its settings from `DIRECTOR_*`."""

from director.worker import main

if __name__ == "__main__":
    main()
