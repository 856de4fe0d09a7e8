//! What a rule means: statements, lowered to expressions and recognised in them.

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

    fn number(self, bytes: &[u8]) -> Option<u32> {
        match self {
            Self::L4Protocol | Self::NetworkProtocol | Self::TcpFlags => {
                let [byte] = bytes.try_into().ok()?;
                Some(u32::from(u8::from(byte)))
            }
            Self::SourcePort(_) | Self::DestinationPort(_) => {
                Some(u32::from(u16::from_be_bytes(bytes.try_into().ok()?)))
            }
            _ => Some(u32::from_ne_bytes(bytes.try_into().ok()?)),
        }
    }

    fn value(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Self::InInterface | Self::OutInterface => {
                let end = bytes.iter().position(|byte| *byte == 0)?;
                let name = bytes.get(..end)?.to_vec();
                Value::Interface(String::from_utf8(name).ok()?)
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

/// What is in the register while expressions are read.
enum Loaded {
    Constant(Vec<u8>),
    Field {
        field: Field,
        mask: Option<(Vec<u8>, Vec<u8>)>,
    },
    Nothing,
}

/// Recognises statements in expressions, in normal form: see [`normalize`].
pub(crate) fn recognize(expressions: &[Expression]) -> Vec<Statement> {
    let mut out = Vec::new();
    let mut loaded = Loaded::Nothing;
    for expression in expressions {
        match recognize_one(expression, &mut loaded, &out) {
            Ok(Some(statement)) => out.push(statement),
            Ok(None) => (),
            Err(NotOurs) => out.push(Statement::Unknown(format!("{expression:?}"))),
        }
    }
    normalize(out)
}

/// An expression in a place where this crate would not put it.
struct NotOurs;

fn recognize_one(
    expression: &Expression,
    loaded: &mut Loaded,
    before: &[Statement],
) -> Result<Option<Statement>, NotOurs> {
    let field = |field| Loaded::Field { field, mask: None };
    *loaded = match expression {
        Expression::CtLoad(CT_MARK) => field(Field::ConnectionMark),
        Expression::MetaLoad(MetaKey::InInterface) => field(Field::InInterface),
        Expression::MetaLoad(MetaKey::L4Protocol) => field(Field::L4Protocol),
        Expression::MetaLoad(MetaKey::Mark) => field(Field::Mark),
        Expression::MetaLoad(MetaKey::NetworkProtocol) => field(Field::NetworkProtocol),
        Expression::MetaLoad(MetaKey::OutInterface) => field(Field::OutInterface),
        Expression::Payload {
            base,
            offset,
            length,
        } => field(payload_field(*base, *offset, *length, before).ok_or(NotOurs)?),
        Expression::Immediate(data) => Loaded::Constant(data.clone()),
        Expression::Bitwise { mask, xor } => match loaded {
            Loaded::Field { field, mask: None } => Loaded::Field {
                field: *field,
                mask: Some((mask.clone(), xor.clone())),
            },
            _ => return Err(NotOurs),
        },
        Expression::Counter => return Ok(Some(Statement::Counter)),
        Expression::Verdict { code, chain } => {
            return recognize_verdict(*code, chain.as_deref()).map(Some);
        }
        Expression::Compare { .. }
        | Expression::CtStore(_)
        | Expression::MetaStore(_)
        | Expression::Redirect => {
            return recognize_use(expression, loaded).ok_or(NotOurs).map(Some);
        }
        Expression::CtLoad(_) | Expression::MetaLoad(MetaKey::Other(_)) | Expression::Other(_) => {
            *loaded = Loaded::Nothing;
            return Err(NotOurs);
        }
    };
    Ok(None)
}

fn recognize_use(expression: &Expression, loaded: &Loaded) -> Option<Statement> {
    let word = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    Some(match (expression, loaded) {
        (Expression::Compare { negated, data }, Loaded::Field { field, mask }) => {
            let mask = match mask {
                None => None,
                Some((mask, xor)) if xor.iter().all(|byte| *byte == 0) => Some(field.number(mask)?),
                Some(_) => return None,
            };
            Statement::Match(Match {
                field: *field,
                mask,
                negated: *negated,
                value: field.value(data)?,
            })
        }
        (
            Expression::MetaStore(MetaKey::Mark),
            Loaded::Field {
                field: Field::ConnectionMark,
                mask: None,
            },
        ) => Statement::RestoreMark,
        (
            Expression::CtStore(CT_MARK),
            Loaded::Field {
                field: Field::ConnectionMark,
                mask: Some((keep, flip)),
            },
        ) => Statement::SaveMark {
            keep: word(keep)?,
            flip: word(flip)?,
        },
        (Expression::CtStore(CT_ZONE), Loaded::Constant(zone)) => {
            Statement::SetZone(u16::from_ne_bytes(zone.as_slice().try_into().ok()?))
        }
        (Expression::Redirect, Loaded::Constant(port)) => {
            Statement::Redirect(u16::from_be_bytes(port.as_slice().try_into().ok()?))
        }
        _ => return None,
    })
}

fn recognize_verdict(code: i32, chain: Option<&str>) -> Result<Statement, NotOurs> {
    Ok(Statement::Verdict(match (code, chain) {
        (0, None) => Verdict::Drop,
        (1, None) => Verdict::Accept,
        (-3, Some(chain)) => Verdict::Jump(chain.to_owned()),
        (-5, None) => Verdict::Return,
        _ => return Err(NotOurs),
    }))
}

/// Names the bytes of a packet; the header checks before them say in which protocol.
fn payload_field(base: u32, offset: u32, length: u32, before: &[Statement]) -> Option<Field> {
    let checked = |field: Field| {
        before.iter().rev().find_map(|statement| match statement {
            Statement::Match(Match {
                field: f,
                negated: false,
                mask: None,
                value: Value::Number(number),
            }) if *f == field => Some(*number),
            _ => None,
        })
    };
    let transport = || match checked(Field::L4Protocol)? {
        6 => Some(Transport::Tcp),
        17 => Some(Transport::Udp),
        _ => None,
    };
    match (base, offset, length) {
        (NETWORK, 12, 4) if checked(Field::NetworkProtocol)? == 2 => Some(Field::Ip4Source),
        (NETWORK, 16, 4) if checked(Field::NetworkProtocol)? == 2 => Some(Field::Ip4Destination),
        (NETWORK, 8, 16) if checked(Field::NetworkProtocol)? == 10 => Some(Field::Ip6Source),
        (NETWORK, 24, 16) if checked(Field::NetworkProtocol)? == 10 => Some(Field::Ip6Destination),
        (TRANSPORT, 0, 2) => Some(Field::SourcePort(transport()?)),
        (TRANSPORT, 2, 2) => Some(Field::DestinationPort(transport()?)),
        (TRANSPORT, 13, 1) if transport()? == Transport::Tcp => Some(Field::TcpFlags),
        _ => None,
    }
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
