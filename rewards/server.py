"""`python -m rewards.server`: the reward server over HTTP. See rewards/http.py."""

import sys

if __name__ == "__main__":
    from rewards.http import main

    sys.exit(main(sys.argv[1:]))
