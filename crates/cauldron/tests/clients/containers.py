"""testcontainers against the engine at DOCKER_HOST. The image busybox is there; ryuk, its reaper, is not used."""

import faulthandler
import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

faulthandler.dump_traceback_later(240, exit=True)
SERVER = "echo ready to serve; mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www"

container = DockerContainer("busybox").with_command(["sh", "-c", SERVER]).with_exposed_ports(8080).with_env("KEY", "value")
with container as server:
    wait_for_logs(server, "ready to serve", timeout=60)
    assert server.exec(["sh", "-c", "until wget -qO- http://127.0.0.1:8080/ >/dev/null 2>&1; do :; done; echo $KEY"]) == (0, b"value\n")
    host, port = server.get_container_host_ip(), int(server.get_exposed_port(8080))
    assert port > 0 and urllib.request.urlopen(f"http://{host}:{port}/", timeout=30).read() == b"served\n"
    assert b"ready to serve" in server.get_logs()[0]

try:
    with DockerContainer("busybox").with_command(["sh", "-c", "echo other; sleep 1000"]) as slow:
        wait_for_logs(slow, "never written", timeout=1)
except TimeoutError:
    pass
else:
    raise AssertionError("waited for nothing")

with Network() as network:
    first = DockerContainer("busybox").with_command(["sh", "-c", SERVER]).with_network(network).with_network_aliases("first")
    second = DockerContainer("busybox").with_command(["sleep", "1000"]).with_network(network)
    with first, second:
        wait_for_logs(first, "ready to serve", timeout=60)
        code, out = second.exec(["sh", "-c", "until wget -qO- http://first:8080/ >/dev/null 2>&1; do :; done; wget -qO- http://first:8080/"])
        assert (code, out) == (0, b"served\n"), (code, out)

with DockerContainer("busybox").with_command(["cat", "/data/file"]).with_volume_mapping("/etc/hostname", "/data/file", "ro") as reader:
    assert reader.get_wrapped_container().wait()["StatusCode"] == 0
    assert reader.get_logs()[0] == open("/etc/hostname", "rb").read()
print("testcontainers ok")
