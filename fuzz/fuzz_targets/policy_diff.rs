//! The engine decides as a plain evaluator does; one more DENY never allows more; an address and
//! its mapped form are one.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use meshwright_identity::SpiffeId;
use meshwright_policy::proto::{
    Action, Address, Authorization, Clause, Match, Rule, Scope, ServiceAccountMatch, StringMatch,
    string_match::MatchType,
};
use meshwright_policy::{Connection, Decision, Mode, PolicySet, Subject, convert, reference};
use prost::Message as _;

const NAMES: [&str; 3] = ["a", "b", "ab"];

#[derive(Arbitrary, Debug)]
struct Input {
    policies: Vec<APolicy>,
    caller: Option<(u8, u8)>,
    source: [u8; 2],
    destination: [u8; 2],
    port: bool,
    namespace: u8,
    listed: Vec<u8>,
    strict: bool,
}

#[derive(Arbitrary, Debug)]
struct APolicy {
    namespace: u8,
    scope: u8,
    deny: bool,
    dry_run: bool,
    rules: Vec<Vec<Vec<AMatch>>>,
}

#[derive(Arbitrary, Debug)]
struct AMatch {
    namespaces: Vec<AString>,
    not_namespaces: Vec<AString>,
    principals: Vec<AString>,
    not_principals: Vec<AString>,
    source_ips: Vec<ARange>,
    not_source_ips: Vec<ARange>,
    destination_ips: Vec<ARange>,
    destination_ports: Vec<bool>,
    not_destination_ports: Vec<bool>,
    accounts: Vec<(u8, u8)>,
    not_accounts: Vec<(u8, u8)>,
}

#[derive(Arbitrary, Debug)]
struct AString {
    kind: u8,
    text: u8,
    account: u8,
}

#[derive(Arbitrary, Debug)]
struct ARange {
    last: [u8; 2],
    length: u8,
}

fuzz_target!(|input: Input| {
    let messages: Vec<Authorization> = input
        .policies
        .iter()
        .take(6)
        .enumerate()
        .map(|(i, p)| p.message(i))
        .collect();
    let caller = input.caller.map(|(namespace, account)| {
        let uri = format!("spiffe://td/ns/{}/sa/{}", name(namespace), name(account));
        SpiffeId::parse(&uri).expect("a good ID")
    });
    let listed: Vec<Arc<str>> = input
        .listed
        .iter()
        .take(4)
        .map(
            |index| match messages.get(usize::from(*index) % (messages.len() + 1)) {
                Some(message) => format!("{}/{}", message.namespace, message.name).into(),
                None => "a/missing".into(),
            },
        )
        .collect();
    let mode = if input.strict {
        Mode::Strict
    } else {
        Mode::IstioCompatible
    };
    let source = ip(input.source);
    let destination = SocketAddr::new(ip(input.destination), if input.port { 80 } else { 443 });
    let subject = Subject::new(name(input.namespace), &listed);
    let connection = Connection::new(caller.as_ref(), source, destination, subject);
    let set = compile(&messages, mode);
    let decision = set.decide(&connection);
    assert_eq!(
        verdict(&decision),
        verdict(&reference::decide(&messages, &connection, mode))
    );

    let mapped = SocketAddr::new(mapped(destination.ip()), destination.port());
    let same = Connection::new(caller.as_ref(), self::mapped(source), mapped, subject);
    assert_eq!(
        set.decide(&same),
        decision,
        "a mapped address is another one"
    );

    let mut more = messages;
    more.push(Authorization {
        scope: Scope::Global.into(),
        ..deny_of(&input)
    });
    let with_deny = compile(&more, mode).decide(&connection);
    assert!(
        !with_deny.is_allow() || decision.is_allow(),
        "one more DENY allowed something"
    );
});

fn compile(messages: &[Authorization], mode: Mode) -> PolicySet {
    let policies = messages.iter().map(|message| {
        let name = format!("{}/{}", message.namespace, message.name);
        convert(&name, &message.encode_to_vec()).expect("only good policies are generated")
    });
    PolicySet::new(mode, policies)
}

