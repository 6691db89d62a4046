"""How a trained policy and its runs are used: jobs, submit, watch, ask, export, serve, replay."""
