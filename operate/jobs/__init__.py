"""Jobs on a Ray cluster: submitted, listed, followed, stopped and resumed through Ray's own Jobs API."""
