//! Policies, and which of them each workload lists.

use std::sync::Arc;

use meshwright_policy::proto::Authorization;

use super::{Mesh, Note};
use crate::manifest::{Labels, Objects};

/// All policies of a mesh.
#[derive(Debug, Default)]
pub(super) struct Policies {
    messages: Vec<(Arc<str>, Authorization)>,
}

impl Policies {
    pub(super) fn new(_objects: &Objects, _mesh: &Mesh, _notes: &mut Vec<Note>) -> Self {
        Self::default()
    }

    pub(super) fn attached(&self, _namespace: &str, _labels: &Labels) -> Vec<String> {
        Vec::new()
    }

    pub(super) fn into_messages(self) -> Vec<(Arc<str>, Authorization)> {
        self.messages
    }
}
