//! Whose fault a failure is.

/// Whose fault a failure is: chooses a log level and a metric label.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The code that called: a wrong argument, a missing privilege, settings that cannot work.
    Caller,
    /// This machine: the kernel, its limits, its configuration.
    Local,
    /// The other end of a connection.
    Peer,
}
