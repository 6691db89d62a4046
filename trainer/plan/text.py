"""A plan as text."""

from collections.abc import Sequence

from conf.schema.root import TrainConfig
from trainer.plan.build import Plan
from trainer.plan.layout import GIB, Demand
from trainer.plan.scaling import Scaled

MODELLED = """\
Modelled: memory by counting tensors, seconds by dividing FLOPs and bytes by what plan.* says a device does. Left out:
rewards (they overlap generation), evaluation, stragglers, fragmentation. Devices, their efficiencies and prices are
your settings (plan.*), not measurements.
"""


def places(plan: Plan) -> str:
    """Which actor where, and what it needs."""
    machine, lines = plan.machine, []
    for one in plan.places:
        device = f" device {','.join(str(number) for number in one.devices)}" if one.devices else ""
        needs = [f"GPU {_needs(one.demand.gpu_parts)}"] if one.devices else []
        needs.append(f"host {_needs(one.demand.host_parts)}")
        lines.append(f"{one.demand.name:<18} node {one.node}{device}: {'; '.join(needs)}")
    total = sum(one.demand.host_bytes for one in plan.places)
    have = f"{machine.host_bytes / GIB:.1f} GiB host memory a node"
    if machine.gpus_per_node:
        have += f", {machine.gpus_per_node} x {machine.gpu_bytes / GIB:.0f} GiB device memory"
    nodes = f"{plan.nodes} node{'s' if plan.nodes > 1 else ''}"
    lines.append(
        f"{plan.shape.parameters / 1e6:,.1f} M parameters; {plan.sequences} sequences of full length fit an engine; "
        f"host memory {total / GIB:.1f} GiB on {nodes}; {have} ({machine.source})"
    )
    return "\n".join(lines) + "\n"


def brief(plan: Plan) -> list[str]:
    """One line for each kind of actor, for the start of a run."""
    kinds: dict[str, list[Demand]] = {}
    for one in plan.places:
        kinds.setdefault(one.demand.name.rstrip(" 0123456789"), []).append(one.demand)
    lines = []
    for name, demands in kinds.items():
        gpu = f", {demands[0].gpu_bytes / GIB:.1f} GiB device memory" if demands[0].gpus else ""
        lines.append(f"{len(demands)} x {name}{gpu}, {max(d.host_bytes for d in demands) / GIB:.1f} GiB host memory")
    return lines


def cost(config: TrainConfig, plan: Plan) -> str:
    """Seconds and dollars of a step and of the run."""
    if plan.cost is None:
        return "seconds and dollars are modelled for GPUs only; a run on the CPU reports its own\n"
    step, steps = plan.cost, config.pipeline.steps
    tokens = config.plan.completion_tokens
    bound = "" if tokens else ", an upper bound: completions of full length (set plan.completion_tokens)"
    return (
        f"a step: generate {step.generate_s:.1f} s, train {step.train_s:.1f} s, weights {step.sync_s:.2f} s, together "
        f"{step.step_s:.1f} s and ${step.dollars:.4f}{bound}\n"
        f"{steps} steps: {steps * step.step_s / 3600:.1f} h and ${steps * step.dollars:,.0f}\n"
    )


def table(rows: Sequence[Scaled]) -> str:
    """The table over devices."""
    head = f"{'devices':>7} {'ranks':>6} {'workers':>8} {'prompts':>8} {'s/step':>8} {'$/step':>9} {'groups/s':>9}"
    lines = [f"{head} {'$/1000 groups':>14}"]
    lines += [
        f"{row.devices:>7} {row.ranks:>6} {row.workers:>8} {row.prompts:>8} {row.cost.step_s:>8.1f} "
        f"{row.cost.dollars:>9.4f} {row.groups_per_s:>9.3f} {1000 * row.cost.dollars / row.prompts:>14.2f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _needs(parts: Sequence[tuple[str, float]]) -> str:
    shown = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts if size)
    return f"{sum(size for _, size in parts) / GIB:.2f} GiB ({shown})"
