"""Spider's official metrics, written from the behaviour of the public test-suite scripts (taoyds/test-suite-sql-eval).

Verdicts agree with the official ones example by example, quirks included; what is plainly a bug there has a corrected
metric of its own name beside it.
"""
