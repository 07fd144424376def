"""A Lorenz-96 weather ensemble: one task is one batch of members, started from slightly different states.

Reads /in/params.json, writes /out/state.csv (the final state of every member) and /out/summary.json (how fast the
members drift apart). Only additions, multiplications and `math.fsum` are used: IEEE 754 rounds those in one way only,
so every CPU writes the same bytes although the system is chaotic.
"""

import json
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IN, OUT = Path(os.environ.get("WEATHER_IN", "/in")), Path(os.environ.get("WEATHER_OUT", "/out"))
States = NDArray[np.float64]  # one row per member, one column per site on the circle


def main() -> None:
    params = json.loads((IN / "params.json").read_text())
    seed = int(os.environ["NEXAPOD_SEED"])
    sites, members = params["sites"], params["members"]

    # One common analysis, spun up onto the attractor, then a small uniform error for each member but the first.
    analysis = np.full((1, sites), params["forcing"])
    analysis[0, 0] += 0.01
    for _ in range(params["spin_up_steps"]):
        analysis = step(analysis, params["forcing"], params["dt"])
    error = np.random.Generator(np.random.PCG64(seed)).random((members, sites)) - 0.5
    error[0] = 0.0
    states = analysis + params["error"] * error

    spread = [rms_spread(states)]
    for number in range(1, params["steps"] + 1):
        states = step(states, params["forcing"], params["dt"])
        if number % params["report_every"] == 0:
            spread.append(rms_spread(states))

    header = "member," + ",".join(f"x{site}" for site in range(sites))
    rows = [f"{member}," + ",".join(f"{value:.6f}" for value in row) for member, row in enumerate(states)]
    (OUT / "state.csv").write_text("\n".join([header, *rows]) + "\n")
    summary = {
        "seed": seed,
        "task": int(os.environ["NEXAPOD_TASK_INDEX"]),
        "members": members,
        "days": f"{params['steps'] * params['dt'] * 5:.2f}",  # 0.05 model time units are six hours (Lorenz 1996)
        "mean": f"{math.fsum(states.ravel()) / states.size:.6f}",
        "spread": [f"{value:.6f}" for value in spread],
    }
    (OUT / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")


def step(x: States, forcing: float, dt: float) -> States:
    """One classical Runge-Kutta step of dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F."""
    k1 = tendency(x, forcing)
    k2 = tendency(x + (dt / 2) * k1, forcing)
    k3 = tendency(x + (dt / 2) * k2, forcing)
    k4 = tendency(x + dt * k3, forcing)
    return x + (dt / 6) * (k1 + 2 * k2 + 2 * k3 + k4)


def tendency(x: States, forcing: float) -> States:
    return (np.roll(x, -1, axis=1) - np.roll(x, 2, axis=1)) * np.roll(x, 1, axis=1) - x + forcing


def rms_spread(states: States) -> float:
    """Root mean square distance of the members from their mean, with exactly rounded sums."""
    members, sites = states.shape
    mean = np.array([math.fsum(states[:, site]) / members for site in range(sites)])
    squares = (states - mean) ** 2
    return math.sqrt(math.fsum(squares.ravel()) / squares.size)


if __name__ == "__main__":
    main()
