"""Who could run this job, and every reason why someone can not.

Knows requirements and capacities; must never know leases, rounds or peers. Each "no" has a code a machine can read and
words a person can act on.
"""

from typing import NamedTuple, TypeAlias

from daemon.core.step import Capacity
from nexapod.job import MODES_RUN, Descriptor, Resolved, price_micro
from nexapod.messages import Advert, Offer, Policy

GIB = 2**30
Wanted: TypeAlias = Descriptor | Resolved  # before and after publishing, what a job needs reads the same


class Reason(NamedTuple):
    """One reason against running a job here: a code for machines, a sentence for people."""

    code: str
    detail: str


def reasons_against(job: Resolved, capacity: Capacity, *, image_here: bool) -> tuple[Reason, ...]:
    """Why this node does not claim tasks of `job`; empty when it does."""
    found: list[Reason] = []
    if job.mode not in MODES_RUN:
        found.append(Reason("mode", f"this version does not compare results in mode {job.mode.name.lower()}"))
    if job.policy is not Policy.STRICT:
        found.append(Reason("policy", "this version repeats every task"))
    if capacity.slots == 0:
        found.append(Reason("no-slots", "this node lends no slots"))
    found += _hardware_reasons(job, capacity)
    if job.engine in capacity.engines and not image_here:
        found.append(Reason("image-missing", f"no engine here holds image {job.image}"))
    return tuple(found)


def terms_of(job: Resolved, descriptor_hash: bytes, seed_commitment: bytes) -> Offer:
    """The one offer that stands for a descriptor in this version. An unverified result (quorum 1) pays nothing."""
    price = price_micro(job) if job.quorum > 1 else 0
    return Offer(
        job_id=job.job_id,
        descriptor=descriptor_hash,
        tasks=job.tasks,
        price=price,
        replicas=job.replicas,
        quorum=job.quorum,
        executions_max=job.executions_max,
        mode=job.mode,
        independence=job.independence,
        policy=job.policy,
        colour=None,
        lock=price * job.tasks * job.executions_max,
        seed_commitment=seed_commitment,
        steward=None,
    )


def reasons_against_offer(offer: Offer, job: Resolved) -> tuple[Reason, ...]:
    """Why an offer cannot be trusted to be what its descriptor says; empty when it can."""
    terms = terms_of(job, offer.descriptor, offer.seed_commitment)
    odd = [name for name in Offer.__struct_fields__ if getattr(offer, name) != getattr(terms, name)]
    return (Reason("terms", f"the offer contradicts its descriptor in {', '.join(odd)}"),) if odd else ()


def unmet_requirements(job: Wanted, adverts: list[Advert]) -> tuple[Reason, ...]:
    """What no node of the mesh meets; empty when at least as many nodes as the job has replicas could run it.

    When no single requirement rules everybody out but too few nodes meet all of them together, one reason says so.
    """
    if not adverts:
        return (Reason("no-nodes", "no other node is known yet"),)
    against = [_hardware_reasons(job, capacity_of(advert)) for advert in adverts]
    able = sum(not reasons for reasons in against)
    if able >= job.replicas:
        return ()
    if able == 0:
        shared = set.intersection(*({reason.code for reason in reasons} for reasons in against))
        if shared:
            return tuple(
                Reason(reason.code, f"none of {len(adverts)} nodes: {reason.detail}")
                for reason in against[0]
                if reason.code in shared
            )
    return (
        Reason("too-few-nodes", f"{able} of {len(adverts)} nodes could run it, {job.replicas} replicas need as many"),
    )


def capacity_of(advert: Advert) -> Capacity:
    """What a node says it lends, in the words this file compares."""
    return Capacity(
        slots=advert.slots,
        engines=frozenset(advert.engines),
        tier=advert.tier,
        cores=advert.profile.cores,
        ram_bytes=advert.profile.ram_bytes,
        disk_bytes=advert.profile.disk_bytes,
        numeric_class=advert.profile.numeric_class,
        gpus=tuple((gpu.vendor, gpu.vram_bytes) for gpu in advert.profile.gpus),
        willing=advert.slots > 0,
    )


def _hardware_reasons(job: Wanted, capacity: Capacity) -> list[Reason]:
    found: list[Reason] = []
    if not capacity.willing:
        found.append(Reason("not-working", capacity.why_not or "this node takes no work"))
    if job.engine not in capacity.engines:
        found.append(Reason("engine", f"the job needs engine {job.engine}, ready are: {_listed(capacity.engines)}"))
    if capacity.tier < job.tier:
        found.append(Reason("tier", f"the job needs tier {job.tier} or higher, this is tier {capacity.tier}"))
    if capacity.cores * 1000 < job.needs.cpus_milli:
        found.append(Reason("cpus", f"the job needs {job.needs.cpus_milli / 1000:g} cores, lent are {capacity.cores}"))
    if capacity.ram_bytes < job.needs.ram_bytes:
        needed, lent = job.needs.ram_bytes / GIB, capacity.ram_bytes / GIB
        found.append(Reason("ram", f"the job needs {needed:.1f} GiB of memory, lent are {lent:.1f}"))
    if capacity.disk_bytes < job.needs.disk_bytes:
        needed, lent = job.needs.disk_bytes / GIB, capacity.disk_bytes / GIB
        found.append(Reason("disk", f"the job needs {needed:.1f} GiB of disk, lent are {lent:.1f}"))
    # A numerical class begins with its architecture, spelled x86-64 where a job says x86_64.
    if job.needs.arch and not capacity.numeric_class.replace("-", "_").startswith(job.needs.arch):
        found.append(Reason("arch", f"the job needs {job.needs.arch}, this is {capacity.numeric_class or 'unknown'}"))
    found += _gpu_reasons(job, capacity)
    return found


def _gpu_reasons(job: Wanted, capacity: Capacity) -> list[Reason]:
    if job.needs.gpus == 0:
        return []
    fitting = [
        vendor
        for vendor, vram in capacity.gpus
        if vram >= job.needs.vram_bytes and (not job.needs.gpu_vendor or vendor == job.needs.gpu_vendor)
    ]
    if len(fitting) >= job.needs.gpus:
        return []
    wanted = f"{job.needs.gpus} {job.needs.gpu_vendor or ''} GPU".replace("  ", " ")
    memory = f" with {job.needs.vram_bytes / GIB:.1f} GiB" if job.needs.vram_bytes else ""
    return [Reason("gpu", f"the job needs {wanted}{memory}, lent are {len(fitting)}")]


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"
