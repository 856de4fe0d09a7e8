//! From the kernel's expressions back to what they mean.

use super::expression::{CT_MARK, CT_ZONE, Expression, MetaKey, NETWORK, TRANSPORT};
use super::rule::{Field, Match, Statement, Transport, Value, Verdict, normalize};

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
