//! The capture rules, one row each, independent of the program or interface that carries them.
//!
//! The order within a chain is the order here. What each row is for:
//!
//! | row | why |
//! | --- | --- |
//! | save and restore the mark | the app's answers to a borrowed address come back to the proxy |
//! | probes | the node's health checks are not in the mesh |
//! | inbound | plaintext to the pod goes to the proxy; tunnels have their own listener |
//! | DNS | queries go to the proxy's server, in a conntrack zone apart from its own queries |
//! | marked | what belongs to the proxy passes |
//! | loopback | the pod talking to its own address stays direct |
//! | outbound | everything else that leaves goes to the proxy |

use super::spec::{INBOUND_MARK, MARK_MASK, PROXY_MARK, Spec};
use crate::nft::{Field, Hook, Match, Statement, Transport, Value, Verdict};
use crate::route::Family;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Which table a row is in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    Mangle,
    Nat,
    Raw,
}

/// One condition of a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Condition {
    ConnectionMarked(u32),
    DestinationPort(Transport, u16),
    FirstPacket,
    FromInterface(String),
    FromProbe,
    Marked(u32),
    NotDestinationPort(Transport, u16),
    NotMarked(u32),
    NotToLoopbackAddress,
    NotToLoopbackInterface,
    SourcePort(Transport, u16),
    Tcp,
    ToLoopbackInterface,
    ToProbe,
}

/// What a row does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Accept,
    Redirect(u16),
    RestoreMark,
    Return,
    SaveMark(u32),
    Zone(u16),
}

/// One rule, for each family that its conditions name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) hook: Hook,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) action: Action,
}

const DNS: u16 = 53;

/// Lists the rules that `spec` asks for.
pub(crate) fn rows(spec: &Spec) -> Vec<Row> {
    let mut rows = mark_rows();
    rows.extend(inbound_rows(spec));
    rows.extend(outbound_rows(spec));
    if spec.dns {
        rows.extend(zone_rows());
    }
    rows
}

fn row(place: Place, hook: Hook, conditions: Vec<Condition>, action: Action) -> Row {
    Row {
        place,
        hook,
        conditions,
        action,
    }
}

fn mark_rows() -> Vec<Row> {
    vec![
        row(
            Place::Mangle,
            Hook::Prerouting,
            vec![Condition::Marked(PROXY_MARK)],
            Action::SaveMark(INBOUND_MARK),
        ),
        row(
            Place::Mangle,
            Hook::Output,
            vec![Condition::ConnectionMarked(INBOUND_MARK)],
            Action::RestoreMark,
        ),
    ]
}

fn inbound_rows(spec: &Spec) -> Vec<Row> {
    let here = |conditions, action| row(Place::Nat, Hook::Prerouting, conditions, action);
    let mut rows = Vec::new();
    for interface in &spec.virtual_interfaces {
        let from = Condition::FromInterface(interface.as_str().to_owned());
        let from = vec![from, Condition::Tcp];
        rows.push(here(
            first_packet(spec, from.clone()),
            Action::Redirect(spec.ports.outbound),
        ));
        rows.push(here(from, Action::Return));
    }
    if !spec.ingress {
        let probe = vec![Condition::Tcp, Condition::FromProbe];
        rows.push(here(probe, Action::Accept));
        let plaintext = vec![
            Condition::NotToLoopbackAddress,
            Condition::NotDestinationPort(Transport::Tcp, spec.ports.tunnel),
            Condition::NotMarked(PROXY_MARK),
        ];
        rows.push(here(
            first_packet(spec, plaintext),
            Action::Redirect(spec.ports.inbound),
        ));
    }
    rows
}

fn outbound_rows(spec: &Spec) -> Vec<Row> {
    let here = |conditions, action| row(Place::Nat, Hook::Output, conditions, action);
    let probe = vec![Condition::Tcp, Condition::ToProbe];
    let mut rows = vec![here(probe, Action::Accept)];
    if spec.dns {
        let udp = vec![
            Condition::NotToLoopbackInterface,
            Condition::NotMarked(PROXY_MARK),
            Condition::DestinationPort(Transport::Udp, DNS),
        ];
        rows.push(here(udp, Action::Redirect(spec.ports.dns)));
        let tcp = vec![
            Condition::NotToLoopbackAddress,
            Condition::DestinationPort(Transport::Tcp, DNS),
            Condition::NotMarked(PROXY_MARK),
        ];
        rows.push(here(
            first_packet(spec, tcp),
            Action::Redirect(spec.ports.dns),
        ));
    }
    let answers = vec![Condition::Tcp, Condition::Marked(INBOUND_MARK)];
    rows.push(here(answers, Action::Accept));
    let own = vec![
        Condition::ToLoopbackInterface,
        Condition::NotToLoopbackAddress,
    ];
    rows.push(here(own, Action::Accept));
    let rest = vec![
        Condition::Tcp,
        Condition::NotToLoopbackAddress,
        Condition::NotMarked(PROXY_MARK),
    ];
    rows.push(here(
        first_packet(spec, rest),
        Action::Redirect(spec.ports.outbound),
    ));
    rows
}

