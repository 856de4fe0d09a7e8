//! Policies of the local source.

use std::net::IpAddr;

use ipnet::IpNet;
use meshwright_policy::proto as wire;
use serde::Deserialize;

use super::Faults;
use super::service::octets;

/// One policy, with the field names of `/config_dump`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawPolicy {
    name: String,
    namespace: String,
    scope: Scope,
    action: Action,
    #[serde(default)]
    rules: Vec<Vec<Vec<RawMatch>>>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize)]
enum Scope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Debug, Deserialize)]
enum Action {
    Allow,
    Deny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawMatch {
    namespaces: Vec<RawString>,
    not_namespaces: Vec<RawString>,
    principals: Vec<RawString>,
    not_principals: Vec<RawString>,
    source_ips: Vec<String>,
    not_source_ips: Vec<String>,
    destination_ips: Vec<String>,
    not_destination_ips: Vec<String>,
    destination_ports: Vec<u16>,
    not_destination_ports: Vec<u16>,
    service_accounts: Vec<RawAccount>,
    not_service_accounts: Vec<RawAccount>,
}

#[derive(Debug, Deserialize)]
enum RawString {
    #[serde(alias = "exact")]
    Exact(String),
    #[serde(alias = "prefix")]
    Prefix(String),
    #[serde(alias = "suffix")]
    Suffix(String),
    #[serde(alias = "presence")]
    Presence(serde::de::IgnoredAny),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawAccount {
    namespace: String,
    service_account: String,
}

impl RawPolicy {
    /// Turns the entry into the message that a control plane would send, with its name.
    pub(super) fn into_policy(
        self,
        place: &str,
        faults: &mut Faults,
    ) -> (String, wire::Authorization) {
        let name = format!("{}/{}", self.namespace, self.name);
        let rules = self
            .rules
            .into_iter()
            .map(|clauses| wire::Rule {
                clauses: clauses
                    .into_iter()
                    .map(|matches| wire::Clause {
                        matches: matches
                            .into_iter()
                            .map(|raw| raw.into_message(place, faults))
                            .collect(),
                    })
                    .collect(),
            })
            .collect();
        let policy = wire::Authorization {
            name: self.name,
            namespace: self.namespace,
            scope: match self.scope {
                Scope::Global => wire::Scope::Global,
                Scope::Namespace => wire::Scope::Namespace,
                Scope::WorkloadSelector => wire::Scope::WorkloadSelector,
            }
            .into(),
            action: match self.action {
                Action::Allow => wire::Action::Allow,
                Action::Deny => wire::Action::Deny,
            }
            .into(),
            rules,
            dry_run: self.dry_run,
        };
        (name, policy)
    }
}

impl RawMatch {
    fn into_message(self, place: &str, faults: &mut Faults) -> wire::Match {
        let mut cidrs = |field: &str, texts: Vec<String>| -> Vec<wire::Address> {
            texts
                .iter()
                .filter_map(|text| {
                    let range = cidr(text);
                    if range.is_none() {
                        faults.add(format!("{place}.{field}"), text, "an address or CIDR");
                    }
                    range
                })
                .collect()
        };
        wire::Match {
            source_ips: cidrs("sourceIps", self.source_ips),
            not_source_ips: cidrs("notSourceIps", self.not_source_ips),
            destination_ips: cidrs("destinationIps", self.destination_ips),
            not_destination_ips: cidrs("notDestinationIps", self.not_destination_ips),
            namespaces: strings(self.namespaces),
            not_namespaces: strings(self.not_namespaces),
            principals: strings(self.principals),
            not_principals: strings(self.not_principals),
            destination_ports: self.destination_ports.into_iter().map(u32::from).collect(),
            not_destination_ports: self
                .not_destination_ports
                .into_iter()
                .map(u32::from)
                .collect(),
            service_accounts: accounts(self.service_accounts),
            not_service_accounts: accounts(self.not_service_accounts),
        }
    }
}

fn strings(raw: Vec<RawString>) -> Vec<wire::StringMatch> {
    raw.into_iter()
        .map(|raw| wire::StringMatch {
            match_type: Some(match raw {
                RawString::Exact(text) => wire::string_match::MatchType::Exact(text),
                RawString::Prefix(text) => wire::string_match::MatchType::Prefix(text),
                RawString::Suffix(text) => wire::string_match::MatchType::Suffix(text),
                RawString::Presence(_) => wire::string_match::MatchType::Presence(()),
            }),
        })
        .collect()
}

fn accounts(raw: Vec<RawAccount>) -> Vec<wire::ServiceAccountMatch> {
    raw.into_iter()
        .map(|raw| wire::ServiceAccountMatch {
            namespace: raw.namespace,
            service_account: raw.service_account,
        })
        .collect()
}

fn cidr(text: &str) -> Option<wire::Address> {
    let range: IpNet = text
        .parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(wire::Address {
        address: octets(range.addr()),
        length: range.prefix_len().into(),
    })
}
