//! What a node proxy says about itself: metrics and access lines, read back.

use std::collections::BTreeMap;

/// One line of the access log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct AccessLine {
    /// `info`, `warn` or `error`.
    pub level: String,
    /// The event, `connection complete` for instance.
    pub message: String,
    fields: BTreeMap<String, String>,
}

impl AccessLine {
    /// Returns a field without its quotes; empty if it is absent.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Reads a line in ztunnel's plain format; `None` if it is not an access line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split('\t');
        let _time = columns.next()?;
        let level = columns.next()?;
        if columns.next()? != "access" {
            return None;
        }
        let message = columns.next()?;
        Some(Self {
            level: level.to_owned(),
            message: message.to_owned(),
            fields: fields(columns.next().unwrap_or_default()),
        })
    }
}

/// Reads `key=value key="quoted value"`.
fn fields(text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, after) = after.split_once(' ').unwrap_or((after, ""));
                (value.to_owned(), after)
            }
        };
        fields.insert(key.to_owned(), value);
        rest = after.trim_start();
    }
    fields
}

/// Reads up to the closing quote, and returns the rest behind it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// A page of metrics in the Prometheus text format.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    page: String,
}

impl Metrics {
    /// Wraps a page.
    pub const fn new(page: String) -> Self {
        Self { page }
    }

    /// Returns the page.
    pub fn text(&self) -> &str {
        &self.page
    }

    /// Returns the sum over all series of a name that have the given labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.page
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                if !rest.starts_with(['{', ' ']) {
                    return None;
                }
                let matches = labels
                    .iter()
                    .all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")));
                if !matches {
                    return None;
                }
                rest.rsplit_once(' ')?.1.parse::<f64>().ok()
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_line_is_read_with_quotes_and_escapes() {
        let _trace = meshwright_testkit::trace();
        let line = AccessLine::parse(
            "2026-08-20T09:14:03.517204Z\tinfo\taccess\tconnection complete\tsrc.addr=10.1.0.7:5 \
             src.workload=\"a \\\"b\\\"\" direction=\"outbound\" bytes_sent=120",
        )
        .unwrap();
        assert_eq!(line.message, "connection complete");
        assert_eq!(line.field("src.addr"), "10.1.0.7:5");
        assert_eq!(line.field("src.workload"), "a \"b\"");
        assert_eq!(line.field("bytes_sent"), "120");
        assert_eq!(line.field("error"), "");
        assert_eq!(AccessLine::parse("t\tinfo\txds\tconnected\t"), None);
    }

    #[test]
    fn series_are_added_up_by_label() {
        let _trace = meshwright_testkit::trace();
        let metrics =
            Metrics::new("a_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\"} 4\na_total_b 9\n".into());
        assert!((metrics.sum("a_total", &[("x", "1")]) - 7.0).abs() < f64::EPSILON);
        assert!((metrics.sum("a_total", &[("y", "2")]) - 3.0).abs() < f64::EPSILON);
    }
}
