"""docker-py against the engine at DOCKER_HOST: one function for each part of its API. The image busybox is there."""

import faulthandler
import io
import json
import os
import socket
import sys
import tarfile
import threading

import urllib.request

import docker
import docker.errors
from docker.types import IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

faulthandler.dump_traceback_later(240, exit=True)
client = docker.from_env(version="auto", timeout=60)
api = client.api
REGISTRY = os.environ.get("REGISTRY", "")


def refused(error, call, *args, **keywords):
    try:
        call(*args, **keywords)
    except error as raised:
        return raised
    raise AssertionError(f"{call.__name__} was not refused")


def sleeper(**keywords):
    return client.containers.run("busybox", ["sleep", "1000"], detach=True, **keywords)


def system():
    assert client.ping() is True
    version = client.version()
    assert version["Os"] == "linux" and version["Arch"] and version["KernelVersion"]
    assert tuple(map(int, version["ApiVersion"].split("."))) >= (1, 41)
    info = client.info()
    assert info["OSType"] == "linux" and info["NCPU"] > 0 and info["MemTotal"] > 0
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    usage = client.df()
    assert {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"} <= set(usage)
    refused(docker.errors.APIError, client.swarm.reload)
    assert "page not found" in str(refused(docker.errors.NotFound, lambda: api._result(api._get(api._url("/nosuch")))))


def versions():
    for version in ("1.24", "1.30", "1.41"):
        old = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version=version)
        assert isinstance(old.containers(all=True), list) and old.inspect_image("busybox")["Id"]
        old.close()
    error = refused(docker.errors.APIError, docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="9.99").containers)
    assert error.status_code == 400 and "client version 9.99 is too new" in error.explanation


def run():
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    both = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], stdout=True, stderr=True, remove=True)
    assert sorted(both.splitlines()) == [b"err", b"out"]
    error = refused(docker.errors.ContainerError, client.containers.run, "busybox", ["sh", "-c", "echo no >&2; exit 7"], remove=True)
    assert error.exit_status == 7 and b"no" in error.stderr
    refused(docker.errors.APIError, client.containers.run, "busybox", ["nosuch"], remove=True)
    lines = list(client.containers.run("busybox", ["sh", "-c", "echo a; echo b"], stream=True))
    assert b"".join(lines) == b"a\nb\n"


