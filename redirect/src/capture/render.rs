//! The rules as text, for people and for machines without this crate.

use super::model::tables;
use super::rows::{Action, Condition, Place, Row, rows};
use super::spec::{MARK_MASK, Spec};
use crate::nft::{Chain, Field, Hook, Match, Rule, Statement, Table, Transport, Value, Verdict};
use crate::route::Family;
use std::fmt::Write as _;

/// Renders the rules as a file for `nft -f`.
#[must_use]
pub fn render_nft(spec: &Spec) -> String {
    tables_text(&tables(spec))
}

/// Renders tables as `nft` lists them.
pub(super) fn tables_text(tables: &[Table]) -> String {
    tables.iter().map(table_text).collect()
}

/// Renders the rules of one family for `iptables-restore --noflush` or its IPv6 twin.
#[must_use]
pub fn render_iptables(spec: &Spec, family: Family) -> String {
    let rows = rows(spec);
    let mut out = String::new();
    for (place, name) in [
        (Place::Mangle, "mangle"),
        (Place::Raw, "raw"),
        (Place::Nat, "nat"),
    ] {
        if place == Place::Raw && !spec.dns {
            continue;
        }
        line(&mut out, format_args!("*{name}"));
        for chain in [":ISTIO_PRERT - [0:0]", ":ISTIO_OUTPUT - [0:0]"] {
            line(&mut out, format_args!("{chain}"));
        }
        line(&mut out, format_args!("-A PREROUTING -j ISTIO_PRERT"));
        line(&mut out, format_args!("-A OUTPUT -j ISTIO_OUTPUT"));
        for row in rows.iter().filter(|row| row.place == place) {
            line(
                &mut out,
                format_args!("{}", iptables_rule(spec, row, family)),
            );
        }
        line(&mut out, format_args!("COMMIT"));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _infallible = writeln!(out, "{text}");
}

fn iptables_rule(spec: &Spec, row: &Row, family: Family) -> String {
    let chain = match row.hook {
        Hook::Prerouting => "ISTIO_PRERT",
        Hook::Output => "ISTIO_OUTPUT",
    };
    let mut parts = vec!["-A".to_owned(), chain.to_owned()];
    // The protocol must come before whatever looks into it.
    let transport = row.conditions.iter().find_map(Condition::transport);
    parts.extend(transport.map(|t| format!("-p {}", transport_name(t))));
    let conditions = row.conditions.iter();
    parts.extend(conditions.filter_map(|condition| condition.iptables(spec, family)));
    parts.push(match row.action {
        Action::Accept => "-j ACCEPT".to_owned(),
        Action::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Action::RestoreMark => {
            "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff".to_owned()
        }
        Action::Return => "-j RETURN".to_owned(),
        Action::SaveMark(mark) => format!("-j CONNMARK --set-xmark {mark:#x}/{MARK_MASK:#x}"),
        Action::Zone(zone) => format!("-j CT --zone {zone}"),
    });
    parts.join(" ")
}

impl Condition {
    const fn transport(&self) -> Option<Transport> {
        match self {
            Self::Tcp | Self::FirstPacket => Some(Transport::Tcp),
            Self::DestinationPort(transport, _)
            | Self::NotDestinationPort(transport, _)
            | Self::SourcePort(transport, _) => Some(*transport),
            _ => None,
        }
    }

    fn iptables(&self, spec: &Spec, family: Family) -> Option<String> {
        let probe = match family {
            Family::V4 => format!("{}/32", spec.probe_v4),
            Family::V6 => format!("{}/128", spec.probe_v6),
        };
        let loopback = match family {
            Family::V4 => "127.0.0.1/32",
            Family::V6 => "::1/128",
        };
        Some(match self {
            Self::ConnectionMarked(mark) => {
                format!("-m connmark --mark {mark:#x}/{MARK_MASK:#x}")
            }
            Self::DestinationPort(transport, port) => {
                format!("-m {} --dport {port}", transport_name(*transport))
            }
            Self::FirstPacket => "-m tcp --tcp-flags SYN,ACK SYN".to_owned(),
            Self::FromInterface(name) => format!("-i {name}"),
            Self::FromProbe => format!("-s {probe}"),
            Self::Marked(mark) => format!("-m mark --mark {mark:#x}/{MARK_MASK:#x}"),
            Self::NotDestinationPort(transport, port) => {
                format!("-m {} ! --dport {port}", transport_name(*transport))
            }
            Self::NotMarked(mark) => format!("-m mark ! --mark {mark:#x}/{MARK_MASK:#x}"),
            Self::NotToLoopbackAddress => format!("! -d {loopback}"),
            Self::NotToLoopbackInterface => "! -o lo".to_owned(),
            Self::SourcePort(transport, port) => {
                format!("-m {} --sport {port}", transport_name(*transport))
            }
            Self::Tcp => return None,
            Self::ToLoopbackInterface => "-o lo".to_owned(),
            Self::ToProbe => format!("-d {probe}"),
        })
    }
}

const fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    }
}

