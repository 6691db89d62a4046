"""Pure metrics of text-to-SQL: they take rows, SQL text and verdicts, and know no files, no processes and no
configuration.
"""
