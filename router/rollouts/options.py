"""The YAML that rollouts share: guards and gates."""

from router.strict import Model


class Guard(Model):
    """Conditions on live measurements that pause a rollout or roll it back."""
