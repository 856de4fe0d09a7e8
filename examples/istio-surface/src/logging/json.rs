//! Lines of one JSON object each.

use std::fmt::{self, Write};

use tracing::Metadata;
use tracing::field::{Field, Visit};

use super::line::{Bounded, Style, append};
use super::plain::level_name;

/// Collects the fields of an event or span as `"key":value,"key":value`.
#[derive(Debug, Default)]
pub(super) struct Fields {
    message: String,
    fields: String,
    left_out: bool,
}

impl Fields {
    fn add(&mut self, field: &Field, write: impl FnOnce(&mut String)) {
        let kept = if field.name() == "message" {
            append(&mut self.message, |line| pair(line, "message", write))
        } else {
            append(&mut self.fields, |line| pair(line, field.name(), write))
        };
        self.left_out |= !kept;
    }

    /// The fields as an object: a span's text.
    pub(super) fn into_span(self) -> String {
        format!("{{{}}}", joined(&self.message, &self.fields))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, |line| string(line, format_args!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, |line| string(line, format_args!("{value}")));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, |line| string(line, format_args!("{value}")));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, |line| bare(line, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, |line| bare(line, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, |line| bare(line, value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for infinity or for what is no number.
        self.add(field, |line| match value.is_finite() {
            true => bare(line, value),
            false => line.push_str("null"),
        });
    }
}

/// Formats one line, without its end.
///
/// `spans` are the open spans from the outermost in, each with its fields as an object.
pub(super) fn line(
    time: &str,
    metadata: &Metadata<'_>,
    spans: impl Iterator<Item = (&'static str, String)>,
    fields: &Fields,
) -> String {
    let mut line = String::with_capacity(256 + fields.fields.len());
    line.push_str("{\"level\":\"");
    line.push_str(level_name(metadata.level()));
    line.push_str("\",\"time\":\"");
    line.push_str(time);
    line.push('"');
    pair(&mut line, "scope", |line| {
        string(line, format_args!("{}", metadata.target()));
    });
    let mut left_out = fields.left_out;
    for part in [&fields.message, &fields.fields] {
        if !part.is_empty() {
            left_out |= !append(&mut line, |line| {
                line.push(',');
                line.push_str(part);
            });
        }
    }
    for (name, object) in spans {
        left_out |= !append(&mut line, |line| {
            pair(line, name, |line| line.push_str(&object));
        });
    }
    if left_out {
        line.push_str(",\"truncated\":true");
    }
    line.push('}');
    line
}

fn pair(line: &mut String, key: &str, write: impl FnOnce(&mut String)) {
    if !line.is_empty() {
        line.push(',');
    }
    string(line, format_args!("{key}"));
    line.push(':');
    write(line);
}

fn string(line: &mut String, value: fmt::Arguments<'_>) {
    line.push('"');
    let _infallible = Bounded::new(line, Style::Json).write_fmt(value);
    line.push('"');
}

fn bare(line: &mut String, value: impl fmt::Display) {
    let _infallible = write!(line, "{value}");
}

fn joined(first: &str, second: &str) -> String {
    match (first.is_empty(), second.is_empty()) {
        (false, false) => format!("{first},{second}"),
        _ => format!("{first}{second}"),
    }
}
