//! The rule for error messages, as an assertion.

use std::error::Error;

/// Fails if a link of the chain repeats the message of the link below it.
///
/// # Panics
///
/// Panics when the printed form of an error contains the printed form of its source: a reporter
/// that prints the chain would then say the same thing twice.
#[track_caller]
pub fn assert_chain_says_each_thing_once(error: &dyn Error) {
    let mut link = error;
    while let Some(source) = link.source() {
        assert!(
            !link.to_string().contains(&source.to_string()),
            "`{link}` repeats its source `{source}`"
        );
        link = source;
    }
}

#[cfg(test)]
mod tests {
    use super::assert_chain_says_each_thing_once;
    use std::{error::Error, fmt, io};

    #[derive(Debug)]
    struct Step {
        text: &'static str,
        source: io::Error,
    }

    impl fmt::Display for Step {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.text)
        }
    }

    impl Error for Step {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.source)
        }
    }

    #[test]
    fn chain_that_names_each_step_once_passes() {
        assert_chain_says_each_thing_once(&Step {
            text: "could not read the token",
            source: io::Error::other("no such file"),
        });
    }

    #[test]
    #[should_panic(expected = "repeats its source")]
    fn chain_that_repeats_its_source_fails() {
        assert_chain_says_each_thing_once(&Step {
            text: "could not read the token: no such file",
            source: io::Error::other("no such file"),
        });
    }
}
