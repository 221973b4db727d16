//! Waiting for what others do in their own time.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Tries until it succeeds, once at least, with a pause between two tries.
///
/// # Errors
/// The last one, if time has run out.
pub fn retry<T>(
    within: Duration,
    pause: Duration,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => sleep(pause),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn it_ends_with_the_first_success_or_the_last_error() {
        let mut tries = 0;
        let third = retry(Duration::from_secs(60), Duration::ZERO, || {
            tries += 1;
            if tries < 3 { bail!("try {tries}") } else { Ok(tries) }
        });
        assert_eq!(third.unwrap(), 3);
        let none: Result<()> = retry(Duration::ZERO, Duration::ZERO, || bail!("never"));
        assert_eq!(none.unwrap_err().to_string(), "never");
    }
}
