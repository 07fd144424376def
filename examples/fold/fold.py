"""Molecular dynamics of a capped peptide in implicit solvent: one task is one trajectory from its own seed.

Reads /in/peptide.fasta and /in/params.json, writes /out/final.pdb, /out/energies.csv and /out/summary.json. Everything
that is random comes from NEXAPOD_SEED, and everything is computed in double precision on one thread (OpenMM's Reference
platform), so two machines write the same bytes.
"""

import json
import math
import os
import random
import sys
from pathlib import Path

import openmm
from openmm import app, unit
from openmm.app.element import Element

IN, OUT = Path(os.environ.get("FOLD_IN", "/in")), Path(os.environ.get("FOLD_OUT", "/out"))

NAMES = {"A": "ALA", "G": "GLY", "S": "SER", "V": "VAL", "L": "LEU", "K": "LYS", "E": "GLU", "Q": "GLN"}
# Heavy atoms of a side chain by internal coordinates: name, the three atoms it hangs from (the last one is its bond
# partner), bond in nm, angle and dihedral in degrees. Ideal values are enough: a minimisation follows.
SIDE_CHAINS = {
    "ALA": (),
    "GLY": (),
    "SER": (("OG", "N", "CA", "CB", 0.142, 110.8, -63.0),),
    "VAL": (("CG1", "N", "CA", "CB", 0.153, 110.7, 177.0), ("CG2", "N", "CA", "CB", 0.153, 110.4, -63.0)),
    "LEU": (
        ("CG", "N", "CA", "CB", 0.153, 116.1, -60.0),
        ("CD1", "CA", "CB", "CG", 0.152, 110.3, 175.0),
        ("CD2", "CA", "CB", "CG", 0.152, 110.6, 64.0),
    ),
    "LYS": (
        ("CG", "N", "CA", "CB", 0.152, 113.8, -65.0),
        ("CD", "CA", "CB", "CG", 0.152, 111.8, 180.0),
        ("CE", "CB", "CG", "CD", 0.152, 111.7, 180.0),
        ("NZ", "CG", "CD", "CE", 0.149, 111.9, 180.0),
    ),
    "GLU": (
        ("CG", "N", "CA", "CB", 0.152, 113.8, -64.0),
        ("CD", "CA", "CB", "CG", 0.152, 113.3, 178.0),
        ("OE1", "CB", "CG", "CD", 0.125, 119.0, -6.0),
        ("OE2", "CB", "CG", "CD", 0.125, 118.1, 174.0),
    ),
    "GLN": (
        ("CG", "N", "CA", "CB", 0.152, 113.8, -60.0),
        ("CD", "CA", "CB", "CG", 0.152, 112.8, 180.0),
        ("OE1", "CB", "CG", "CD", 0.124, 120.9, -50.0),
        ("NE2", "CB", "CG", "CD", 0.133, 116.5, 130.0),
    ),
}
Point = tuple[float, float, float]


