"""The demo task source: small invented databases, templated questions, and a deliberately imperfect teacher."""

from rollout.tasks.demo.loader import load_demo

__all__ = ["load_demo"]
