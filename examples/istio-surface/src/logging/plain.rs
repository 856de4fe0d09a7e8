//! Lines of fields separated by tabs.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

use super::line::{Bounded, Style, append};

/// Prefixes that the target column leaves out.
const PREFIXES: [&str; 2] = ["meshwright_ztunnel::", "ztunnel::"];
/// Longest chain of spans in the target column, in bytes.
const SPANS: usize = 1024;

/// Collects the fields of an event or span as `key=value key=value`.
#[derive(Debug, Default)]
pub(super) struct Fields {
    message: String,
    fields: String,
    left_out: bool,
}

impl Fields {
    fn add(&mut self, field: &Field, write: impl FnOnce(&mut String)) {
        if field.name() == "message" {
            write(&mut self.message);
            return;
        }
        let kept = append(&mut self.fields, |line| {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(field.name());
            line.push('=');
            write(line);
        });
        self.left_out |= !kept;
    }

    /// The fields without a message: a span's text.
    pub(super) fn into_span(mut self) -> String {
        if !self.message.is_empty() {
            self.fields.insert(0, ' ');
            self.fields.insert_str(0, &self.message);
        }
        self.fields
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, |line| {
            let _infallible = write!(Bounded::new(line, Style::Rust), "{value:?}");
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        self.add(field, |line| {
            if is_message {
                let _infallible = Bounded::new(line, Style::Rust).write_str(value);
            } else {
                line.push('"');
                let _infallible = Bounded::new(line, Style::RustQuoted).write_str(value);
                line.push('"');
            }
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }
}

/// Formats one line, without its end.
///
/// `spans` are the open spans from the outermost in, each with the text of its fields.
pub(super) fn line(
    time: &str,
    metadata: &Metadata<'_>,
    spans: impl Iterator<Item = (&'static str, String)>,
    fields: Fields,
) -> String {
    let mut line = String::with_capacity(256 + fields.fields.len());
    line.push_str(time);
    line.push('\t');
    line.push_str(level_name(metadata.level()));
    line.push('\t');
    push_target(&mut line, metadata.target(), spans);
    line.push('\t');
    let mut left_out = fields.left_out;
    left_out |= !append(&mut line, |line| line.push_str(&fields.message));
    if !fields.fields.is_empty() {
        left_out |= !append(&mut line, |line| {
            line.push('\t');
            line.push_str(&fields.fields);
        });
    }
    if left_out {
        line.push_str(" truncated=true");
    }
    line
}

fn push_target(
    line: &mut String,
    target: &str,
    spans: impl Iterator<Item = (&'static str, String)>,
) {
    let short = PREFIXES
        .iter()
        .find_map(|prefix| target.strip_prefix(prefix))
        .unwrap_or(target);
    let _infallible = Bounded::new(line, Style::Rust).write_str(short);
    let end = line.len() + SPANS;
    for (name, fields) in spans {
        if line.len() + name.len() + fields.len() + 3 > end {
            break;
        }
        line.push(':');
        line.push_str(name);
        if !fields.is_empty() {
            line.push('{');
            line.push_str(&fields);
            line.push('}');
        }
    }
}

/// The level in lower case.
pub(super) fn level_name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}
