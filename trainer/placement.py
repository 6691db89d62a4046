"""Where actors run: the Ray that the driver uses, and this machine's address in it."""

from conf.schema.stages import ClusterConfig
from rollout.cluster import local_ray

__all__ = ["driver_address", "local_ray"]


def driver_address(cluster: ClusterConfig) -> str:
    """This machine's address as the other machines of the cluster see it."""
    if cluster.address is None:
        return "127.0.0.1"
    import ray

    return str(ray.util.get_node_ip_address())
