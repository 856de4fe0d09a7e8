//! The policies that apply to one namespace, or to all.

use std::{collections::BTreeSet, sync::Arc};

use super::Mode;
use crate::{
    layers::Layers,
    policy::{Action, Policy},
};

#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    pub(super) deny: Layers,
    pub(super) allow: Layers,
    /// Never enforced.
    dry_run: Box<[Arc<Policy>]>,
}

impl Bucket {
    pub(super) fn is_empty(&self) -> bool {
        self.deny.len() + self.allow.len() + self.dry_run.len() == 0
    }

    /// In no particular order.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> + '_ {
        self.deny
            .policies()
            .chain(self.allow.policies())
            .chain(&self.dry_run)
    }

    /// A copy without the policies called `gone` and with `added`.
    pub(super) fn changed(&self, gone: &BTreeSet<&str>, added: &[Arc<Policy>], mode: Mode) -> Self {
        let layers = |layers: &Layers, action: Action| {
            let added: Vec<_> = added
                .iter()
                .filter(|policy| policy.is_enforced() && policy.action == action)
                .cloned()
                .collect();
            if added.is_empty() && gone.is_empty() {
                return layers.clone();
            }
            layers.changed(gone, &added, mode.unevaluable(action))
        };
        let kept = self
            .dry_run
            .iter()
            .filter(|policy| !gone.contains(&*policy.name));
        Self {
            deny: layers(&self.deny, Action::Deny),
            allow: layers(&self.allow, Action::Allow),
            dry_run: kept
                .chain(added.iter().filter(|policy| !policy.is_enforced()))
                .cloned()
                .collect(),
        }
    }
}