def life():
    container = sleeper(name="life", labels={"kind": "life"}, environment={"ONE": "1"}, hostname="box")
    assert container.status in ("created", "running")
    container.reload()
    assert container.status == "running" and container.name == "life" and container.labels["kind"] == "life"
    assert container.attrs["Config"]["Hostname"] == "box" and "ONE=1" in container.attrs["Config"]["Env"]
    assert client.containers.get("life").id == container.id == client.containers.get(container.short_id).id
    container.pause()
    container.reload()
    assert container.status == "paused" and container.attrs["State"]["Paused"]
    container.unpause()
    container.rename("renamed")
    container.reload()
    assert container.name == "renamed"
    container.restart(timeout=0)
    container.update(restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    container.reload()
    assert container.attrs["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    error = refused(docker.errors.APIError, container.remove)
    assert error.status_code == 409 and "container" in error.explanation
    container.kill("SIGKILL")
    assert container.wait()["StatusCode"] == 137
    assert refused(docker.errors.APIError, container.kill).status_code == 409
    container.start()
    container.stop(timeout=0)
    container.remove()
    refused(docker.errors.NotFound, client.containers.get, "renamed")
    assert refused(docker.errors.APIError, client.containers.create, "busybox", name="not/allowed").status_code == 400
    refused(docker.errors.ImageNotFound, client.containers.create, "nosuch:1")
    client.containers.create("busybox", name="taken")
    assert refused(docker.errors.APIError, client.containers.create, "busybox", name="taken").status_code == 409
    client.containers.get("taken").remove(v=True)


def restarting():
    host = api.create_host_config(restart_policy={"Name": "always", "MaximumRetryCount": 0}, network_mode="none")
    made = api.create_container("busybox", ["sh", "-c", "exit 3"], host_config=host)
    api.start(made)
    assert api.wait(made, timeout=30)["StatusCode"] == 3
    api.remove_container(made, force=True)


def lists():
    one = sleeper(name="one", labels={"a": "1"})
    two = client.containers.create("busybox", name="two", labels={"a": "2"})
    names = lambda **keywords: sorted(found.name for found in client.containers.list(**keywords))
    assert names() == ["one"] and names(all=True) == ["one", "two"]
    for filters, expected in [
        ({"label": "a"}, ["one", "two"]), ({"label": "a=2"}, ["two"]), ({"name": "on"}, ["one"]),
        ({"status": "created"}, ["two"]), ({"id": one.id}, ["one"]), ({"since": "one"}, ["two"]),
        ({"before": "two"}, ["one"]), ({"ancestor": "busybox"}, ["one", "two"]), ({"network": "bridge"}, ["one", "two"]),
    ]:
        assert names(all=True, filters=filters) == expected, (filters, names(all=True, filters=filters))
    assert refused(docker.errors.APIError, client.containers.list, filters={"nosuch": "x"}).status_code == 400
    row = [row for row in api.containers() if row["Id"] == one.id][0]
    assert row["Names"] == ["/one"] and row["Command"] == "sleep 1000" and row["State"] == "running"
    assert row["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert api.containers(size=True)[0]["SizeRootFs"] > 0 and len(api.containers(all=True, limit=1)) == 1
    assert client.containers.prune()["ContainersDeleted"] == [two.id]
    assert client.containers.prune()["ContainersDeleted"] is None
    one.remove(force=True)


def streams():
    container = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2; read line; echo got $line"], detach=True, stdin_open=True)
    logs = container.logs(stream=True, follow=True, stdout=True, stderr=False)
    assert next(logs) == b"out\n"
    stdin = container.attach_socket(params={"stdin": 1, "stream": 1})
    stdin._sock.sendall(b"typed\n")
    assert next(logs) == b"got typed\n"
    assert list(logs) == [] and container.wait()["StatusCode"] == 0
    assert container.logs(stdout=False, stderr=True) == b"err\n"
    assert container.logs(tail=1) == b"got typed\n"
    assert container.logs(stderr=False, timestamps=True).splitlines()[0].endswith(b"Z out")
    stdin.close()
    container.remove()


def execs():
    container = sleeper()
    # Output that comes at once must not get lost behind the answer's head.
    for _ in range(20):
        assert container.exec_run(["echo", "hello"]) == (0, b"hello\n")
    assert container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True) == (3, (b"out\n", b"err\n"))
    assert container.exec_run(["pwd"], workdir="/tmp", environment={"A": "b"}).output == b"/tmp\n"
    assert container.exec_run(["id", "-u"], user="5").output == b"5\n"
    assert container.exec_run(["tty"], tty=True).output.startswith(b"/dev/pts/")
    made = api.exec_create(container.id, ["cat"], stdin=True)
    raw = api.exec_start(made, socket=True)
    raw._sock.sendall(b"through")
    raw._sock.shutdown(socket.SHUT_WR)
    got = b""
    while piece := raw._sock.recv(4096):
        got += piece
    assert got == b"\x01\0\0\0\0\0\0\x07through", got
    state = api.exec_inspect(made)
    assert state["ExitCode"] == 0 and not state["Running"] and state["ContainerID"] == container.id
    # A terminal, in a stream with frames: the start request decides.
    made = api.exec_create(container.id, ["echo", "framed"], tty=True)
    assert api.exec_start(made, tty=False) == b"framed\r\n"
    made = api.exec_create(container.id, ["sleep", "1000"], tty=True)
    api.exec_start(made, detach=True)
    assert api.exec_inspect(made)["Running"]
    api.exec_resize(made, height=20, width=60)
    refused(docker.errors.NotFound, api.exec_inspect, "nosuch")
    refused(docker.errors.APIError, container.exec_run, [])
    container.kill()
    container.wait()
    assert refused(docker.errors.APIError, container.exec_run, ["true"]).status_code == 409
    container.remove()


def inside():
    container = sleeper()
    top = container.top()
    assert "CMD" in top["Titles"] and any("sleep 1000" in line[-1] for line in top["Processes"])
    stats = container.stats(stream=False)
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0 and stats["memory_stats"]["usage"] > 0
    assert stats["pids_stats"]["current"] >= 1 and stats["networks"]["eth0"]["rx_bytes"] >= 0
    flow = container.stats(stream=True, decode=True)
    assert next(flow)["read"] != next(flow)["read"]
    assert container.diff() in (None, [])
    container.exec_run(["sh", "-c", "echo x > /root/new; rm /etc/hostname.no; true"])
    assert {"Path": "/root/new", "Kind": 1} in container.diff()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 7
        tar.addfile(entry, io.BytesIO(b"content"))
    assert container.put_archive("/tmp", archive.getvalue())
    pieces, stat = container.get_archive("/tmp/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.extractfile("file").read() == b"content"
    assert stat["name"] == "file" and stat["size"] == 7
    error = refused(docker.errors.NotFound, container.get_archive, "/nosuch")
    assert "Could not find the file /nosuch in container" in error.explanation
    exported = io.BytesIO(b"".join(container.export()))
    with tarfile.open(fileobj=exported) as tar:
        assert "tmp/file" in tar.getnames()
    container.remove(force=True)
    # A commit of a container that is just ending.
    for _ in range(5):
        container = client.containers.run("busybox", ["touch", "/made"], detach=True)
        made = container.commit("made", "1", message="a remark", author="me", changes=["CMD [\"ls\", \"/made\"]"])
        container.wait()
        container.remove()
    assert made.attrs["Comment"] == "a remark" and made.attrs["Author"] == "me"
    assert client.containers.run("made:1", remove=True) == b"/made\n"
    client.images.remove("made:1")


def configuration():
    host = dict(
        mem_limit="64m", cpu_shares=512, cap_add=["NET_ADMIN"], cap_drop=["MKNOD"], dns=["192.0.2.1"],
        extra_hosts={"other": "192.0.2.9"}, ulimits=[Ulimit(name="nofile", soft=100, hard=200)], read_only=True,
        tmpfs={"/run": "size=1m"}, sysctls={"net.ipv4.ip_default_ttl": "61"}, shm_size="32m", init=True,
        log_config=LogConfig(type="json-file", config={"max-size": "1m"}), pids_limit=50, oom_score_adj=10,
        mounts=[Mount("/data", "configured", type="volume")], working_dir="/tmp", user="0:0",
        healthcheck={"test": ["CMD", "true"], "interval": 1_000_000_000}, stop_signal="SIGINT",
    )
    container = sleeper(**host)
    attrs = container.attrs if container.attrs["State"]["Running"] else client.containers.get(container.id).attrs
    config = attrs["HostConfig"]
    assert config["Memory"] == 64 << 20 and config["CpuShares"] == 512 and config["PidsLimit"] == 50
    assert config["CapAdd"] and config["CapDrop"] and config["Dns"] == ["192.0.2.1"] and config["ReadonlyRootfs"]
    assert config["ExtraHosts"] == ["other:192.0.2.9"] and config["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}} and config["Init"] is True
    assert config["Tmpfs"] == {"/run": "size=1m"} and config["ShmSize"] == 32 << 20 and config["OomScoreAdj"] == 10
    mount = attrs["Mounts"][0]
    assert (mount["Type"], mount["Name"], mount["Destination"], mount["RW"]) == ("volume", "configured", "/data", True)
    assert attrs["Config"]["StopSignal"] == "SIGINT" and attrs["Config"]["WorkingDir"] == "/tmp"
    assert attrs["State"]["Health"]["Status"] in ("starting", "healthy")
    script = "cat /proc/sys/net/ipv4/ip_default_ttl; ulimit -n; grep other /etc/hosts; touch /no 2>&1"
    out = container.exec_run(["sh", "-c", script]).output.decode().split()
    assert out[:4] == ["61", "100", "192.0.2.9", "other"] and "Read-only" in " ".join(out), out
    container.remove(force=True)
    client.volumes.get("configured").remove()
    kept = api.inspect_container(api.create_container("busybox", "true", environment=["Foo", "Other=one", "Blank="]))
    assert {"Foo", "Other=one", "Blank="} <= set(kept["Config"]["Env"])
    api.remove_container(kept)


def ports():
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo served > /tmp/index.html; httpd -f -p 8080 -h /tmp"], detach=True,
        ports={"8080/tcp": ("127.0.0.1", None), "9090/tcp": None},
    )
    container.reload()
    bound = container.ports["8080/tcp"][0]
    assert bound["HostIp"] == "127.0.0.1" and container.ports["9090/tcp"], container.ports
    assert api.port(container.id, 8080)[0]["HostPort"] == bound["HostPort"]
    for _ in range(100):
        try:
            text = urllib.request.urlopen(f"http://127.0.0.1:{bound['HostPort']}/", timeout=10).read()
            break
        except OSError:
            # The server of the container is not there yet.
            container.exec_run(["sh", "-c", "until wget -qO- http://127.0.0.1:8080/ >/dev/null 2>&1; do :; done"])
    assert text == b"served\n"
    container.remove(force=True)


def images():
    image = client.images.get("busybox")
    assert "busybox:latest" in image.tags and image.short_id and image.history()
    assert image.tag("copy", "1") and "copy:1" in client.images.get("busybox").tags
    assert [found.id for found in client.images.list(name="copy")] == [image.id]
    assert client.images.list(filters={"reference": "nosuch*"}) == []
    image.reload()
    saved = b"".join(image.save(named="copy:1"))
    client.images.remove("copy:1")
    refused(docker.errors.ImageNotFound, client.images.get, "copy:1")
    assert "copy:1" in client.images.load(saved)[0].tags
    client.images.remove("copy:1")
    refused(docker.errors.ImageLoadError, client.images.load, b"no archive at all" * 100)
    assert refused(docker.errors.ImageNotFound, client.images.remove, "nosuch").status_code == 404
    pruned = client.images.prune(filters={"dangling": True})
    assert set(pruned) == {"ImagesDeleted", "SpaceReclaimed"}
    used = client.containers.create("busybox")
    assert refused(docker.errors.APIError, client.images.remove, image.id).status_code == 409
    used.remove()


def registry():
    if not REGISTRY:
        return
    name = f"{REGISTRY}/team/app"
    client.images.get("busybox").tag(name, "1")
    lines = list(client.images.push(name, tag="1", stream=True, decode=True))
    assert not any("error" in line for line in lines), lines
    digest = [line["aux"]["Digest"] for line in lines if "aux" in line][0]
    client.images.remove(f"{name}:1")
    assert f"{name}:1" in client.images.pull(name, tag="1").tags
    lines = list(api.pull(name, tag="1", stream=True, decode=True))
    assert "up to date" in lines[-1]["status"]
    found = client.images.get_registry_data(f"{name}:1")
    assert found.id == digest and found.attrs["Platforms"]
    assert client.images.pull(f"{name}@{digest}").id == client.images.get("busybox").id
    assert refused(docker.errors.NotFound, client.images.pull, name, tag="nosuch").status_code == 404
    client.images.remove(f"{name}:1", force=True)


def builds():
    text = b"FROM busybox\nARG WHO=nobody\nLABEL a=b\nENV WHO=$WHO\nRUN echo warned >&2; echo $WHO > /who\nCMD [\"cat\", \"/who\"]\n"
    image, log = client.images.build(fileobj=io.BytesIO(text), tag="built:1", buildargs={"WHO": "me"}, labels={"c": "d"}, rm=True)
    log = "".join(line.get("stream", "") for line in log)
    assert " : FROM busybox" in log and "\x1b[91mwarned\n\x1b[0m" in log and "Successfully built" in log, log
    assert image.labels == {"a": "b", "c": "d"} and client.containers.run("built:1", remove=True) == b"me\n"
    again = "".join(line.get("stream", "") for line in client.images.build(fileobj=io.BytesIO(text), tag="built:1", buildargs={"WHO": "me"}, labels={"c": "d"})[1])
    assert "Using cache" in again
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in [("Other", b"FROM busybox AS first\nCOPY data /data\nFROM first AS second\nRUN rm /data\n"), ("data", b"of the context")]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    image, _ = client.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, dockerfile="Other", target="first", tag="built:2", extra_hosts={"h": "192.0.2.1"}, network_mode="none")
    assert client.containers.run("built:2", ["cat", "/data"], remove=True) == b"of the context"
    error = refused(docker.errors.BuildError, client.images.build, fileobj=io.BytesIO(b"FROM busybox\nRUN exit 9\n"))
    assert "returned a non-zero code: 9" in str(error), str(error)
    error = refused(docker.errors.APIError, client.images.build, fileobj=io.BytesIO(b"FROM busybox\nNOSUCH\n"))
    assert "nknown instruction" in str(error)
    assert refused(docker.errors.APIError, client.images.build, custom_context=True, fileobj=io.BytesIO(context.getvalue()), dockerfile="nosuch").status_code >= 400
    for tag in ("built:1", "built:2"):
        client.images.remove(tag, force=True)
    assert set(client.api.prune_builds()) == {"CachesDeleted", "SpaceReclaimed"}


def volumes():
    volume = client.volumes.create("kept", labels={"a": "b"})
    assert volume.attrs["Driver"] == "local" and volume.attrs["Scope"] == "local" and volume.attrs["Labels"] == {"a": "b"}
    assert client.volumes.create("plain").attrs["Options"] is None
    assert client.volumes.get("kept").attrs["Mountpoint"].endswith("kept/_data")
    assert [found.name for found in client.volumes.list(filters={"label": "a=b"})] == ["kept"]
    client.containers.run("busybox", ["sh", "-c", "echo data > /v/file"], volumes={"kept": {"bind": "/v", "mode": "rw"}}, remove=True)
    reader = client.containers.run("busybox", ["cat", "/v/file"], volumes=["kept:/v:ro"], detach=True)
    reader.wait()
    assert reader.logs() == b"data\n"
    assert refused(docker.errors.APIError, volume.remove).status_code == 409
    reader.remove()
    volume.remove()
    refused(docker.errors.NotFound, client.volumes.get, "kept")
    refused(docker.errors.APIError, client.volumes.create, "x", driver="nosuch")
    client.volumes.get("plain").remove()
    assert set(client.volumes.prune()) == {"VolumesDeleted", "SpaceReclaimed"}


def networks():
    pool = IPAMPool(subnet="10.199.0.0/24", gateway="10.199.0.254", iprange="10.199.0.128/25")
    network = client.networks.create("net", driver="bridge", ipam=IPAMConfig(pool_configs=[pool]), labels={"a": "b"}, internal=True)
    assert network.attrs["Internal"] and network.attrs["Labels"] == {"a": "b"} and network.attrs["Scope"] == "local"
    assert network.attrs["IPAM"]["Config"] == [{"Subnet": "10.199.0.0/24", "IPRange": "10.199.0.128/25", "Gateway": "10.199.0.254"}]
    assert network.attrs["IPAM"]["Options"] is None and network.attrs["Containers"] == {}
    one = sleeper(name="one", network="net")
    two = sleeper(name="two")
    network.connect(two, aliases=["second"], ipv4_address="10.199.0.200")
    two.reload()
    joined = two.attrs["NetworkSettings"]["Networks"]
    assert joined["net"]["IPAddress"] == "10.199.0.200" and "second" in joined["net"]["Aliases"] and "bridge" in joined
    assert one.exec_run(["ping", "-c1", "-W5", "second"]).exit_code == 0
    assert one.exec_run(["ping", "-c1", "-W5", "two"]).exit_code == 0
    network.reload()
    assert sorted(found.name for found in network.containers) == ["one", "two"]
    refused(docker.errors.APIError, network.remove)
    network.disconnect(two)
    two.reload()
    assert "net" not in two.attrs["NetworkSettings"]["Networks"]
    one.remove(force=True)
    two.remove(force=True)
    assert [found.name for found in client.networks.list(names=["net"])] == ["net"]
    assert {"bridge", "host", "none"} <= {found.name for found in client.networks.list()}
    network.remove()
    refused(docker.errors.NotFound, client.networks.get, "net")
    refused(docker.errors.APIError, client.networks.create, "bad", driver="nosuch")
    refused(docker.errors.APIError, client.networks.create, "host")
    assert client.networks.prune() == {"NetworksDeleted": None}


def events():
    seen = []
    stream = client.events(decode=True, filters={"type": "container"})
    reader = threading.Thread(target=lambda: seen.extend(iterate(stream, "destroy")))
    reader.start()
    client.containers.run("busybox", ["true"], remove=True, name="told", network_mode="none")
    reader.join(30)
    stream.close()
    actions = [event["Action"] for event in seen]
    assert actions == [action for action in actions if action in ("create", "attach", "start", "die", "destroy")], actions
    assert {"create", "start", "die", "destroy"} <= set(actions)
    died = [event for event in seen if event["Action"] == "die"][0]
    assert died["Actor"]["Attributes"]["exitCode"] == "0" and died["Actor"]["Attributes"]["name"] == "told"
    assert died["status"] == "die" and died["id"] == died["Actor"]["ID"] and died["Type"] == "container"
    past = list(client.events(decode=True, since=seen[0]["time"], until=seen[-1]["time"] + 1, filters={"event": "die", "container": "told"}))
    assert len(past) >= 1 and past[-1]["timeNano"] == died["timeNano"]


def iterate(stream, last):
    for event in stream:
        yield event
        if event["Action"] == last:
            return


def raw():
    """What people write with curl: quotes and braces as they are."""
    path = os.environ["DOCKER_HOST"].removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b'GET /v1.41/containers/json?filters={"status":["running"]} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n')
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    heads = {line.split(b":")[0].lower() for line in answer.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
    assert {b"api-version", b"ostype", b"docker-experimental", b"server"} <= heads, heads
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"PUT /containers/json HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 404 ") and b'{"message":"page not found' in answer, answer


PARTS = [system, versions, run, life, restarting, lists, streams, execs, inside, configuration, ports, images, registry, builds, volumes, networks, events, raw]
for part in PARTS:
    if len(sys.argv) > 1 and part.__name__ not in sys.argv[1:]:
        continue
    part()
    for left in client.containers.list(all=True):
        left.remove(force=True, v=True)
    print(part.__name__, "ok", flush=True)
client.close()
