//! An error with its causes in one line.

use std::{error::Error, fmt::Write as _};

/// The messages of an error and of its causes, joined by `: `.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(link) = cause {
        // Writing to a string cannot fail.
        write!(text, ": {link}").ok();
        cause = link.source();
    }
    text
}
