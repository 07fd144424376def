"""What breaches cost, how the cost fades, and that the table stays bounded."""

from daemon.blame import BAN_FIRST_S, BAN_LAST_S, BANS_MAX, ENOUGH, FORGIVEN_PER_S, PEERS_MAX, Bans, Blame


def test_a_peer_is_sent_away_when_its_breaches_add_up() -> None:
    blame = Blame()
    assert not any(blame.add(b"peer", 10, now=0.0) for _ in range(9))
    assert not blame.add(b"other", 10, now=0.0)
    assert blame.add(b"peer", 10, now=0.0)


def test_one_false_signature_is_enough() -> None:
    assert Blame().add(b"peer", ENOUGH, now=0.0)
    assert not Blame().add(b"peer", ENOUGH - 1, now=0.0)


def test_an_account_begins_anew_after_a_peer_was_sent_away() -> None:
    blame = Blame()
    assert blame.add(b"peer", 100, now=0.0)
    assert len(blame) == 0
    assert not blame.add(b"peer", 99, now=0.0)


def test_breaches_fade() -> None:
    blame = Blame()
    blame.add(b"peer", 90, now=0.0)
    assert not blame.add(b"peer", 90, now=90 / FORGIVEN_PER_S)  # all forgiven by then, and never more than all
    assert blame.add(b"peer", 10, now=90 / FORGIVEN_PER_S)


def test_a_slow_bug_never_adds_up() -> None:
    blame = Blame()
    assert not any(blame.add(b"peer", 1, now=2.0 * second) for second in range(1000))


def test_what_costs_nothing_is_not_remembered() -> None:
    blame = Blame()
    assert not any(blame.add(bytes([number]), 0, now=0.0) for number in range(200))
    assert len(blame) == 0


def test_the_table_is_bounded_and_forgives_whoever_was_blamed_longest_ago() -> None:
    blame = Blame()
    blame.add(b"first", 90, now=0.0)
    blame.add(b"second", 90, now=0.0)
    blame.add(b"first", 5, now=0.0)  # the second is the oldest now
    for number in range(PEERS_MAX - 1):
        blame.add(number.to_bytes(4, "big"), 1, now=0.0)
    assert len(blame) == PEERS_MAX
    assert not blame.add(b"second", 90, now=0.0)  # forgiven
    blame.add(b"first", 1, now=0.0)
    assert blame.add(b"second", 10, now=0.0)


# --- staying away -----------------------------------------------------------------------------------------------------
def test_a_peer_that_was_sent_away_may_come_back_after_a_while() -> None:
    bans = Bans()
    assert not bans.holds(b"peer", now=0.0)
    assert bans.add(b"peer", now=10.0) == 10.0 + BAN_FIRST_S
    assert bans.holds(b"peer", now=10.0)
    assert bans.holds(b"peer", now=9.9 + BAN_FIRST_S)
    assert not bans.holds(b"peer", now=10.0 + BAN_FIRST_S)
    assert not bans.holds(b"other", now=10.0)


def test_each_time_it_stays_away_longer_until_it_behaves() -> None:
    bans, moment, lengths = Bans(), 0.0, []
    for _ in range(8):
        until = bans.add(b"peer", moment)
        lengths.append(until - moment)
        moment = until  # no sooner back than it must go again
    assert lengths == [min(BAN_FIRST_S * 2**number, BAN_LAST_S) for number in range(8)]
    calm = moment + BAN_LAST_S  # it has behaved for as long as it was away
    assert not bans.holds(b"peer", calm)
    assert len(bans) == 0
    assert bans.add(b"peer", calm) == calm + BAN_FIRST_S


def test_the_table_of_those_away_is_bounded() -> None:
    bans = Bans()
    for number in range(BANS_MAX + 1):
        bans.add(number.to_bytes(4, "big"), now=0.0)
    assert len(bans) == BANS_MAX
    assert not bans.holds(bytes(4), now=0.0)
    assert bans.holds(bytes((0, 0, 0, 1)), now=0.0)


# --- bans -------------------------------------------------------------------------------------------------------------
def test_a_peer_stays_away_for_a_while_and_longer_each_time() -> None:
    bans, now = Bans(), 0.0
    for length in (BAN_FIRST_S, 2 * BAN_FIRST_S, 4 * BAN_FIRST_S):
        assert bans.add(b"peer", now) == now + length
        assert bans.holds(b"peer", now + length - 1)
        now += length
        assert not bans.holds(b"peer", now)
    for _ in range(20):
        until = bans.add(b"peer", now)
        assert until - now <= BAN_LAST_S
        now = until
    assert not bans.holds(b"other", now)


def test_whoever_behaves_as_long_as_it_was_away_starts_over() -> None:
    bans = Bans()
    bans.add(b"peer", 0.0)
    assert bans.add(b"peer", 2 * BAN_FIRST_S) == 3 * BAN_FIRST_S
    assert not bans.holds(b"peer", 4 * BAN_FIRST_S)
    assert len(bans) == 0


def test_bans_are_bounded_and_the_oldest_ends_sooner() -> None:
    bans = Bans()
    for number in range(BANS_MAX + 1):
        bans.add(number.to_bytes(4, "big"), 0.0)
    assert len(bans) == BANS_MAX
    assert not bans.holds(bytes(4), 0.0)
    assert bans.holds((1).to_bytes(4, "big"), 0.0)