/// Which policy is named may differ where several apply; the outcome may not.
fn verdict(decision: &Decision) -> u8 {
    match decision {
        Decision::Allow => 0,
        Decision::Deny(_) => 1,
        _ => 2,
    }
}

fn deny_of(input: &Input) -> Authorization {
    let rules = input
        .policies
        .first()
        .map(|p| p.message(0).rules)
        .unwrap_or_default();
    Authorization {
        name: "one-more".into(),
        namespace: "a".into(),
        action: Action::Deny.into(),
        rules,
        ..Authorization::default()
    }
}

impl APolicy {
    fn message(&self, index: usize) -> Authorization {
        Authorization {
            name: format!("p{index}"),
            namespace: name(self.namespace).into(),
            scope: [Scope::Global, Scope::Namespace, Scope::WorkloadSelector]
                [usize::from(self.scope) % 3]
                .into(),
            action: if self.deny {
                Action::Deny
            } else {
                Action::Allow
            }
            .into(),
            dry_run: self.dry_run,
            rules: self
                .rules
                .iter()
                .take(4)
                .map(|clauses| Rule {
                    clauses: clauses
                        .iter()
                        .take(4)
                        .map(|matches| Clause {
                            matches: matches.iter().take(4).map(AMatch::message).collect(),
                        })
                        .collect(),
                })
                .collect(),
        }
    }
}

impl AMatch {
    fn message(&self) -> Match {
        let strings = |list: &[AString], principal| {
            list.iter().take(3).map(|s| s.message(principal)).collect()
        };
        let ranges = |list: &[ARange]| list.iter().take(3).map(ARange::message).collect();
        let ports = |list: &[bool]| {
            list.iter()
                .take(3)
                .map(|p| if *p { 80 } else { 443 })
                .collect()
        };
        let accounts = |list: &[(u8, u8)]| {
            let account = |(namespace, account): &(u8, u8)| ServiceAccountMatch {
                namespace: name(*namespace).into(),
                service_account: name(*account).into(),
            };
            list.iter().take(3).map(account).collect()
        };
        Match {
            namespaces: strings(&self.namespaces, false),
            not_namespaces: strings(&self.not_namespaces, false),
            principals: strings(&self.principals, true),
            not_principals: strings(&self.not_principals, true),
            source_ips: ranges(&self.source_ips),
            not_source_ips: ranges(&self.not_source_ips),
            destination_ips: ranges(&self.destination_ips),
            destination_ports: ports(&self.destination_ports),
            not_destination_ports: ports(&self.not_destination_ports),
            service_accounts: accounts(&self.accounts),
            not_service_accounts: accounts(&self.not_accounts),
            ..Match::default()
        }
    }
}

impl AString {
    fn message(&self, principal: bool) -> StringMatch {
        let text = match principal {
            true => format!("td/ns/{}/sa/{}", name(self.text), name(self.account)),
            false => name(self.text).to_owned(),
        };
        let cut = usize::from(self.account) % text.len();
        StringMatch {
            match_type: Some(match self.kind % 4 {
                0 => MatchType::Exact(text),
                1 => MatchType::Prefix(text[..text.len() - cut].to_owned()),
                2 => MatchType::Suffix(text[cut..].to_owned()),
                _ => MatchType::Presence(()),
            }),
        }
    }
}

impl ARange {
    fn message(&self) -> Address {
        Address {
            address: vec![10, 0, self.last[0] % 2, self.last[1] % 4].into(),
            length: u32::from(self.length) % 33,
        }
    }
}

fn name(index: u8) -> &'static str {
    NAMES[usize::from(index) % NAMES.len()]
}

fn ip(last: [u8; 2]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, last[0] % 2, last[1] % 4))
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        v6 @ IpAddr::V6(_) => v6,
    }
}
