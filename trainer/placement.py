"""Where actors run: the Ray that the driver uses."""

from rollout.cluster import local_ray

__all__ = ["local_ray"]