fn zone_rows() -> Vec<Row> {
    vec![
        row(
            Place::Raw,
            Hook::Prerouting,
            vec![
                Condition::SourcePort(Transport::Udp, DNS),
                Condition::NotMarked(PROXY_MARK),
            ],
            Action::Zone(1),
        ),
        row(
            Place::Raw,
            Hook::Output,
            vec![
                Condition::DestinationPort(Transport::Udp, DNS),
                Condition::Marked(PROXY_MARK),
            ],
            Action::Zone(1),
        ),
    ]
}

/// Conntrack takes the next packet of a connection that is older than the rules for a new one.
/// Without this condition it would be translated, and answered with a reset.
fn first_packet(spec: &Spec, mut conditions: Vec<Condition>) -> Vec<Condition> {
    if spec.syn_only {
        conditions.push(Condition::FirstPacket);
    }
    conditions
}

impl Row {
    /// Whether the row differs by family.
    pub(crate) fn names_family(&self) -> bool {
        self.conditions.iter().any(|condition| {
            matches!(
                condition,
                Condition::FromProbe | Condition::ToProbe | Condition::NotToLoopbackAddress
            )
        })
    }

    /// Gives the row's statements for one family.
    pub(crate) fn statements(&self, spec: &Spec, family: Family) -> Vec<Statement> {
        let mut out: Vec<_> = self
            .conditions
            .iter()
            .map(|condition| Statement::Match(condition.in_family(spec, family)))
            .collect();
        out.push(Statement::Counter);
        out.push(match self.action {
            Action::Accept => Statement::Verdict(Verdict::Accept),
            Action::Redirect(port) => Statement::Redirect(port),
            Action::RestoreMark => Statement::RestoreMark,
            Action::Return => Statement::Verdict(Verdict::Return),
            Action::SaveMark(mark) => Statement::SaveMark {
                keep: !MARK_MASK,
                flip: mark,
            },
            Action::Zone(zone) => Statement::SetZone(zone),
        });
        out
    }
}

impl Condition {
    fn in_family(&self, spec: &Spec, family: Family) -> Match {
        let equal = |field, value| Match {
            field,
            mask: None,
            negated: false,
            value,
        };
        let not = |condition: Match| Match {
            negated: true,
            ..condition
        };
        let mark = |field, mark| Match {
            mask: Some(MARK_MASK),
            ..equal(field, Value::Number(mark))
        };
        let source = |v4, v6| match family {
            Family::V4 => equal(Field::Ip4Source, Value::Ip4(v4)),
            Family::V6 => equal(Field::Ip6Source, Value::Ip6(v6)),
        };
        let destination = |v4, v6| match family {
            Family::V4 => equal(Field::Ip4Destination, Value::Ip4(v4)),
            Family::V6 => equal(Field::Ip6Destination, Value::Ip6(v6)),
        };
        let loopback = || Value::Interface("lo".to_owned());
        let port = |port: u16| Value::Number(u32::from(port));
        match self {
            Self::ConnectionMarked(value) => mark(Field::ConnectionMark, *value),
            Self::DestinationPort(transport, number) => {
                equal(Field::DestinationPort(*transport), port(*number))
            }
            // RFC 9293 3.1: SYN is 0x02, ACK is 0x10.
            Self::FirstPacket => Match {
                mask: Some(0x12),
                ..equal(Field::TcpFlags, Value::Number(0x02))
            },
            Self::FromInterface(name) => equal(Field::InInterface, Value::Interface(name.clone())),
            Self::FromProbe => source(spec.probe_v4, spec.probe_v6),
            Self::Marked(value) => mark(Field::Mark, *value),
            Self::NotDestinationPort(transport, number) => {
                not(equal(Field::DestinationPort(*transport), port(*number)))
            }
            Self::NotMarked(value) => not(mark(Field::Mark, *value)),
            Self::NotToLoopbackAddress => {
                not(destination(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST))
            }
            Self::NotToLoopbackInterface => not(equal(Field::OutInterface, loopback())),
            Self::SourcePort(transport, number) => {
                equal(Field::SourcePort(*transport), port(*number))
            }
            Self::Tcp => equal(Field::L4Protocol, Value::Number(6)),
            Self::ToLoopbackInterface => equal(Field::OutInterface, loopback()),
            Self::ToProbe => destination(spec.probe_v4, spec.probe_v6),
        }
    }
}