def main() -> None:
    params = json.loads((IN / "params.json").read_text())
    sequence = read_fasta(IN / "peptide.fasta")
    seed = int(os.environ["NEXAPOD_SEED"])
    openmm_seed = seed % (2**31 - 2) + 1  # OpenMM takes 31 bits, and 0 would mean "pick one for me"

    topology, positions = build(sequence)
    simulation = prepare(topology, positions, params, openmm_seed)
    rows = run(simulation, params)

    state = simulation.context.getState(getPositions=True)
    final = state.getPositions().value_in_unit(unit.nanometer)
    write_pdb(OUT / "final.pdb", simulation.topology, final)
    lines = ["step,potential_kj_mol,kinetic_kj_mol,end_to_end_nm"]
    lines += [f"{step},{potential:.3f},{kinetic:.3f},{length:.4f}" for step, potential, kinetic, length in rows]
    (OUT / "energies.csv").write_text("\n".join(lines) + "\n")
    summary = {
        "sequence": sequence,
        "atoms": simulation.topology.getNumAtoms(),
        "steps": params["steps"],
        "seed": seed,
        "potential_kj_mol": f"{rows[-1][1]:.3f}",
        "end_to_end_nm": f"{rows[-1][3]:.4f}",
    }
    (OUT / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")


def read_fasta(path: Path) -> str:
    lines = path.read_text().splitlines()
    sequence = "".join(line.strip() for line in lines if not line.startswith(">")).upper()
    unknown = sorted(set(sequence) - set(NAMES))
    if unknown or not 1 <= len(sequence) <= 24:
        sys.exit(f"{path.name}: 1 to 24 residues of {''.join(sorted(NAMES))} expected, found {sequence!r}")
    return sequence


def build(sequence: str) -> tuple[app.Topology, list[Point]]:
    """ACE-(sequence)-NME as a right-handed helix of heavy atoms: phi -60, psi -45 degrees, all peptide bonds trans."""
    topology = app.Topology()
    chain = topology.addChain("A")
    positions: list[Point] = []
    at: dict[tuple[int, str], Point] = {}

    def put(residue: app.Residue, name: str, point: Point) -> None:
        element = Element.getBySymbol(name[0])
        topology.addAtom(name, element, residue)
        positions.append(point)
        at[residue.index, name] = point

    cap = topology.addResidue("ACE", chain)
    put(cap, "CH3", (0.0, 0.0, 0.0))
    put(cap, "C", (0.152, 0.0, 0.0))
    put(cap, "O", (0.2135, 0.1065, 0.0))
    before = ("CH3", "C")  # the two atoms of the previous residue that fix the direction of the next bond
    for letter in sequence:
        residue = topology.addResidue(NAMES[letter], chain)
        here, last = residue.index, residue.index - 1
        # psi of the residue before turns N; the cap has no psi, any value will do.
        anchor = at[last, before[0]], at[last, before[1]]
        first = at.get((last, "N"), (0.0, 0.1, 0.1))
        put(residue, "N", place(first, *anchor, 0.1335, 116.6, -45.0))
        put(residue, "CA", place(at[last, before[0]], at[last, "C"], at[here, "N"], 0.1449, 121.7, 180.0))
        put(residue, "C", place(at[last, "C"], at[here, "N"], at[here, "CA"], 0.1522, 110.1, -60.0))
        put(residue, "O", place(at[here, "N"], at[here, "CA"], at[here, "C"], 0.1229, 120.4, 135.0))
        if letter != "G":
            put(residue, "CB", place(at[last, "C"], at[here, "N"], at[here, "CA"], 0.1526, 109.7, 178.0))
        for name, a, b, c, bond, angle, dihedral in SIDE_CHAINS[NAMES[letter]]:
            put(residue, name, place(at[here, a], at[here, b], at[here, c], bond, angle, dihedral))
        before = ("CA", "C")
    end = topology.addResidue("NME", chain)
    last = end.index - 1
    put(end, "N", place(at[last, "N"], at[last, "CA"], at[last, "C"], 0.1335, 116.6, -45.0))
    put(end, "C", place(at[last, "CA"], at[last, "C"], at[end.index, "N"], 0.1449, 121.7, 180.0))
    topology.createStandardBonds()
    return topology, positions


def place(a: Point, b: Point, c: Point, bond: float, angle_deg: float, dihedral_deg: float) -> Point:
    """The point d with |cd| = bond, angle b-c-d and dihedral a-b-c-d."""
    angle, dihedral = math.radians(angle_deg), math.radians(dihedral_deg)
    axis = unit_vector(minus(c, b))
    normal = unit_vector(cross(minus(b, a), axis))
    side = cross(normal, axis)
    along = -bond * math.cos(angle)
    out = bond * math.sin(angle) * math.cos(dihedral)
    up = bond * math.sin(angle) * math.sin(dihedral)
    x, y, z = (c[i] + along * axis[i] + out * side[i] + up * normal[i] for i in range(3))
    return x, y, z


def minus(a: Point, b: Point) -> Point:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def cross(a: Point, b: Point) -> Point:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def unit_vector(a: Point) -> Point:
    length = math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2])
    return a[0] / length, a[1] / length, a[2] / length


def prepare(
    topology: app.Topology, positions: list[Point], params: dict[str, float], openmm_seed: int
) -> app.Simulation:
    reference = openmm.Platform.getPlatformByName("Reference")
    field = app.ForceField("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
    random.seed(openmm_seed)  # Modeller drops hydrogens at random spots before it relaxes them
    modeller = app.Modeller(topology, [openmm.Vec3(*point) for point in positions] * unit.nanometer)
    modeller.addHydrogens(field, platform=reference)
    system = field.createSystem(modeller.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    integrator = openmm.LangevinMiddleIntegrator(
        params["temperature_k"] * unit.kelvin,
        params["friction_per_ps"] / unit.picosecond,
        params["timestep_fs"] * unit.femtosecond,
    )
    integrator.setRandomNumberSeed(openmm_seed)
    simulation = app.Simulation(modeller.topology, system, integrator, reference)
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=int(params["minimise_iterations"]))
    simulation.context.setVelocitiesToTemperature(params["temperature_k"] * unit.kelvin, openmm_seed)
    return simulation


def run(simulation: app.Simulation, params: dict[str, float]) -> list[tuple[int, float, float, float]]:
    steps, every = int(params["steps"]), int(params["report_every"])
    carbons = [atom.index for atom in simulation.topology.atoms() if atom.name == "CA"]
    rows = [measure(simulation, 0, carbons)]
    for step in range(every, steps + 1, every):
        simulation.step(every)
        rows.append(measure(simulation, step, carbons))
        (OUT / ".progress").write_text(f"{step / steps:.2f}\n")
    return rows


def measure(simulation: app.Simulation, step: int, carbons: list[int]) -> tuple[int, float, float, float]:
    state = simulation.context.getState(getEnergy=True, getPositions=True)
    kj = unit.kilojoule_per_mole
    points = state.getPositions().value_in_unit(unit.nanometer)
    ends = math.dist(points[carbons[0]], points[carbons[-1]])
    return step, state.getPotentialEnergy().value_in_unit(kj), state.getKineticEnergy().value_in_unit(kj), ends


def write_pdb(path: Path, topology: app.Topology, points: list[openmm.Vec3]) -> None:
    """A PDB with no date and no version in it; OpenMM's own writer stamps both, and replicas would differ."""
    lines = []
    for atom in topology.atoms():
        name = atom.name if len(atom.name) == 4 else f" {atom.name}"
        x, y, z = (10.0 * value for value in points[atom.index])
        lines.append(
            f"ATOM  {atom.index + 1:5d} {name:<4s} {atom.residue.name:>3s} A{atom.residue.index + 1:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {atom.element.symbol:>2s}"
        )
    path.write_text("\n".join([*lines, "TER", "END", ""]))


if __name__ == "__main__":
    main()
