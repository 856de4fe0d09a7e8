//! Capture rules of a pod: what shall be, what is, and the steps between.

mod spec;

pub use spec::{
    INBOUND_MARK, InterfaceName, InvalidInterfaceName, MARK_MASK, MAX_VIRTUAL_INTERFACES,
    PROXY_MARK, Ports, ROUTE_TABLE, RULE_PREFERENCE, Spec, TooManyInterfaces,
};

use crate::netns::Netns;

/// A step of a plan could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {}

/// What an [`apply`] or a removal changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Receipt {
    /// The steps that were done, in order; empty when everything was right already.
    pub steps: Vec<String>,
}

/// Makes the namespace as `spec` wants it; does nothing where it already is.
pub fn apply(netns: &Netns, spec: &Spec) -> Result<Receipt, CaptureError> {
    let _ = (netns, spec);
    todo!()
}

/// Removes everything that [`apply`] made; connections that are captured are cut.
pub fn remove(netns: &Netns, spec: &Spec) -> Result<Receipt, CaptureError> {
    let _ = (netns, spec);
    todo!()
}

/// Stops capturing new connections; captured ones continue until [`finish_removal`].
pub fn begin_removal(netns: &Netns, spec: &Spec) -> Result<Receipt, CaptureError> {
    let _ = (netns, spec);
    todo!()
}

/// Removes the rest; the same as [`remove`].
pub fn finish_removal(netns: &Netns, spec: &Spec) -> Result<Receipt, CaptureError> {
    remove(netns, spec)
}

/// Counts the connections that still run through the proxy's ports in the namespace.
pub fn captured_connections(netns: &Netns, spec: &Spec) -> Result<usize, CaptureError> {
    let _ = (netns, spec);
    todo!()
}

/// Compares the namespace with `spec`; each difference is one line.
pub fn verify(netns: &Netns, spec: &Spec) -> Result<Vec<String>, CaptureError> {
    let _ = (netns, spec);
    todo!()
}

/// Renders the rules as a file for `nft -f`.
#[must_use]
pub fn render_nft(spec: &Spec) -> String {
    let _ = spec;
    todo!()
}
