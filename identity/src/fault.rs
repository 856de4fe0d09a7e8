/// Who has to act on an error.
///
/// A proxy chooses a status, a log level and a metric label from it without knowing the error.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// The caller gave a value that can never work.
    Caller,
    /// This process or its machine: a file, the clock, the configuration.
    Local,
    /// The other end: a peer, a certificate authority, a control plane.
    Peer,
}
