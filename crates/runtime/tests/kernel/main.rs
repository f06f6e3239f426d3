//! Real containers. The binary has its own `main`, because it is also the monitor of the containers that it starts; it
//! speaks enough of the test harness's language for cargo-nextest (`--list --format terse`, `NAME --exact`).
//!
//! `--latency N` measures instead: N containers running `true`, from `prepare` to the end of the attached stream.

mod cases;
mod fixture;
mod more;
mod names;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = runtime::role(&args) {
        return code;
    }
    let args: Vec<String> = args.into_iter().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut all: Vec<(&str, fn())> = cases::ALL.to_vec();
    all.extend(more::ALL);
    all.extend(names::ALL);
    let mut out = std::io::stdout();
    if args.iter().any(|arg| arg == "--list") {
        if !args.iter().any(|arg| arg == "--ignored") {
            for (name, _) in &all {
                let _ = writeln!(out, "{name}: test");
            }
        }
        return ExitCode::SUCCESS;
    }
    if let [word, bundle] = args.as_slice()
        && word == "--launch"
    {
        return more::launch_and_wait(bundle);
    }
    if let Some(at) = args.iter().position(|arg| arg == "--latency") {
        return more::latency(args.get(at + 1).and_then(|count| count.parse().ok()).unwrap_or(50));
    }
    let exact = args.iter().any(|arg| arg == "--exact");
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| {
        names.is_empty()
            || names.iter().any(|asked| if exact { *asked == name } else { name.contains(asked.as_str()) })
    };
    let mut failed = 0;
    for (name, test) in all.into_iter().filter(|(name, _)| wanted(name)) {
        let ok = std::panic::catch_unwind(test).is_ok();
        failed += u32::from(!ok);
        let _ = writeln!(out, "test {name} ... {}", if ok { "ok" } else { "FAILED" });
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
