"""More instances of a database: changed copies, neighbours of a query, and which copies tell them apart."""
