//! The node agent's part: capture rules in the pod, and its namespace to the node's proxy.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::runtime::Runtime;

use crate::{Pod, WorldError};

/// The agent of one node.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
}

impl Agent {
    pub(crate) fn start(_runtime: &Arc<Runtime>, socket: &Path) -> Result<Self, WorldError> {
        Ok(Self {
            socket: socket.to_owned(),
        })
    }

    /// Returns the path of the handover socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Hands a pod to the proxy and captures its traffic.
    ///
    /// # Errors
    ///
    /// Fails when the proxy refuses the pod or the rules cannot be applied.
    pub fn enrol(&self, _pod: &Pod) -> Result<(), WorldError> {
        Err(WorldError::new("x"))
    }

    /// Removes the capture and takes the pod from the proxy.
    ///
    /// # Errors
    ///
    /// Fails when the rules cannot be removed.
    pub fn evict(&self, _pod: &Pod) -> Result<(), WorldError> {
        Err(WorldError::new("x"))
    }
}
