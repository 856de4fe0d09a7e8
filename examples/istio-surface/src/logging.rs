//! Log lines as Istio's ztunnel writes them, on a thread of their own.
//!
//! The one idea: a line is formatted where the event happens, and handed to a bounded queue that
//! **drops when it is full**. A slow or dead sink costs lines, which are counted, and never time on
//! the data path.
//!
//! ```text
//! event ─► Layer: filter, format, escape, cut to 4 KiB ─► queue (10 000 lines, 8 MiB) ─► thread ─► sink
//!             ▲                                             │ full: dropped, counted
//!  Control::change (POST /logging)                          ▼ said in the next line that fits
//! ```
//!
//! What peers send reaches a line only escaped: control characters, line ends, terminal escapes and
//! direction marks are written as escapes, so an event is always exactly one line.

mod filter;
mod json;
mod layer;
mod limit;
mod line;
mod plain;
mod start;
mod writer;

pub use filter::{Filter, InvalidFilter};
pub use limit::{Admitted, LineLimit};
pub use start::{Control, LogFormat, Logging, LoggingError, SinkClosed};
