"""The SQL executor's child process: runs model-written queries read-only and within budgets.

Only the standard library is imported here and in the packages above, so that a child starts in milliseconds.

What it guarantees: databases are opened immutable and read-only; an authorizer allows SELECT, column reads, recursion
and harmless functions only; no file can be written (RLIMIT_FSIZE is 0); one statement a request; VM steps, rows, result
bytes, value length and the SQLite heap are limited deterministically (`random` is seeded anew for each query,
statements are not cached, a query that meets the heap limit is tried again with every other connection closed). CPU
seconds are the net below these: SIGPROF then ends the process, also in the middle of one long opcode, and the parent
knows whose fault it was. Temporary tables stay on the heap.
What it does not: it is no defence against a bug in SQLite itself beyond losing this process, and it does not confine
system calls.
"""
