//! When a request is made again, and after how long. Decides only; who waits is the caller.

use std::time::Duration;
use ureq::http::{Response, header};

/// Attempts at one request, and at one blob without progress between them; Docker's `max-download-attempts`.
pub(super) const ATTEMPTS: u32 = 5;
/// The pause after the first failure; it doubles with each.
const FIRST: Duration = Duration::from_millis(200);
/// No pause is longer, unless the registry names one.
const LONGEST: Duration = Duration::from_secs(10);
/// The longest pause that a registry may ask for (`Retry-After`). Who wants more gets the error shown.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a status is one that passes: the server's trouble or too many requests.
pub(super) fn passes(status: u16) -> bool {
    matches!(status, 429 | 500 | 502..=504)
}

/// `Retry-After` in seconds; the form with a date says nothing to us.
pub(super) fn asked<B>(response: &Response<B>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(value.trim().parse().ok()?))
}

/// The pause after the `failed`th failure: doubling, a quarter more or less by `chance`, so that many clients do not come
/// back together.
pub(super) fn pause(failed: u32, asked: Option<Duration>, chance: u8) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(LONGEST);
    let spread = doubled.mul_f64(0.75 + f64::from(chance) / 510.0);
    asked.map_or(spread, |asked| asked.max(spread))
}

/// A pause by this process's chance.
pub(super) fn random_pause(failed: u32, asked: Option<Duration>) -> Duration {
    let mut chance = [0u8; 1];
    // Without randomness all clients wait the same: no harm.
    let _ = rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty());
    pause(failed, asked, chance[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let middle = |failed| pause(failed, None, 127).as_millis();
        assert!((195..=205).contains(&middle(1)) && (390..=410).contains(&middle(2)));
        assert_eq!(pause(1, None, 0), Duration::from_millis(150));
        assert_eq!(pause(1, None, 255), Duration::from_millis(250));
        assert!(pause(u32::MAX, None, 255) <= LONGEST.mul_f64(1.25));
        assert_eq!(pause(1, Some(Duration::from_secs(7)), 0), Duration::from_secs(7));
    }

    #[test]
    fn what_passes() {
        assert!([429, 500, 502, 503, 504].into_iter().all(passes));
        assert!(![200, 301, 400, 401, 403, 404, 416, 501].into_iter().any(passes));
    }

    #[test]
    fn retry_after() {
        let of = |text: &str| asked(&Response::builder().header("retry-after", text).body(()).unwrap());
        assert_eq!(of(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(of("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(of("-1"), None);
    }
}
