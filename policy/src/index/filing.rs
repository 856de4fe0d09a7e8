//! Conditions become keys.

use super::key::Key;
use crate::{
    matching::{Condition, Test, Unevaluable},
    values::Texts,
};

/// How conditions become keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filing {
    pub(super) unevaluable: Unevaluable,
}

impl Filing {
    /// Calls `add` with keys such that a connection for which `condition` can hold has one of them.
    ///
    /// False, and no calls, if there are no such keys.
    pub(super) fn each_key(self, condition: &Condition, add: &mut impl FnMut(Key<'_>)) -> bool {
        match (&condition.test, condition.negated) {
            (Test::Principals(texts), true) if texts.has_presence() => add(Key::NoIdentity),
            (Test::Namespaces(texts), true) if texts.has_presence() => add(Key::NoAccount),
            (_, true) => return false,
            (Test::Principals(texts) | Test::Namespaces(texts), false) if texts.has_presence() => {
                if self.absent_holds() && !texts.is_presence_only() {
                    return false;
                }
                add(Key::SomeIdentity);
            }
            (Test::Principals(texts), false) => self.each_principal(texts, add),
            (Test::Namespaces(texts), false) => self.each_namespace(texts, add),
            (Test::ServiceAccounts(accounts), false) => {
                for (namespace, name) in accounts.iter() {
                    add(Key::Account(namespace, name));
                }
                self.absent(Key::NoAccount, add);
            }
            (Test::DestinationPorts(ports), false) => {
                ports.iter().for_each(|port| add(Key::Port(port)));
            }
            (Test::SourceIps(networks), false) => {
                networks.iter().for_each(|net| add(Key::SourceIp(net)));
            }
            (Test::DestinationIps(networks), false) => {
                networks.iter().for_each(|net| add(Key::DestinationIp(net)));
            }
        }
        true
    }

    fn each_principal(self, texts: &Texts, add: &mut impl FnMut(Key<'_>)) {
        texts
            .exact()
            .iter()
            .for_each(|text| add(Key::Principal(text)));
        for text in texts.prefixes() {
            add(Key::PrincipalPrefix(text.as_bytes()));
        }
        for text in texts.suffixes() {
            add(Key::PrincipalSuffix(text));
        }
        self.absent(Key::NoIdentity, add);
    }

    fn each_namespace(self, texts: &Texts, add: &mut impl FnMut(Key<'_>)) {
        texts
            .exact()
            .iter()
            .for_each(|text| add(Key::Namespace(text)));
        for text in texts.prefixes() {
            add(Key::NamespacePrefix(text.as_bytes()));
        }
        for text in texts.suffixes() {
            add(Key::NamespaceSuffix(text));
        }
        self.absent(Key::NoAccount, add);
    }

    /// Read strictly, a condition on an identity also holds for callers that have none.
    fn absent(self, key: Key<'_>, add: &mut impl FnMut(Key<'_>)) {
        if self.absent_holds() {
            add(key);
        }
    }

    fn absent_holds(self) -> bool {
        self.unevaluable == Unevaluable::Holds
    }
}
