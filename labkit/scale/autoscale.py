"""The arithmetic of Kubernetes' HorizontalPodAutoscaler, and of KEDA in front of it. A model: no cluster is asked.

The steps are those of the controller (kubernetes/pkg/controller/podautoscaler, release 1.35) and of its documentation
(kubernetes.io, "Horizontal Pod Autoscaling"): ratio and tolerance, the stabilisation window, the scaling policies, the bounds.
Pods that are not ready and metrics that are missing are left out: the caller gives one value for each sync period.

>>> hpa = Hpa(minimum=1, maximum=10, target=100)
>>> hpa.step(now=0, current=1, metric=200)   # one replica at twice its target
2
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

SYNC_S = 15.0  # --horizontal-pod-autoscaler-sync-period


class Policy(BaseModel):
    """At most `value` replicas, or percent of them, within `period_s`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["pods", "percent"]
    value: int = Field(gt=0)
    period_s: float = Field(gt=0, le=1800)


class Rules(BaseModel):
    """What holds in one direction. `select`: the policy that allows the biggest or the smallest change; disabled: none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stabilization_s: float = Field(0, ge=0, le=3600)
    policies: tuple[Policy, ...]
    select: Literal["max", "min", "disabled"] = "max"
    tolerance: float = Field(0.1, ge=0)


# the defaults of autoscaling/v2
UP = Rules(policies=(Policy(kind="percent", value=100, period_s=15), Policy(kind="pods", value=4, period_s=15)))
DOWN = Rules(stabilization_s=300, policies=(Policy(kind="percent", value=100, period_s=15),))


class _Event(NamedTuple):
    at: float
    replicas: int


class Hpa:
    """One HorizontalPodAutoscaler. It remembers its own recommendations and changes, as the controller does.

    target, metric: of one replica on average (`average=True`: CPU, or a Pods metric), or of all replicas together, which is
    divided among them (`average=False`: an External metric with a target of type AverageValue, what KEDA makes).
    """

    def __init__(self, *, minimum: int = 1, maximum: int, target: float, average: bool = True, up: Rules = UP, down: Rules = DOWN) -> None:
        if not 0 < minimum <= maximum or target <= 0:
            raise ValueError(f"minimum {minimum}, maximum {maximum}, target {target}: 0 < minimum <= maximum and target > 0")
        self.minimum, self.maximum, self.target, self.average, self.up, self.down = minimum, maximum, target, average, up, down
        self._recommended: list[_Event] = []
        self._added: list[_Event] = []
        self._removed: list[_Event] = []

    def step(self, now: float, current: int, metric: float) -> int:
        """The replicas after one sync period. now: seconds on any clock; current: replicas that the target has now."""
        if current == 0:
            return 0  # the controller is off while its target has no replicas
        if not self.minimum <= current <= self.maximum:
            return self._change(now, current, min(max(current, self.minimum), self.maximum))
        wanted = self._stabilized(now, current, self.wanted(current, metric))
        return self._change(now, current, self._limited(now, current, wanted))

    def wanted(self, current: int, metric: float) -> int:
        """ceil(current x ratio), or current while the ratio is within the tolerance. No window, no policy, no bounds."""
        ratio = metric / self.target if self.average else metric / (self.target * current)
        if 1 - self.down.tolerance <= ratio <= 1 + self.up.tolerance:
            return current
        return math.ceil(_exact(ratio * current if self.average else metric / self.target))

    def _stabilized(self, now: float, current: int, wanted: int) -> int:
        """Up to the lowest recommendation of the window for scaling up; down to the highest of the one for scaling down."""
        lowest = min([e.replicas for e in self._recommended if e.at > now - self.up.stabilization_s], default=wanted)
        highest = max([e.replicas for e in self._recommended if e.at > now - self.down.stabilization_s], default=wanted)
        keep = max(self.up.stabilization_s, self.down.stabilization_s)
        self._recommended = [e for e in self._recommended if e.at > now - keep] + [_Event(now, wanted)]
        return min(max(current, min(lowest, wanted)), max(highest, wanted))

    def _limited(self, now: float, current: int, wanted: int) -> int:
        if wanted > current:
            return min(wanted, self.maximum, max(current, self._limit(now, current, self.up, 1)))
        if wanted < current:
            return max(wanted, self.minimum, min(current, self._limit(now, current, self.down, -1)))
        return wanted

    def _limit(self, now: float, current: int, rules: Rules, sign: int) -> int:
        """How far the policies let it go, from the replicas that there were when each policy's period began."""
        if rules.select == "disabled":
            return current
        reached = []
        for policy in rules.policies:
            since = now - policy.period_s
            added, removed = (sum(e.replicas for e in events if e.at > since) for events in (self._added, self._removed))
            began = current - added + removed
            if policy.kind == "pods":
                reached.append(began + sign * policy.value)
            else:  # the controller rounds up when it adds, and down to a whole number of replicas that stay when it removes
                share = _exact(began * (1 + sign * policy.value / 100))
                reached.append(math.ceil(share) if sign > 0 else int(share))
        return max(reached) if (rules.select == "max") == (sign > 0) else min(reached)

    def _change(self, now: float, current: int, chosen: int) -> int:
        longest = max(policy.period_s for rules in (self.up, self.down) for policy in rules.policies)
        self._added, self._removed = ([e for e in events if e.at > now - longest] for events in (self._added, self._removed))
        if chosen > current:
            self._added.append(_Event(now, chosen - current))
        elif chosen < current:
            self._removed.append(_Event(now, current - chosen))
        return chosen