fn table_text(table: &Table) -> String {
    let mut out = String::new();
    line(&mut out, format_args!("table inet {} {{", table.name));
    if table.dormant {
        line(&mut out, format_args!("\tflags dormant"));
    }
    for chain in &table.chains {
        chain_text(&mut out, chain);
    }
    line(&mut out, format_args!("}}"));
    out
}

fn chain_text(out: &mut String, chain: &Chain) {
    line(out, format_args!("\tchain {} {{", chain.name));
    if let Some(base) = chain.base {
        let hook = match base.hook {
            Hook::Prerouting => "prerouting",
            Hook::Output => "output",
        };
        let (kind, priority) = (base.kind.name(), base.priority);
        line(
            out,
            format_args!("\t\ttype {kind} hook {hook} priority {priority}; policy accept;"),
        );
    }
    for rule in &chain.rules {
        line(out, format_args!("\t\t{}", rule_text(rule)));
    }
    line(out, format_args!("\t}}"));
}

/// Renders one rule as `nft` writes it.
pub(crate) fn rule_text(rule: &Rule) -> String {
    let parts: Vec<_> = rule.0.iter().map(statement_text).collect();
    parts.join(" ")
}

fn statement_text(statement: &Statement) -> String {
    match statement {
        Statement::Counter => "counter".to_owned(),
        Statement::Match(condition) => match_text(condition),
        Statement::Redirect(port) => format!("redirect to :{port}"),
        Statement::RestoreMark => "meta mark set ct mark".to_owned(),
        Statement::SaveMark { keep, flip } => {
            format!("ct mark set ct mark & {keep:#010x} | {flip:#010x}")
        }
        Statement::SetZone(zone) => format!("ct zone set {zone}"),
        Statement::Unknown(what) => format!("# not ours: {what}"),
        Statement::Verdict(verdict) => match verdict {
            Verdict::Accept => "accept".to_owned(),
            Verdict::Drop => "drop".to_owned(),
            Verdict::Jump(chain) => format!("jump {chain}"),
            Verdict::Return => "return".to_owned(),
        },
    }
}

fn match_text(condition: &Match) -> String {
    let field = match condition.field {
        Field::ConnectionMark => "ct mark".to_owned(),
        Field::DestinationPort(transport) => format!("{} dport", transport_name(transport)),
        Field::InInterface => "iifname".to_owned(),
        Field::Ip4Destination => "ip daddr".to_owned(),
        Field::Ip4Source => "ip saddr".to_owned(),
        Field::Ip6Destination => "ip6 daddr".to_owned(),
        Field::Ip6Source => "ip6 saddr".to_owned(),
        Field::L4Protocol => "meta l4proto".to_owned(),
        Field::Mark => "meta mark".to_owned(),
        Field::NetworkProtocol => "meta nfproto".to_owned(),
        Field::OutInterface => "oifname".to_owned(),
        Field::SourcePort(transport) => format!("{} sport", transport_name(transport)),
        Field::TcpFlags => "tcp flags".to_owned(),
    };
    let is_mark = matches!(condition.field, Field::ConnectionMark | Field::Mark);
    let value = match &condition.value {
        Value::Interface(name) => format!("\"{name}\""),
        Value::Ip4(address) => address.to_string(),
        Value::Ip6(address) => address.to_string(),
        Value::Number(6) if condition.field == Field::L4Protocol => "tcp".to_owned(),
        Value::Number(17) if condition.field == Field::L4Protocol => "udp".to_owned(),
        Value::Number(number) if is_mark => format!("{number:#010x}"),
        Value::Number(2) if condition.field == Field::TcpFlags => "syn".to_owned(),
        Value::Number(number) => number.to_string(),
    };
    match (condition.mask, condition.negated) {
        (None, false) => format!("{field} {value}"),
        (None, true) => format!("{field} != {value}"),
        (Some(0x12), false) if condition.field == Field::TcpFlags => {
            format!("{field} & (syn | ack) == {value}")
        }
        (Some(mask), false) => format!("{field} & {mask:#010x} == {value}"),
        (Some(mask), true) => format!("{field} & {mask:#010x} != {value}"),
    }
}
