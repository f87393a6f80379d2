"""A container's whole life over gRPC, as a program in another language drives it.

Arguments: socket, namespace, image, a directory for its output. Prints what it saw as JSON.
"""

import json
import os
import queue
import sys
import threading

import grpc
from google.protobuf.any_pb2 import Any

from containerd.services.containers.v1 import containers_pb2, containers_pb2_grpc
from containerd.services.content.v1 import content_pb2, content_pb2_grpc
from containerd.services.events.v1 import events_pb2, events_pb2_grpc
from containerd.services.images.v1 import images_pb2, images_pb2_grpc
from containerd.services.snapshots.v1 import snapshots_pb2, snapshots_pb2_grpc
from containerd.services.tasks.v1 import tasks_pb2, tasks_pb2_grpc
from containerd.services.version.v1 import version_pb2_grpc
from google.protobuf.empty_pb2 import Empty

SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"
ID = "life"
SNAPSHOTTER = "overlayfs"
PROBE = "/probe"

socket, namespace, image, directory = sys.argv[1:]
# Without this, grpcio names the socket's path as the authority, which HTTP/2 has no room for.
channel = grpc.insecure_channel(
    "unix://" + socket, options=[("grpc.default_authority", "localhost")]
)
WHERE = {"metadata": [("containerd-namespace", namespace)], "timeout": 60}
seen = {}


def document(content, digest):
    """A JSON document in the content store."""
    pieces = content.Read(content_pb2.ReadContentRequest(digest=digest), **WHERE)
    return json.loads(b"".join(piece.data for piece in pieces))


def chain_of(name):
    """The chain of an image with one layer: what its snapshot is called."""
    images = images_pb2_grpc.ImagesStub(channel)
    content = content_pb2_grpc.ContentStub(channel)
    target = images.Get(images_pb2.GetImageRequest(name=name), **WHERE).image.target
    manifest = document(content, target.digest)
    if "manifests" in manifest:
        manifest = document(content, manifest["manifests"][0]["digest"])
    (layer,) = document(content, manifest["config"]["digest"])["rootfs"]["diff_ids"]
    return layer


def process(*args):
    return {"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}


def packed(kind, value):
    return Any(type_url=kind, value=json.dumps(value).encode())


def reader(name):
    """A FIFO for a task's output, and what comes out of it in the end.

    Who names one output names both: runc's shim opens neither or each.
    """
    path = os.path.join(directory, name)
    os.mkfifo(path)
    result = []
    thread = threading.Thread(target=lambda: result.append(open(path).read()))
    thread.start()

    def text():
        thread.join()
        return result[0]

    return path, text


def subscribe():
    """Events about tasks and containers, from when this returns; and how to end that.

    A server need not answer a subscription before its first event, and containerd does not. So it
    is there once it has heard an event that is published for that.
    """
    service = events_pb2_grpc.EventsStub(channel)
    topics = f'namespace=={namespace},topic~="^/(tasks|containers)/"'
    filters = [topics, f'namespace=={namespace},topic=="{PROBE}"']
    stream = service.Subscribe(events_pb2.SubscribeRequest(filters=filters))
    heard = queue.Queue()

    def listen():
        try:
            for envelope in stream:
                heard.put(envelope)
        except grpc.RpcError:
            pass  # The channel is closed.

    threading.Thread(target=listen, daemon=True).start()
    probe = events_pb2.PublishRequest(topic=PROBE, event=packed(PROCESS, {}))
    while True:
        service.Publish(probe, **WHERE)
        try:
            heard.get(timeout=0.05)
            break
        except queue.Empty:
            pass

    def after_the_probes():
        while True:
            envelope = heard.get(timeout=60)
            if envelope.topic != PROBE:
                yield envelope

    return after_the_probes(), stream.cancel


version = version_pb2_grpc.VersionStub(channel).Version(Empty(), timeout=60)
seen["version"] = version.version

events, unsubscribe = subscribe()
snapshots = snapshots_pb2_grpc.SnapshotsStub(channel)
containers = containers_pb2_grpc.ContainersStub(channel)
tasks = tasks_pb2_grpc.TasksStub(channel)

prepared = snapshots.Prepare(
    snapshots_pb2.PrepareSnapshotRequest(
        snapshotter=SNAPSHOTTER, key=ID, parent=chain_of(image)
    ),
    **WHERE,
)
spec = {
    "ociVersion": "1.1.0",
    "process": process("sh", "-c", "echo hello from $$; exec sleep 1000"),
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {
        "cgroupsPath": f"/{namespace}/{ID}",
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
    },
}
containers.Create(
    containers_pb2.CreateContainerRequest(
        container=containers_pb2.Container(
            id=ID,
            image=image,
            runtime=containers_pb2.Container.Runtime(name="io.containerd.runc.v2"),
            snapshotter=SNAPSHOTTER,
            snapshot_key=ID,
            spec=packed(SPEC, spec),
        )
    ),
    **WHERE,
)
stdout, hello = reader("stdout")
created = tasks.Create(
    tasks_pb2.CreateTaskRequest(
        container_id=ID, rootfs=prepared.mounts, stdout=stdout, stderr=stdout
    ),
    **WHERE,
)
waiting = tasks.Wait.future(tasks_pb2.WaitRequest(container_id=ID), **WHERE)
started = tasks.Start(tasks_pb2.StartRequest(container_id=ID), **WHERE)
assert created.pid == started.pid and os.path.exists(f"/proc/{started.pid}")

# Until the first process has said what it has to say and is another program.
look = "while grep -q echo /proc/1/cmdline; do sleep 0.01; done; echo inside; exit 3"
inside, answer = reader("inside")
tasks.Exec(
    tasks_pb2.ExecProcessRequest(
        container_id=ID,
        exec_id="look",
        stdout=inside,
        stderr=inside,
        spec=packed(PROCESS, process("sh", "-c", look)),
    ),
    **WHERE,
)
tasks.Start(tasks_pb2.StartRequest(container_id=ID, exec_id="look"), **WHERE)
ended = tasks.Wait(tasks_pb2.WaitRequest(container_id=ID, exec_id="look"), **WHERE)
seen["exec"] = [answer().strip(), ended.exit_status]
tasks.DeleteProcess(
    tasks_pb2.DeleteProcessRequest(container_id=ID, exec_id="look"), **WHERE
)

try:
    containers.Get(containers_pb2.GetContainerRequest(id="nobody"), **WHERE)
except grpc.RpcError as error:
    seen["missing"] = error.code().name

tasks.Kill(tasks_pb2.KillRequest(container_id=ID, signal=9), **WHERE)
seen["exit"] = waiting.result().exit_status
seen["output"] = hello().strip()
tasks.Delete(tasks_pb2.DeleteTaskRequest(container_id=ID), **WHERE)
containers.Delete(containers_pb2.DeleteContainerRequest(id=ID), **WHERE)
snapshots.Remove(
    snapshots_pb2.RemoveSnapshotRequest(snapshotter=SNAPSHOTTER, key=ID), **WHERE
)

seen["topics"] = []
for envelope in events:
    seen["topics"].append(envelope.topic)
    if envelope.topic == "/containers/delete":
        break
unsubscribe()
channel.close()
print(json.dumps(seen))
