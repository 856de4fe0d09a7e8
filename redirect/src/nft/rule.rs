//! What a rule means: statements, and the expressions that carry them out.

use super::expression::{CT_MARK, CT_ZONE, Expression, MetaKey, NETWORK, TRANSPORT};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A transport protocol that rules look into.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// What a match looks at.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Field {
    ConnectionMark,
    DestinationPort(Transport),
    InInterface,
    Ip4Destination,
    Ip4Source,
    Ip6Destination,
    Ip6Source,
    L4Protocol,
    Mark,
    NetworkProtocol,
    OutInterface,
    SourcePort(Transport),
    TcpFlags,
}

/// What a match compares with.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Value {
    Interface(String),
    Ip4(Ipv4Addr),
    Ip6(Ipv6Addr),
    Number(u32),
}

/// One condition: `field & mask == value`, or `!=`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Match {
    pub(crate) field: Field,
    pub(crate) mask: Option<u32>,
    pub(crate) negated: bool,
    pub(crate) value: Value,
}

/// How a rule ends.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Return,
}

/// One part of a rule.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Statement {
    Counter,
    Match(Match),
    /// Redirects to a local port.
    Redirect(u16),
    /// packet mark = connection mark
    RestoreMark,
    /// connection mark = (connection mark & keep) ^ flip
    SaveMark {
        keep: u32,
        flip: u32,
    },
    /// Tracks the connection in a zone of its own.
    SetZone(u16),
    /// Something this crate does not write; never equal to what is wanted.
    Unknown(String),
    Verdict(Verdict),
}

/// Which header a match presupposes: network protocol (`NFPROTO_*`) or transport.
enum Presupposes {
    Nothing,
    Network(u8),
    Transport(u8),
}

impl Field {
    const fn presupposes(self) -> Presupposes {
        match self {
            Self::Ip4Source | Self::Ip4Destination => Presupposes::Network(2),
            Self::Ip6Source | Self::Ip6Destination => Presupposes::Network(10),
            Self::SourcePort(protocol) | Self::DestinationPort(protocol) => {
                Presupposes::Transport(protocol.number())
            }
            Self::TcpFlags => Presupposes::Transport(Transport::Tcp.number()),
            Self::ConnectionMark
            | Self::InInterface
            | Self::L4Protocol
            | Self::Mark
            | Self::NetworkProtocol
            | Self::OutInterface => Presupposes::Nothing,
        }
    }

    const fn load(self) -> Expression {
        let (base, offset, length) = match self {
            Self::ConnectionMark => return Expression::CtLoad(CT_MARK),
            Self::InInterface => return Expression::MetaLoad(MetaKey::InInterface),
            Self::L4Protocol => return Expression::MetaLoad(MetaKey::L4Protocol),
            Self::Mark => return Expression::MetaLoad(MetaKey::Mark),
            Self::NetworkProtocol => return Expression::MetaLoad(MetaKey::NetworkProtocol),
            Self::OutInterface => return Expression::MetaLoad(MetaKey::OutInterface),
            Self::Ip4Source => (NETWORK, 12, 4),
            Self::Ip4Destination => (NETWORK, 16, 4),
            Self::Ip6Source => (NETWORK, 8, 16),
            Self::Ip6Destination => (NETWORK, 24, 16),
            Self::SourcePort(_) => (TRANSPORT, 0, 2),
            Self::DestinationPort(_) => (TRANSPORT, 2, 2),
            Self::TcpFlags => (TRANSPORT, 13, 1),
        };
        Expression::Payload {
            base,
            offset,
            length,
        }
    }

    /// Marks are in the machine's byte order, packet fields in the network's.
    fn bytes(self, number: u32) -> Vec<u8> {
        let big = number.to_be_bytes();
        match self {
            Self::L4Protocol | Self::NetworkProtocol | Self::TcpFlags => big[3..].to_vec(),
            Self::SourcePort(_) | Self::DestinationPort(_) => big[2..].to_vec(),
            _ => number.to_ne_bytes().to_vec(),
        }
    }

    pub(super) fn number(self, bytes: &[u8]) -> Option<u32> {
        match self {
            Self::L4Protocol | Self::NetworkProtocol | Self::TcpFlags => {
                let [byte]: [u8; 1] = bytes.try_into().ok()?;
                Some(u32::from(byte))
            }
            Self::SourcePort(_) | Self::DestinationPort(_) => {
                Some(u32::from(u16::from_be_bytes(bytes.try_into().ok()?)))
            }
            _ => Some(u32::from_ne_bytes(bytes.try_into().ok()?)),
        }
    }

