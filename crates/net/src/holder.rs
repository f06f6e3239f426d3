//! Which process of this host has a port: `/proc/net` names the socket, `/proc/<pid>/fd` who has it. Only read where a
//! port was refused.

use model::container::Protocol;

/// The state of a listening TCP socket, and of any UDP socket, in `/proc/net/tcp` and `udp` (`proc(5)`).
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// A process that has the port, and its number.
pub(crate) fn process(protocol: Protocol, port: u16) -> Option<(u32, String)> {
    let (files, state) = match protocol {
        Protocol::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], LISTEN),
        Protocol::Udp => (["/proc/net/udp", "/proc/net/udp6"], UNCONNECTED),
        Protocol::Sctp => return None,
    };
    let sockets: Vec<String> = files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .flat_map(|table| sockets(&table, state, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|pid: u32| {
        let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let has = open.any(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
        });
        let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        has.then(|| (pid, name().trim_end().to_owned()))
    })
}

/// The inode numbers of a table's sockets that are in this state at this port.
fn sockets(table: &str, state: &str, port: u16) -> Vec<u64> {
    let socket = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (_, local) = fields.next()?.rsplit_once(':')?;
        let state_is = fields.nth(1)? == state;
        let inode: u64 = fields.nth(5)?.parse().ok()?;
        (u16::from_str_radix(local, 16).ok()? == port && state_is && inode != 0).then_some(inode)
    };
    table.lines().skip(1).filter_map(socket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 32815 1 0000 100 0 0 10 0\n   \
            1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 40001 1 0000 20 4 30 10 -1\n   \
            2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000 100 0 0 10 0\n";
        assert_eq!(sockets(table, LISTEN, 8080), [32815]);
        assert_eq!(sockets(table, LISTEN, 23), Vec::<u64>::new());
        assert_eq!(sockets("", LISTEN, 22), Vec::<u64>::new());
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(process(Protocol::Tcp, port).map(|(pid, _)| pid), Some(std::process::id()));
    }
}
