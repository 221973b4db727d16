//! An error as one line.

/// The error and its causes, as one line. Errors of some libraries repeat their causes in their
/// own text: those are said once.
#[must_use]
pub fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("no such file").context("reading x: no such file");
        assert_eq!(line(&error.context("starting")), "starting: reading x: no such file");
    }
}
