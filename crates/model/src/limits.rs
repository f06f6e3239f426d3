//! Every limit has a name, a unit and a reason. Untrusted input is measured against these before it is
//! believed.

/// Layers of one image. Overlay takes up to 500 lower directories (kernel `OVL_MAX_STACK`); Docker stops at 127.
pub const LAYERS: usize = 127;
/// Bytes of a manifest or an index (containerd, Docker and the distribution specification agree on 4 MiB).
pub const MANIFEST_BYTES: u64 = 4 << 20;
/// Bytes of an image configuration.
pub const CONFIG_BYTES: u64 = 8 << 20;
/// Entries (files, directories, links) of one layer archive.
pub const LAYER_ENTRIES: u64 = 5_000_000;
/// Bytes that one layer may unpack to.
pub const LAYER_BYTES: u64 = 256 << 30;
/// Unpacked bytes for each compressed byte, beyond the first [`RATIO_FREE_BYTES`]: above it is a bomb.
pub const LAYER_RATIO: u64 = 1100;
/// Unpacked bytes before the ratio is looked at.
pub const RATIO_FREE_BYTES: u64 = 256 << 20;
/// Components of a path inside an archive.
pub const PATH_DEPTH: usize = 512;
/// Bytes of a path (`PATH_MAX`, linux/limits.h).
pub const PATH_BYTES: usize = 4096;
/// Bytes of the image's `/etc/passwd` or `/etc/group` that are read (CVE-2022-1708-like floods).
pub const PASSWD_BYTES: u64 = 16 << 20;
/// Bytes of a Dockerfile.
pub const DOCKERFILE_BYTES: u64 = 4 << 20;
/// Bytes of one expanded value in a Dockerfile: `ENV a=$a$a`, repeated, doubles each time.
pub const DOCKERFILE_VALUE_BYTES: usize = 1 << 20;
/// Bytes of a value that `${v#pattern}`, `${v%pattern}` and `${v/pattern/text}` are applied to.
pub const DOCKERFILE_PATTERN_BYTES: usize = 16 << 10;
/// Instructions of one Dockerfile, `ONBUILD` triggers included.
pub const DOCKERFILE_INSTRUCTIONS: usize = 10_000;
/// Layers, and steps, of a build cache that was exported.
pub const CACHE_ENTRIES: usize = 20_000;
/// Patterns of an ignore file.
pub const IGNORE_PATTERNS: usize = 20_000;
/// Bytes of an API request's JSON body.
pub const JSON_BODY_BYTES: usize = 8 << 20;
/// Bytes of one environment file or one label file.
pub const ENV_FILE_BYTES: u64 = 16 << 20;
/// Bytes of one entry of a container's log; longer lines are split, as Docker splits them at 16 KiB.
pub const LOG_LINE_BYTES: usize = 16 << 10;
/// Default size of a container's log file before it is rotated.
pub const LOG_FILE_BYTES: u64 = 10 << 20;
/// Default number of log files kept a container.
pub const LOG_FILES: u32 = 5;
/// Bytes of a container name.
pub const NAME_BYTES: usize = 255;
/// Host ports that a monitor holds a socket for. Beyond it (`-p 1000-9000:1000-9000`) ports are open, but nothing keeps
/// another process of the host from binding them; a monitor has some 1,024 descriptors.
pub const HELD_PORTS: usize = 256;
/// Connections that a relay carries at once, and senders of datagrams that it knows.
pub const RELAY_CONNECTIONS: usize = 1024;
