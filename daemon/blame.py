"""What breaches of the protocol have cost each peer, when it is enough, and for how long it is sent away then.

Knows keys, costs and seconds handed to it. Must never know what the breach was or how a peer is sent away.
"""

from collections import OrderedDict

ENOUGH = 100.0  # beyond this a peer is sent away; a false signature costs as much at once
FORGIVEN_PER_S = 0.5  # an old peer with a bug in it stays below
PEERS_MAX = 4096  # the peer blamed longest ago is forgiven
BAN_FIRST_S = 60.0  # how long a peer stays away after the first time; doubles each time it was not enough
BAN_LAST_S = 3600.0
BANS_MAX = 4096  # the peer sent away longest ago may come back sooner


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


class Bans:
    """Peers that were sent away and are not wanted back yet. Who behaves for as long as it was away starts over."""

    def __init__(self) -> None:
        self._bans: OrderedDict[bytes, tuple[float, float]] = OrderedDict()  # key -> until, how long it was

    def __len__(self) -> int:
        return len(self._bans)

    def add(self, key: bytes, now: float) -> float:
        """Send a peer away; until when."""
        until, length = self._bans.pop(key, (now, 0.0))
        again = length > 0 and now < until + length
        length = min(2 * length, BAN_LAST_S) if again else BAN_FIRST_S
        self._bans[key] = (now + length, length)
        if len(self._bans) > BANS_MAX:
            self._bans.popitem(last=False)
        return now + length

    def holds(self, key: bytes, now: float) -> bool:
        """Whether a peer has to stay away."""
        until, length = self._bans.get(key, (now, 0.0))
        if length and now >= until + length:
            del self._bans[key]
        return now < until
