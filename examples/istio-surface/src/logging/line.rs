//! A line under construction: bounded, and free of characters that would break it.

use std::fmt;

/// Longest line without its end, in bytes.
pub(super) const LINE: usize = 4096 - 1;
/// Longest value of one field, in bytes.
pub(super) const VALUE: usize = 1024;
/// Room kept for saying that something was left out, and for closing brackets.
const RESERVE: usize = 32;

/// Appends to `line` what `write` writes, unless that makes the line too long.
///
/// Returns whether it was kept.
pub(super) fn append(line: &mut String, write: impl FnOnce(&mut String)) -> bool {
    let before = line.len();
    write(line);
    let fits = line.len() <= LINE - RESERVE;
    if !fits {
        line.truncate(before);
    }
    fits
}

/// Writes text with dangerous characters escaped, and stops after [`VALUE`] bytes.
#[derive(Debug)]
pub(super) struct Bounded<'a> {
    line: &'a mut String,
    left: usize,
    style: Style,
    cut: bool,
}

/// How a dangerous character is escaped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Style {
    /// Inside a JSON string.
    Json,
    /// As Rust does, outside quotes.
    Rust,
    /// As Rust does, inside quotes.
    RustQuoted,
}

impl<'a> Bounded<'a> {
    pub(super) fn new(line: &'a mut String, style: Style) -> Self {
        Self {
            line,
            left: VALUE,
            style,
            cut: false,
        }
    }

    fn push(&mut self, c: char) {
        if self.cut {
            return;
        }
        let before = self.line.len();
        self.push_escaped(c);
        let used = self.line.len() - before;
        if used > self.left {
            self.line.truncate(before);
            self.line.push('…');
            self.cut = true;
        } else {
            self.left -= used;
        }
    }

    fn push_escaped(&mut self, c: char) {
        let quoted = self.style != Style::Rust;
        match c {
            '"' | '\\' if quoted => self.line.extend(['\\', c]),
            '\n' => self.line.push_str("\\n"),
            '\r' => self.line.push_str("\\r"),
            '\t' => self.line.push_str("\\t"),
            c if !is_dangerous(c) => self.line.push(c),
            c if self.style == Style::Json => {
                // Every dangerous character is in the basic plane.
                let _infallible =
                    fmt::Write::write_fmt(self.line, format_args!("\\u{:04x}", u32::from(c)));
            }
            c => self.line.extend(c.escape_unicode()),
        }
    }
}

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            self.push(c);
        }
        Ok(())
    }
}

/// Characters that end a line, steer a terminal, or change the direction of what follows.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::{Bounded, LINE, Style, VALUE, append};
    use std::fmt::Write;

    fn escaped(style: Style, text: &str) -> String {
        let mut line = String::new();
        Bounded::new(&mut line, style).write_str(text).unwrap();
        line
    }

    #[test]
    fn line_ends_terminal_escapes_and_direction_marks_are_escaped() {
        let _trace = meshwright_testkit::trace();
        let text = "a\r\nb\t\u{1b}[31m\u{202e}\u{9b}\"\\";
        assert_eq!(
            escaped(Style::Rust, text),
            "a\\r\\nb\\t\\u{1b}[31m\\u{202e}\\u{9b}\"\\"
        );
        assert_eq!(
            escaped(Style::RustQuoted, text),
            "a\\r\\nb\\t\\u{1b}[31m\\u{202e}\\u{9b}\\\"\\\\"
        );
        let json = format!("\"{}\"", escaped(Style::Json, text));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        assert!(json.is_ascii());
    }

    #[test]
    fn long_value_is_cut_and_marked() {
        let _trace = meshwright_testkit::trace();
        let line = escaped(Style::Rust, &"é".repeat(65_536));
        assert!(line.len() <= VALUE + '…'.len_utf8(), "{}", line.len());
        assert!(line.ends_with('…'));
    }

    #[test]
    fn field_that_makes_a_line_too_long_is_left_out_whole() {
        let _trace = meshwright_testkit::trace();
        let mut line = "x".repeat(LINE - 40);
        assert!(!append(&mut line, |line| line.push_str(" key=1234567890")));
        assert_eq!(line.len(), LINE - 40);
        assert!(append(&mut line, |line| line.push_str(" k=1")));
    }
}
