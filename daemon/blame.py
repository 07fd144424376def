"""What breaches of the protocol have cost each peer, and when it is enough.

Knows keys, costs and seconds handed to it. Must never know what the breach was or how a peer is sent away.
"""

from collections import OrderedDict

ENOUGH = 100.0  # beyond this a peer is sent away; a false signature costs as much at once
FORGIVEN_PER_S = 0.5  # an old peer with a bug in it stays below
PEERS_MAX = 4096  # the peer blamed longest ago is forgiven


class Blame:
    """Costs of breaches by peer, fading with time."""

    def __init__(self) -> None:
        self._costs: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # key -> cost, when

    def __len__(self) -> int:
        return len(self._costs)

    def add(self, key: bytes, cost: float, now: float) -> bool:
        """Charge a peer; whether it has now cost enough to be sent away. Then its account begins anew."""
        before, at = self._costs.pop(key, (0.0, now))
        total = max(0.0, before - (now - at) * FORGIVEN_PER_S) + cost
        if total >= ENOUGH:
            return True
        if total > 0:
            self._costs[key] = (total, now)
            if len(self._costs) > PEERS_MAX:
                self._costs.popitem(last=False)
        return False
