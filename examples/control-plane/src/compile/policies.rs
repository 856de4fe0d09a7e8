//! Policies, and which of them each workload lists.

use std::sync::Arc;

use meshwright_policy::{kubernetes::Translation, proto::Authorization};

use super::{Mesh, Note};
use crate::manifest::{InvalidManifests, Labels, Objects};

/// All policies of a mesh.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    translation: Translation<'a>,
}

impl<'a> Policies<'a> {
    pub(super) fn new(
        objects: &'a Objects,
        mesh: &'a Mesh,
        notes: &mut Vec<Note>,
    ) -> Result<Self, InvalidManifests> {
        let translation = objects
            .translate(&mesh.root_namespace)
            .map_err(InvalidManifests::new)?;
        for note in translation.notes() {
            let (namespace, name) = note.policy.split_once('/').unwrap_or(("", &note.policy));
            let place = objects.place("AuthorizationPolicy", namespace, name);
            let place = place.cloned().unwrap_or_default();
            notes.push(Note::new(&place, note.to_string()));
        }
        Ok(Self { translation })
    }

    /// The policies that a workload with these labels lists, as `namespace/name`.
    pub(super) fn attached(&self, namespace: &str, labels: &Labels) -> Vec<String> {
        self.translation
            .listed_by(namespace, |name| labels.get(name).map(|value| &**value))
    }

    pub(super) fn messages(&self) -> Vec<(Arc<str>, Authorization)> {
        let named = |policy: &Authorization| {
            let name = format!("{}/{}", policy.namespace, policy.name);
            (Arc::from(name), policy.clone())
        };
        self.translation
            .authorizations()
            .iter()
            .map(named)
            .collect()
    }
}
