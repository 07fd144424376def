"""A daemon whose wall clock is wrong by NEXAPOD_TEST_SKEW_S seconds; everything else is the real daemon."""

import os
import time

real_time, real_time_ns = time.time, time.time_ns
skew_s = int(os.environ["NEXAPOD_TEST_SKEW_S"])


def wrong_time() -> float:
    return real_time() + skew_s


def wrong_time_ns() -> int:
    return real_time_ns() + skew_s * 10**9


if __name__ == "__main__":
    time.time, time.time_ns = wrong_time, wrong_time_ns
    from daemon.main import main

    main()
