//! Whether and when a container is started again. Pure: durations come in, a decision goes out.

use crate::container::{Lifecycle, RestartPolicy};
use std::time::Duration;

/// The first wait.
pub const FIRST: Duration = Duration::from_millis(100);
/// The longest.
pub const LONGEST: Duration = Duration::from_secs(60);
/// A run of this length makes the next wait the first one again.
pub const SETTLED: Duration = Duration::from_secs(10);

/// The wait before the next run, or `None`: it stays down. `last_wait` is the wait before the run that has ended (zero
/// for the first), `restarts` how often it has been restarted since a person started it.
pub fn decide(
    lifecycle: &Lifecycle,
    exit_code: i32,
    stopped_by_user: bool,
    restarts: u32,
    ran: Duration,
    last_wait: Duration,
) -> Option<Duration> {
    let Lifecycle::Restart(policy) = lifecycle else { return None };
    if stopped_by_user {
        return None;
    }
    let again = match policy {
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { max_retries } => {
            exit_code != 0 && (*max_retries == 0 || restarts < *max_retries)
        }
    };
    again.then(|| if ran >= SETTLED || last_wait.is_zero() { FIRST } else { (last_wait * 2).min(LONGEST) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let ms = Duration::from_millis;
        let failure = |max_retries| Lifecycle::Restart(RestartPolicy::OnFailure { max_retries });
        let always = Lifecycle::Restart(RestartPolicy::Always);
        for (lifecycle, code, stopped, restarts, ran, last, want) in [
            (&Lifecycle::Keep, 1, false, 0, 1, 0, None),
            (&Lifecycle::RemoveOnExit, 1, false, 0, 1, 0, None),
            (&always, 0, false, 0, 1, 0, Some(ms(100))),
            (&always, 0, false, 1, 1, 100, Some(ms(200))),
            (&always, 0, false, 1, 10_000, 6400, Some(ms(100))),
            (&always, 0, false, 9, 1, 51_200, Some(ms(60_000))),
            (&always, 0, true, 0, 1, 0, None),
            (&failure(3), 0, false, 0, 1, 0, None),
            (&failure(3), 1, false, 2, 1, 200, Some(ms(400))),
            (&failure(3), 1, false, 3, 1, 400, None),
            (&failure(0), 1, false, 300, 1, 400, Some(ms(800))),
            (&Lifecycle::Restart(RestartPolicy::UnlessStopped), 0, true, 0, 1, 0, None),
        ] {
            assert_eq!(
                decide(lifecycle, code, stopped, restarts, ms(ran), ms(last)),
                want,
                "{lifecycle:?} {code} {restarts}"
            );
        }
    }
}
