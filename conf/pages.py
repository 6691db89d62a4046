"""The content-security policy of the self-contained HTML pages that this project writes.

It lies here because packages that do not know each other write such pages. The policy guards a page whose escaping has
a gap: a script that a data set or a model wrote does not run, and nothing is loaded or sent. Escaping stays needed.
"""

import base64
import hashlib
from collections.abc import Iterable


def content_policy(scripts: Iterable[str] = ()) -> str:
    """The `meta` element that admits exactly these inline scripts (the text between their tags), and inline styles."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {sources}; base-uri 'none'; form-action 'none'"
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
