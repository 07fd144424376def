"""A daemon whose engine lies: every output it reports has one byte more than the program wrote.

Everything else is the real daemon: it commits, opens and hands over its forged bytes like an honest one.
"""

from collections.abc import Mapping
from pathlib import Path

from daemon.main import main
from runtime import docker
from runtime.blobs import BlobStore
from runtime.engine import Report
from runtime.outputs import manifest_of, result_root
from runtime.task import Finished, Outcome, OutputFile, TaskSpec

honest_run = docker.DockerEngine.run


async def forged_run(
    self: docker.DockerEngine, spec: TaskSpec, inputs: Mapping[str, Path], blobs: BlobStore, report: Report
) -> Outcome:
    outcome = await honest_run(self, spec, inputs, blobs, report)
    if not isinstance(outcome, Finished):
        return outcome
    files = []
    for file in outcome.files:
        content = blobs.read(file.sha256) + b"!"
        files.append(OutputFile(file.path, len(content), blobs.put(content)))
    manifest = manifest_of(outcome.exit_code, files)
    blobs.put(manifest)
    root = result_root(manifest)
    return Finished(outcome.exit_code, root, manifest, tuple(files), outcome.log, outcome.run_ms)


if __name__ == "__main__":
    docker.DockerEngine.run = forged_run  # type: ignore[method-assign]
    main()
