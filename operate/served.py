"""The check of who asks, in the process of vLLM's server: vLLM makes it by the class's name, without arguments."""

import json
import os

from conf.http_access import Access
from conf.http_guard import Application, HttpGuard
from operate.serve import GUARDED


class ServedGuard(HttpGuard):
    """Asks what `quorum serve` has decided."""

    def __init__(self, app: Application) -> None:
        settings = json.loads(os.environ[GUARDED])
        settings |= {name: tuple(settings[name]) for name in ("tokens", "open_paths")}
        super().__init__(app, access=Access(**settings))
