//! Networks and names as a person uses them. Each test is a machine of its own, a network namespace: it changes nothing of the
//! one that it runs on.

mod busybox;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// An engine of one test's own on a machine of its own.
struct Home {
    dir: PathBuf,
    machine: Child,
}

impl Home {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("cauldron-network-{}-{serial}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut machine = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut ready = [0; 6];
        std::io::Read::read_exact(machine.stdout.as_mut().unwrap(), &mut ready).expect("a network namespace");
        let home = Self { dir, machine };
        let tar = busybox::archive(&home.dir, |_| {});
        home.ok(&["import", tar.to_str().unwrap(), "busybox:latest"]);
        home
    }
    fn on_machine(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.machine.id())).arg(program).args(args);
        command
    }
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = self.on_machine(env!("CARGO_BIN_EXE_cauldron"), args);
        command
            .env("CAULDRON_ROOT", self.dir.join("root"))
            .env("CAULDRON_RUN_ROOT", self.dir.join("run"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
        (status.code().unwrap_or(-1), text(stdout), text(stderr))
    }
    fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {out}\n{err}");
        out
    }
    fn fails(&self, args: &[&str], text: &str) {
        let (code, _, err) = self.run(args);
        assert!(code != 0 && err.contains(text), "{args:?}: {code} {err}");
    }
    fn start(&self, name: &str, options: &[&str]) {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(options);
        args.extend(["busybox", "sleep", "1000"]);
        self.ok(&args);
    }
    fn sh(&self, container: &str, script: &str) -> String {
        self.ok(&["exec", container, "sh", "-c", script])
    }
    /// What a container resolves a name to, sorted; the failure's word where it does not.
    fn look_up(&self, container: &str, name: &str) -> Vec<String> {
        let (_, out, _) = self.run(&["exec", container, "nslookup", name]);
        let mut found: Vec<String> = out
            .lines()
            .filter_map(|line| line.strip_prefix("Address: ").or_else(|| line.split("name = ").nth(1)))
            .map(str::to_owned)
            .collect();
        if let Some((_, why)) = out.split_once("can't find ") {
            found.extend(why.split_whitespace().nth(1).map(str::to_owned));
        }
        found.sort();
        found
    }
    /// A name server inside a container: every name has the address 192.0.2.7.
    fn serve_names(&self, container: &str) {
        use std::os::fd::AsFd as _;
        let namespace =
            fs::File::open(format!("/proc/{}/ns/net", self.inspect(container, "{{.State.Pid}}"))).unwrap();
        let bound = std::thread::spawn(move || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            std::net::UdpSocket::bind("0.0.0.0:53").expect("port 53 is the container's own")
        });
        let socket = bound.join().unwrap();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let mut answer = query[..length].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                // Of the type A only.
                if answer[length - 4..] == [0, 1, 0, 1] {
                    answer[7] = 1;
                    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
                }
                let _ = socket.send_to(&answer, from);
            }
        });
    }
    fn inspect(&self, what: &str, field: &str) -> String {
        self.ok(&["inspect", "-f", field, what])
    }
    fn links(&self) -> String {
        let out = self.on_machine("ip", &["-o", "link"]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let (_, ids, _) = self.run(&["ps", "-aq"]);
        for id in ids.lines() {
            let _ = self.run(&["rm", "-f", "-v", id]);
        }
        let _ = self.machine.kill();
        let _ = self.machine.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn names_of_a_network() {
    let home = Home::new();
    home.ok(&["network", "create", "--subnet", "10.50.0.0/24", "back"]);
    home.ok(&["network", "create", "--subnet", "10.51.0.0/24", "front"]);
    home.start("db", &["--network", "back", "--ip", "10.50.0.10", "--hostname", "database"]);
    home.start("web1", &["--network", "back", "--ip", "10.50.0.11", "--network-alias", "web"]);
    home.start("web2", &["--network", "back", "--ip", "10.50.0.12", "--network-alias", "web"]);
    home.start("proxy", &["--network", "front", "--link", "db:nobody"]);
    let id = home.inspect("db", "{{.Id}}");
    for name in ["db", "DB", "database", &id[..12], "db.back"] {
        assert_eq!(home.look_up("web1", name), ["10.50.0.10"], "{name}");
    }
    assert_eq!(home.look_up("db", "web"), ["10.50.0.11", "10.50.0.12"]);
    assert_eq!(home.look_up("db", "db"), ["10.50.0.10"], "its own name");
    assert_eq!(home.look_up("web1", "10.50.0.10"), ["db.back"]);
    assert!(
        home.look_up("proxy", "db").iter().all(|found| found.chars().all(char::is_alphabetic)),
        "another network"
    );
    assert_eq!(
        home.sh("db", "cat /etc/resolv.conf | head -1; grep -c web /etc/hosts || true"),
        "nameserver 127.0.0.11\n0"
    );
    let names = home.inspect("db", "{{json .NetworkSettings.Networks.back.DNSNames}}");
    assert_eq!(names, format!("[\"db\",\"{}\",\"database\"]", &id[..12]));
    // What changes is known at once.
    home.ok(&["rename", "db", "store"]);
    assert_eq!(home.look_up("web1", "store"), ["10.50.0.10"]);
    assert_ne!(home.look_up("web1", "db"), ["10.50.0.10"]);
    home.ok(&["rm", "-f", "web1"]);
    assert_eq!(home.look_up("store", "web"), ["10.50.0.12"]);
    home.ok(&["network", "connect", "--alias", "gate", "--link", "store:safe", "back", "proxy"]);
    assert_eq!(home.look_up("proxy", "safe"), ["10.50.0.10"], "a link's name");
    assert_ne!(home.look_up("web2", "safe"), ["10.50.0.10"], "is the linking container's alone");
    assert_eq!(home.look_up("web2", "gate").len(), 1);
    home.ok(&["network", "disconnect", "back", "proxy"]);
    assert!(home.look_up("web2", "gate")[0].chars().all(char::is_alphabetic));
    assert_eq!(home.sh("proxy", "ip -o -4 addr show | wc -l"), "2", "loopback and front");
    home.fails(
        &["run", "--rm", "--network-alias", "x", "busybox", "true"],
        "only for containers in user defined networks",
    );
}

#[test]
fn the_default_network_has_no_names_until_another_one_is_connected() {
    let home = Home::new();
    home.ok(&["network", "create", "back"]);
    home.start("db", &["--network", "back"]);
    home.start("plain", &["--dns", "192.0.2.1"]);
    assert_eq!(home.sh("plain", "cat /etc/resolv.conf"), "nameserver 192.0.2.1");
    home.ok(&["network", "connect", "back", "plain"]);
    assert_eq!(home.sh("plain", "head -1 /etc/resolv.conf"), "nameserver 127.0.0.11");
    assert_eq!(home.look_up("plain", "db").len(), 1);
    assert_eq!(home.look_up("db", "plain").len(), 1);
    home.ok(&["restart", "-t", "0", "plain"]);
    assert_eq!(home.look_up("plain", "db").len(), 1, "also after a restart");
}

#[test]
fn other_names_are_asked_of_servers() {
    let home = Home::new();
    home.ok(&["network", "create", "--subnet", "10.50.0.0/24", "back"]);
    home.ok(&["network", "create", "--internal", "closed"]);
    // The server's port 53 is its own, although it has a resolver too.
    home.start("dns", &["--network", "back", "--ip", "10.50.0.53"]);
    home.serve_names("dns");
    home.start(
        "client",
        &["--network", "back", "--dns", "10.50.0.53", "--dns-search", "example", "--dns-option", "timeout:3"],
    );
    assert_eq!(home.look_up("client", "outside.example"), ["192.0.2.7"]);
    home.sh("client", "ping -c1 -W5 dns");
    assert_eq!(
        home.sh("client", "cat /etc/resolv.conf"),
        "nameserver 127.0.0.11\nsearch example\noptions timeout:3 ndots:0"
    );
    home.start("inner", &["--network", "closed", "--dns", "10.50.0.53"]);
    assert_eq!(home.look_up("inner", "outside.example")[0], "SERVFAIL", "internal networks ask nobody");
    home.start("own", &["--network", "back", "--dns", "127.0.0.1"]);
    home.serve_names("own");
    assert!(home.look_up("own", "outside.example") == ["192.0.2.7"], "its own loopback");
}

#[test]
fn addresses_are_as_asked() {
    let home = Home::new();
    home.ok(&[
        "network",
        "create",
        "--subnet",
        "10.50.0.0/24",
        "--gateway",
        "10.50.0.254",
        "--ip-range",
        "10.50.0.128/25",
        "--aux-address",
        "printer=10.50.0.129",
        "--subnet",
        "fd00:50::/64",
        "--ipv6",
        "--label",
        "tier=back",
        "back",
    ]);
    assert_eq!(
        home.ok(&[
            "network",
            "inspect",
            "-f",
            "{{json .IPAM.Config}} {{.EnableIPv6}} {{.Labels.tier}}",
            "back"
        ]),
        "[{\"AuxiliaryAddresses\":{\"printer\":\"10.50.0.129\"},\"Gateway\":\"10.50.0.254\",\"IPRange\":\"10.50.0.128/25\",\"Subnet\":\"10.50.0.0/24\"},\
         {\"Gateway\":\"fd00:50::1\",\"Subnet\":\"fd00:50::/64\"}] true back"
    );
    home.start("aa", &["--network", "back"]);
    home.start("bb", &["--network", "back"]);
    let ip = |name: &str| {
        home.inspect(name, "{{.NetworkSettings.Networks.back.IPAddress}} {{.NetworkSettings.Networks.back.GlobalIPv6Address}}")
    };
    assert_eq!((ip("aa").as_str(), ip("bb").as_str()), ("10.50.0.128 fd00:50::2", "10.50.0.130 fd00:50::3"));
    home.start(
        "fixed",
        &[
            "--network",
            "back",
            "--ip",
            "10.50.0.9",
            "--ip6",
            "fd00:50::9",
            "--mac-address",
            "02:42:ac:11:00:99",
            "--link-local-ip",
            "169.254.7.7",
        ],
    );
    let shown = home.sh("fixed", "ip addr show eth0; ip route; ip -6 route");
    for part in [
        "10.50.0.9/24",
        "fd00:50::9/64",
        "02:42:ac:11:00:99",
        "169.254.7.7/16",
        "default via 10.50.0.254",
        "default via fd00:50::1",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    home.sh("aa", "ping -c1 -W5 fixed && ping -6 -c1 -W5 fixed && ping -6 -c1 -W5 fd00:50::1");
    home.fails(
        &["run", "--rm", "--network", "back", "--ip", "10.50.0.9", "busybox", "true"],
        "Address already in use",
    );
    home.fails(
        &["run", "--rm", "--network", "back", "--ip", "10.9.0.9", "busybox", "true"],
        "does not belong",
    );
    // A stopped container's address is kept in its wishes and taken again.
    home.ok(&["stop", "-t", "0", "fixed"]);
    home.ok(&["start", "fixed"]);
    assert_eq!(ip("fixed"), "10.50.0.9 fd00:50::9");
    home.ok(&["network", "create", "chosen"]);
    home.fails(
        &["run", "--rm", "--network", "chosen", "--ip", "10.9.0.9", "busybox", "true"],
        "only when connecting to networks with user configured subnets",
    );
    home.fails(&["network", "create", "--subnet", "10.50.0.0/25", "again"], "Pool overlaps");
    home.fails(&["network", "create", "--scope", "swarm", "again"], "not a swarm manager");
    home.ok(&["network", "create", "--ipv4=false", "--ipv6", "six"]);
    assert_eq!(
        home.ok(&[
            "run",
            "--rm",
            "--network",
            "six",
            "busybox",
            "sh",
            "-c",
            "ip -o -4 addr show eth0 | wc -l; ip -6 route | grep -c default"
        ]),
        "0\n1"
    );
}

#[test]
fn several_networks_have_one_way_out() {
    let home = Home::new();
    for (name, subnet) in [("alpha", "10.50.0.0/24"), ("beta", "10.51.0.0/24"), ("gamma", "10.52.0.0/24")] {
        home.ok(&["network", "create", "--subnet", subnet, name]);
    }
    home.ok(&["network", "create", "--internal", "aaa"]);
    let way = |name: &str| home.sh(name, "ip route | grep default");
    home.start("cc", &["--network", "gamma", "--network", "beta", "-p", "8080:80"]);
    home.ok(&["exec", "-d", "cc", "httpd", "-p", "80", "-h", "/etc"]);
    home.sh("cc", "until netstat -ltn | grep -q ':80 '; do :; done");
    let published = || {
        let fetch = "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '200 OK' <&3";
        let done = home.on_machine("timeout", &["20", "bash", "-c", fetch]).status().unwrap();
        assert!(done.success(), "the port follows the way out");
    };
    published();
    assert!(way("cc").contains("10.51.0.1"), "the first name: {}", way("cc"));
    assert_eq!(
        home.sh("cc", "ip -o -4 addr show eth0 | grep -c 10.52"),
        "1",
        "eth0 is what --network named first"
    );
    home.ok(&["network", "connect", "aaa", "cc"]);
    home.ok(&["network", "connect", "alpha", "cc"]);
    assert!(way("cc").contains("10.50.0.1"), "{}", way("cc"));
    published();
    home.ok(&["network", "disconnect", "alpha", "cc"]);
    published();
    assert!(way("cc").contains("10.51.0.1"), "{}", way("cc"));
    home.ok(&["network", "connect", "--gw-priority", "7", "alpha", "cc"]);
    home.ok(&[
        "run",
        "--rm",
        "--network",
        "name=beta,driver-opt=com.docker.network.endpoint.ifname=wan0",
        "busybox",
        "ip",
        "link",
        "show",
        "wan0",
    ]);
    home.start(
        "dd",
        &[
            "--network",
            "name=alpha,alias=x",
            "--network",
            "name=gamma,gw-priority=1,ip=10.52.0.77,mac-address=02:42:ac:11:00:01",
        ],
    );
    assert!(way("dd").contains("10.52.0.1"), "{}", way("dd"));
    assert_eq!(
        home.inspect("dd", "{{.NetworkSettings.Networks.gamma.GwPriority}} {{.NetworkSettings.Networks.gamma.MacAddress}} {{.NetworkSettings.Networks.gamma.IPAMConfig.IPv4Address}}"),
        "1 02:42:ac:11:00:01 10.52.0.77"
    );
    assert_eq!(home.look_up("cc", "x").len(), 1);
    home.ok(&["restart", "-t", "0", "cc"]);
    assert!(way("cc").contains("10.50.0.1"), "kept over a restart: {}", way("cc"));
}

#[test]
fn networks_on_a_parent_interface() {
    let home = Home::new();
    for args in ["link add wire type veth peer name far", "link set far up", "link set wire up"] {
        let args: Vec<&str> = args.split(' ').collect();
        assert!(home.on_machine("ip", &args).status().unwrap().success());
    }
    for mode in ["bridge", "private"] {
        let option = format!("macvlan_mode={mode}");
        home.ok(&[
            "network",
            "create",
            "-d",
            "macvlan",
            "-o",
            "parent=wire",
            "-o",
            &option,
            "--subnet",
            "10.60.0.0/24",
            "lan",
        ]);
        home.start("one", &["--network", "lan", "--ip", "10.60.0.5"]);
        home.start("two", &["--network", "lan"]);
        let reached = home.run(&["exec", "two", "ping", "-c1", "-W1", "one"]).0 == 0;
        assert_eq!(reached, mode == "bridge", "{mode}");
        assert!(home.sh("two", "ip route").contains("default via 10.60.0.1"));
        home.ok(&["rm", "-f", "one", "two"]);
        home.ok(&["network", "rm", "lan"]);
    }
    // Without a parent, a closed wire of its own that goes with the last container.
    home.ok(&["network", "create", "-d", "macvlan", "closed"]);
    home.start("one", &["--network", "closed"]);
    home.start("two", &["--network", "closed"]);
    home.sh("two", "ping -c1 -W5 one");
    assert!(home.links().contains("dm-"));
    home.ok(&["rm", "-f", "one", "two"]);
    home.ok(&["network", "rm", "closed"]);
    assert!(!home.links().contains("dm-"), "{}", home.links());
    home.fails(&["network", "create", "-d", "macvlan", "-o", "macvlan_mode=odd", "bad"], "macvlan_mode");
    home.ok(&["network", "create", "-d", "macvlan", "-o", "parent=none0", "lost"]);
    home.fails(&["run", "--rm", "--network", "lost", "busybox", "true"], "no such parent interface");
}

#[test]
fn networks_are_closed_to_each_other_and_nothing_stays() {
    let home = Home::new();
    home.ok(&["network", "create", "--subnet", "10.50.0.0/24", "back"]);
    home.ok(&[
        "network",
        "create",
        "--subnet",
        "10.51.0.0/24",
        "-o",
        "com.docker.network.bridge.enable_icc=false",
        "-o",
        "com.docker.network.bridge.name=apart0",
        "-o",
        "com.docker.network.driver.mtu=1280",
        "apart",
    ]);
    home.start("aa", &["--network", "back", "--ip", "10.50.0.2"]);
    home.start("bb", &["--network", "apart", "--ip", "10.51.0.2"]);
    home.start("cc", &["--network", "apart"]);
    let reaches = |from: &str, to: &str| home.run(&["exec", from, "ping", "-c1", "-W1", to]).0 == 0;
    assert!(!reaches("bb", "10.50.0.2"), "another network");
    assert!(!reaches("cc", "10.51.0.2"), "no communication between containers");
    assert!(reaches("bb", "10.51.0.1"), "the host's end");
    assert_eq!(home.look_up("cc", "bb"), ["10.51.0.2"], "names are known all the same");
    assert!(home.sh("bb", "ip link show eth0").contains("mtu 1280"));
    assert!(home.links().contains("apart0"));
    home.ok(&["rm", "-f", "aa", "bb", "cc"]);
    assert_eq!(home.links().lines().count(), 1, "loopback alone: {}", home.links());
    assert_eq!(fs::read_dir(home.dir.join("run/net/zones")).map_or(0, Iterator::count), 0);
    assert_eq!(home.ok(&["network", "prune", "-f"]), "Deleted Networks:\napart\nback");
}