class Trigger(BaseModel):
    """KEDA's ScaledObject with one Prometheus trigger (keda.sh, "Scaling Deployments, StatefulSets & Custom Resources").

    threshold: what one replica should have of the query's value; activation: the value above which there are any replicas.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum: int = Field(0, ge=0)
    maximum: int = Field(100, ge=1)
    threshold: float = Field(gt=0)
    activation: float = Field(0, ge=0)
    polling_s: float = Field(30, gt=0, description="how often KEDA itself looks, for 0 to 1 and back")
    cooldown_s: float = Field(300, ge=0, description="from the last activity to no replicas; from minimum 1 on it plays no part")
    up: Rules = UP
    down: Rules = DOWN

    @model_validator(mode="after")
    def _bounds(self) -> Trigger:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class Keda:
    """KEDA decides between none and some, at its polling interval; the HPA that it makes decides how many, at its own.

    Call `step` at least as often as either of them looks; it acts only when one of them would.
    """

    def __init__(self, trigger: Trigger, sync_s: float = SYNC_S) -> None:
        self.trigger, self.sync_s = trigger, sync_s
        least = max(1, trigger.minimum)
        self._hpa = Hpa(minimum=least, maximum=trigger.maximum, target=trigger.threshold, average=False, up=trigger.up, down=trigger.down)
        self._active_at: float | None = None
        self._polled = self._synced = -math.inf

    def step(self, now: float, current: int, value: float) -> int:
        """The replicas now. value: what the query gives."""
        if now - self._polled >= self.trigger.polling_s:
            self._polled = now
            current = self._poll(now, current, value)
        if now - self._synced >= self.sync_s:
            self._synced = now
            current = self._hpa.step(now, current, value)
        return current

    def _poll(self, now: float, current: int, value: float) -> int:
        if self._active_at is None:
            self._active_at = now  # the cooldown counts from the beginning where nothing was ever active
        if value > self.trigger.activation:
            self._active_at = now
            return current or max(1, self.trigger.minimum)
        if self.trigger.minimum == 0 and current > 0 and now - self._active_at >= self.trigger.cooldown_s:
            return 0
        return current


def _exact(value: float) -> float:
    """Without the last digits of binary fractions: 3 x 1.1 / 1.1 is 3, not a little more, before it is rounded up."""
    return round(value, 9)