    pub(super) fn value(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Self::InInterface | Self::OutInterface => {
                let end = bytes.iter().position(|byte| *byte == 0)?;
                let (name, rest) = bytes.split_at_checked(end)?;
                // No interface has such a name: the rule matches nothing.
                if rest.iter().any(|byte| *byte != 0) || name.iter().any(u8::is_ascii_control) {
                    return None;
                }
                Value::Interface(String::from_utf8(name.to_vec()).ok()?)
            }
            Self::Ip4Source | Self::Ip4Destination => {
                Value::Ip4(<[u8; 4]>::try_from(bytes).ok()?.into())
            }
            Self::Ip6Source | Self::Ip6Destination => {
                Value::Ip6(<[u8; 16]>::try_from(bytes).ok()?.into())
            }
            _ => Value::Number(self.number(bytes)?),
        })
    }
}

impl Value {
    fn bytes(&self, field: Field) -> Vec<u8> {
        match self {
            Self::Interface(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(16, 0);
                bytes
            }
            Self::Ip4(address) => address.octets().to_vec(),
            Self::Ip6(address) => address.octets().to_vec(),
            Self::Number(number) => field.bytes(*number),
        }
    }
}

/// Lowers statements to expressions; adds the header checks that matches presuppose.
pub(crate) fn lower(statements: &[Statement]) -> Vec<Expression> {
    let mut out = Vec::new();
    let mut known: Vec<(MetaKey, u8)> = Vec::new();
    for statement in statements {
        match statement {
            Statement::Counter => out.push(Expression::Counter),
            Statement::Match(condition) => lower_match(condition, &mut known, &mut out),
            Statement::Redirect(port) => {
                out.push(Expression::Immediate(port.to_be_bytes().to_vec()));
                out.push(Expression::Redirect);
            }
            Statement::RestoreMark => {
                out.push(Expression::CtLoad(CT_MARK));
                out.push(Expression::MetaStore(MetaKey::Mark));
            }
            Statement::SaveMark { keep, flip } => {
                out.push(Expression::CtLoad(CT_MARK));
                out.push(Expression::Bitwise {
                    mask: keep.to_ne_bytes().to_vec(),
                    xor: flip.to_ne_bytes().to_vec(),
                });
                out.push(Expression::CtStore(CT_MARK));
            }
            Statement::SetZone(zone) => {
                out.push(Expression::Immediate(zone.to_ne_bytes().to_vec()));
                out.push(Expression::CtStore(CT_ZONE));
            }
            Statement::Unknown(name) => out.push(Expression::Other(name.clone())),
            Statement::Verdict(verdict) => out.push(lower_verdict(verdict)),
        }
    }
    out
}

fn lower_match(condition: &Match, known: &mut Vec<(MetaKey, u8)>, out: &mut Vec<Expression>) {
    let field = condition.field;
    let needed = match field.presupposes() {
        Presupposes::Nothing => None,
        Presupposes::Network(number) => Some((MetaKey::NetworkProtocol, number)),
        Presupposes::Transport(number) => Some((MetaKey::L4Protocol, number)),
    };
    if let Some(needed) = needed.filter(|needed| !known.contains(needed)) {
        known.push(needed);
        out.push(Expression::MetaLoad(needed.0));
        out.push(Expression::Compare {
            negated: false,
            data: vec![needed.1],
        });
    }
    let data = condition.value.bytes(field);
    if field == Field::L4Protocol
        && !condition.negated
        && let [number] = data.as_slice()
    {
        known.push((MetaKey::L4Protocol, *number));
    }
    out.push(field.load());
    if let Some(mask) = condition.mask {
        let mask = field.bytes(mask);
        let xor = vec![0; mask.len()];
        out.push(Expression::Bitwise { mask, xor });
    }
    out.push(Expression::Compare {
        negated: condition.negated,
        data,
    });
}

fn lower_verdict(verdict: &Verdict) -> Expression {
    // NF_DROP, NF_ACCEPT, NFT_JUMP, NFT_RETURN.
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain.clone())),
        Verdict::Return => (-5, None),
    };
    Expression::Verdict { code, chain }
}

/// Leaves out header checks that a later match presupposes anyway, so that there is one way to
/// write each rule.
pub(crate) fn normalize(statements: Vec<Statement>) -> Vec<Statement> {
    let presupposed: Vec<_> = statements
        .iter()
        .filter_map(|statement| match statement {
            Statement::Match(condition) => match condition.field.presupposes() {
                Presupposes::Nothing => None,
                Presupposes::Network(number) => Some((Field::NetworkProtocol, number)),
                Presupposes::Transport(number) => Some((Field::L4Protocol, number)),
            },
            _ => None,
        })
        .collect();
    let is_presupposed = |statement: &Statement| match statement {
        Statement::Match(Match {
            field,
            mask: None,
            negated: false,
            value: Value::Number(number),
        }) => presupposed
            .iter()
            .any(|(f, n)| f == field && u32::from(*n) == *number),
        _ => false,
    };
    statements
        .into_iter()
        .filter(|statement| !is_presupposed(statement))
        .collect()
}
