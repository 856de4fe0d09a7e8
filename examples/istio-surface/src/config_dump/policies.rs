//! Policies, in the words of the resource.

use std::net::IpAddr;

use meshwright_policy::proto::string_match::MatchType;
use meshwright_policy::proto::{self, Match, ServiceAccountMatch, StringMatch};
use meshwright_policy::{Action, Policy, Scope};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyJson {
    name: String,
    namespace: String,
    scope: &'static str,
    action: &'static str,
    rules: Vec<Vec<Vec<MatchJson>>>,
    dry_run: bool,
    /// Ours: why this stands in, failing closed, for a policy that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    namespaces: Vec<TextJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_namespaces: Vec<TextJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_accounts: Vec<AccountJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_service_accounts: Vec<AccountJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    principals: Vec<TextJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_principals: Vec<TextJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_destination_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_ports: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_destination_ports: Vec<u32>,
}

#[derive(Debug, Serialize)]
enum TextJson {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Presence([(); 0]),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountJson {
    namespace: String,
    service_account: String,
}

impl PolicyJson {
    pub(super) fn of(policy: &Policy) -> Self {
        let full: &str = policy.name();
        let rules = policy.authorization().rules;
        let matches =
            |clause: proto::Clause| clause.matches.into_iter().map(MatchJson::of).collect();
        let clauses = |rule: proto::Rule| rule.clauses.into_iter().map(matches).collect();
        Self {
            name: full
                .split_once('/')
                .map_or(full, |(_, name)| name)
                .to_owned(),
            namespace: policy.namespace().to_owned(),
            scope: match policy.scope() {
                Some(Scope::Global) => "Global",
                Some(Scope::Namespace) => "Namespace",
                Some(Scope::WorkloadSelector) => "WorkloadSelector",
                _ => "Unreadable",
            },
            action: match policy.action() {
                Action::Deny => "Deny",
                _ => "Allow",
            },
            rules: rules.into_iter().map(clauses).collect(),
            dry_run: policy.is_dry_run(),
            invalid: policy.invalid().map(ToString::to_string),
        }
    }
}

impl MatchJson {
    fn of(matching: Match) -> Self {
        Self {
            namespaces: texts(matching.namespaces),
            not_namespaces: texts(matching.not_namespaces),
            service_accounts: accounts(matching.service_accounts),
            not_service_accounts: accounts(matching.not_service_accounts),
            principals: texts(matching.principals),
            not_principals: texts(matching.not_principals),
            source_ips: networks(&matching.source_ips),
            not_source_ips: networks(&matching.not_source_ips),
            destination_ips: networks(&matching.destination_ips),
            not_destination_ips: networks(&matching.not_destination_ips),
            destination_ports: matching.destination_ports,
            not_destination_ports: matching.not_destination_ports,
        }
    }
}

fn texts(texts: Vec<StringMatch>) -> Vec<TextJson> {
    let text = |text: StringMatch| match text.match_type? {
        MatchType::Exact(text) => Some(TextJson::Exact(text)),
        MatchType::Prefix(text) => Some(TextJson::Prefix(text)),
        MatchType::Suffix(text) => Some(TextJson::Suffix(text)),
        MatchType::Presence(()) => Some(TextJson::Presence([])),
    };
    texts.into_iter().filter_map(text).collect()
}

fn accounts(accounts: Vec<ServiceAccountMatch>) -> Vec<AccountJson> {
    let account = |account: ServiceAccountMatch| AccountJson {
        namespace: account.namespace,
        service_account: account.service_account,
    };
    accounts.into_iter().map(account).collect()
}

fn networks(networks: &[proto::Address]) -> Vec<String> {
    let network = |network: &proto::Address| {
        let octets = network.address.as_ref();
        let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
        let ip = v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
        let shown = ip.map_or_else(|_| "invalid".to_owned(), |ip| ip.to_string());
        format!("{shown}/{}", network.length)
    };
    networks.iter().map(network).collect()
}
