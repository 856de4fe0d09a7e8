//! The subscriber layer: events to lines.

use std::time::SystemTime;

use time::OffsetDateTime;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::start::LogFormat;
use super::writer::LineSender;
use super::{json, plain};

/// Tells the time; a parameter, so that tests have their own.
pub(super) type Clock = fn() -> SystemTime;

/// Formats events and queues the lines.
#[derive(Debug)]
pub(super) struct LogLayer {
    format: LogFormat,
    lines: LineSender,
    clock: Clock,
}

/// The fields of a span, formatted when they were recorded.
#[derive(Debug)]
struct SpanFields(String);

impl LogLayer {
    pub(super) fn new(format: LogFormat, lines: LineSender, clock: Clock) -> Self {
        Self {
            format,
            lines,
            clock,
        }
    }

    fn span_fields(&self, record: impl FnOnce(&mut dyn tracing::field::Visit)) -> String {
        match self.format {
            LogFormat::Json => {
                let mut fields = json::Fields::default();
                record(&mut fields);
                fields.into_span()
            }
            LogFormat::Plain => {
                let mut fields = plain::Fields::default();
                record(&mut fields);
                fields.into_span()
            }
        }
    }

    fn joined(&self, old: &str, new: &str) -> String {
        match self.format {
            LogFormat::Json => {
                let (head, tail) = (old.trim_end_matches('}'), new.trim_start_matches('{'));
                let comma = if head == "{" || tail == "}" { "" } else { "," };
                format!("{head}{comma}{tail}")
            }
            LogFormat::Plain if old.is_empty() || new.is_empty() => format!("{old}{new}"),
            LogFormat::Plain => format!("{old} {new}"),
        }
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id) {
            let fields = self.span_fields(|visitor| attributes.record(visitor));
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, cx: Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        let new = self.span_fields(|visitor| record.record(visitor));
        let mut extensions = span.extensions_mut();
        if let Some(SpanFields(fields)) = extensions.get_mut() {
            // Recording again and again must not grow a span without end.
            if fields.len() + new.len() <= super::line::VALUE {
                *fields = self.joined(fields, &new);
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let time = timestamp((self.clock)());
        let metadata = event.metadata();
        let spans = spans_of(cx.event_scope(event));
        let line = match self.format {
            LogFormat::Json => {
                let mut fields = json::Fields::default();
                event.record(&mut fields);
                json::line(&time, metadata, spans, &fields)
            }
            LogFormat::Plain => {
                let mut fields = plain::Fields::default();
                event.record(&mut fields);
                plain::line(&time, metadata, spans, fields)
            }
        };
        self.lines.send(line);
    }
}

fn spans_of<'a, S>(scope: Option<Scope<'a, S>>) -> impl Iterator<Item = (&'static str, String)>
where
    S: Subscriber + LookupSpan<'a>,
{
    scope.into_iter().flat_map(Scope::from_root).map(|span| {
        let extensions = span.extensions();
        let fields = extensions
            .get::<SpanFields>()
            .map(|fields| fields.0.clone());
        (span.name(), fields.unwrap_or_default())
    })
}

/// UTC with microseconds, as RFC 3339.
fn timestamp(now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    let (year, month, day) = (now.year(), u8::from(now.month()), now.day());
    let (hour, minute, second) = (now.hour(), now.minute(), now.second());
    let micros = now.microsecond();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}
