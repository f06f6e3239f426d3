//! The built-in init: stays process 1, forwards signals to the process, reaps everything that is orphaned, and ends
//! with the process's code; the kernel then kills what is left in the pid namespace.
//!
//! It holds no descriptor, has the process's own user, capabilities and filter, and is not dumpable: whoever gets hold of
//! it inside has gained nothing.

use model::Result;
use model::error::Context as _;

const SIGCHLD: i32 = 17;

/// Forks: returns in the child, which goes on to execute the process.
pub fn stay() -> Result<()> {
    sys::process::set_mask(u64::MAX);
    match sys::process::fork_plain().context(|| "fork the container's process")? {
        0 => {
            sys::process::set_mask(0);
            Ok(())
        }
        child => {
            let _ = sys::process::close_from(0);
            sys::process::set_title(c"cauldron-init");
            watch(child)
        }
    }
}

fn watch(child: i32) -> ! {
    loop {
        match sys::process::wait_signal(u64::MAX) {
            Ok(SIGCHLD) | Err(_) => loop {
                match sys::process::wait(-1, false) {
                    Ok(Some((pid, ended))) if pid == child => sys::process::exit_now(ended.code()),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => sys::process::exit_now(255),
                }
            },
            Ok(signal) => {
                let _ = sys::process::kill(child, signal);
            }
        }
    }
}
