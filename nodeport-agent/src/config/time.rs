//! Times on the command line.

use std::time::Duration;

use anyhow::{Context, ensure};

/// A time as people write it: a number with ms, s, m or h, or several of them (`2h4m`).
pub(super) fn duration(option: &str, value: &str) -> anyhow::Result<Duration> {
    let wrong = || format!("{option} {value:?}: write a time such as 120s, 5m or 2h4m");
    let mut total = Duration::ZERO;
    let mut rest = value.trim();
    ensure!(!rest.is_empty(), wrong());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).with_context(wrong)?;
        let number: u32 = rest[..digits].parse().with_context(wrong)?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += unit(&rest[..letters]).with_context(wrong)? * number;
        rest = &rest[letters..];
    }
    // Flows are looked through about once a second, and their clock has 32 bits.
    let range = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
    ensure!(range.contains(&total), "{option} {value:?}: choose between 1s and 168h");
    Ok(total)
}

fn unit(letters: &str) -> Option<Duration> {
    match letters {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_secs(60)),
        "h" => Some(Duration::from_secs(3600)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up() {
        assert_eq!(duration("--x", "2h4m").unwrap(), Duration::from_secs(7440));
        assert_eq!(duration("--x", "1500ms").unwrap(), Duration::from_millis(1500));
    }
}
