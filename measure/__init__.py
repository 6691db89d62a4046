"""How good Quorum itself is: throughput, faults survived, scaling, ablation, reward speed."""
