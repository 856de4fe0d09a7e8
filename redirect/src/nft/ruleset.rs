//! Tables, chains and rules of the family `inet`, as messages and back.

use super::expression::Expression;
use super::recognize::recognize;
use super::rule::{Statement, lower};
use crate::netlink::{APPEND, AttributeIter, Attributes, CREATE, Message};

/// Where a base chain is called.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Hook {
    Output,
    Prerouting,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
    Route,
}

impl ChainKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// How a base chain is attached. Its policy is to accept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BaseChain {
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
}

/// A rule in normal form.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Rule(pub(crate) Vec<Statement>);

/// A chain with its rules in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) base: Option<BaseChain>,
    pub(crate) rules: Vec<Rule>,
}

/// A table with its chains.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Switched off: its chains are there and are not called.
    pub(crate) dormant: bool,
    pub(crate) chains: Vec<Chain>,
}

/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM;
pub(super) const GET_TABLE: u16 = SUBSYSTEM | 1;
pub(super) const DELETE_TABLE: u16 = SUBSYSTEM | 2;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
pub(super) const GET_RULE: u16 = SUBSYSTEM | 7;
pub(super) const DELETE_RULE: u16 = SUBSYSTEM | 8;
pub(super) const GET_GENERATION: u16 = SUBSYSTEM | 16;

/// `nfgenmsg` of the family `inet`.
pub(super) const INET: [u8; 4] = [1, 0, 0, 0];

const EXPRESSIONS: u16 = 4;
const HOOK: u16 = 4;
const ELEMENT: u16 = 1;

pub(super) fn table_message(kind: u16, table: &str) -> Message {
    let flags = if kind == NEW_TABLE { CREATE } else { 0 };
    Message::new(kind, flags, &INET, &Attributes::new().text(1, table))
}

pub(super) fn new_chain(table: &str, chain: &Chain) -> Message {
    let mut list = Attributes::new().text(1, table).text(3, &chain.name);
    if let Some(base) = chain.base {
        let hook = match base.hook {
            Hook::Prerouting => 0,
            Hook::Output => 3,
        };
        let hook = Attributes::new()
            .be32(1, hook)
            .be32(2, base.priority.cast_unsigned());
        list = list.nest(HOOK, &hook).text(7, base.kind.name()).be32(5, 1);
    }
    Message::new(NEW_CHAIN, CREATE, &INET, &list)
}

/// Deletes every rule of a table.
pub(super) fn flush_table(table: &str) -> Message {
    Message::new(DELETE_RULE, 0, &INET, &Attributes::new().text(1, table))
}

pub(super) fn new_rule(table: &str, chain: &str, rule: &Rule) -> Message {
    let expressions = lower(&rule.0)
        .iter()
        .fold(Attributes::new(), |list, expression| {
            list.nest(ELEMENT, &expression.encode())
        });
    let list = Attributes::new()
        .text(1, table)
        .text(2, chain)
        .nest(EXPRESSIONS, &expressions);
    Message::new(NEW_RULE, CREATE | APPEND, &INET, &list)
}

/// Skips `nfgenmsg`; gives nothing for other families.
pub(super) fn inet_attributes(body: &[u8]) -> Option<AttributeIter<'_>> {
    (body.first() == INET.first()).then_some(())?;
    body.get(INET.len()..).map(AttributeIter::new)
}

/// Gives the table, without chains.
pub(super) fn decode_table(body: &[u8]) -> Option<Table> {
    let list = inet_attributes(body)?;
    Some(Table {
        name: list.text(1)?,
        // `NFT_TABLE_F_DORMANT` of `NFTA_TABLE_FLAGS`.
        dormant: list.be32(2).is_some_and(|flags| flags & 1 != 0),
        chains: Vec::new(),
    })
}

/// Gives the table and the chain, without rules.
pub(super) fn decode_chain(body: &[u8]) -> Option<(String, Chain)> {
    let list = inet_attributes(body)?;
    let chain = Chain {
        name: list.text(3)?,
        base: list.inside(HOOK).and_then(|hook| decode_base(list, hook)),
        rules: Vec::new(),
    };
    Some((list.text(1)?, chain))
}

fn decode_base(chain: AttributeIter<'_>, hook: AttributeIter<'_>) -> Option<BaseChain> {
    Some(BaseChain {
        kind: match chain.text(7)?.as_str() {
            "filter" => ChainKind::Filter,
            "nat" => ChainKind::Nat,
            "route" => ChainKind::Route,
            _ => return None,
        },
        hook: match hook.be32(1)? {
            0 => Hook::Prerouting,
            3 => Hook::Output,
            _ => return None,
        },
        priority: hook.be32(2)?.cast_signed(),
    })
    // A base chain whose policy is to drop is not ours.
    .filter(|_| chain.be32(5) == Some(1))
}

/// A base chain of any family, by name, and when it is called.
pub(super) struct HookedChain {
    /// Family and table, as `nft` writes them.
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) priority: i32,
}

/// Gives a base chain that sees what enters or leaves the host and has rules, in any family.
pub(super) fn decode_hooked(body: &[u8]) -> Option<HookedChain> {
    let family = match body.first()? {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    let list = AttributeIter::new(body.get(INET.len()..)?);
    let hook = list.inside(HOOK)?;
    // Prerouting and output, as in `decode_base`; `NFTA_CHAIN_USE` counts the rules.
    let is_used = matches!(hook.be32(1)?, 0 | 3) && list.be32(6)? > 0;
    is_used.then_some(HookedChain {
        table: format!("{family} {}", list.text(1)?),
        chain: list.text(3)?,
        priority: hook.be32(2)?.cast_signed(),
    })
}

/// Gives the table, the chain and the rule.
pub(super) fn decode_rule(body: &[u8]) -> Option<(String, String, Rule)> {
    let list = inet_attributes(body)?;
    let expressions: Vec<_> = list
        .inside(EXPRESSIONS)
        .into_iter()
        .flatten()
        .map(|(_, element)| Expression::decode(AttributeIter::new(element)))
        .collect();
    Some((list.text(1)?, list.text(2)?, Rule(recognize(&expressions))))
}

/// Encodes and decodes a rule, for tests.
#[cfg(test)]
pub(crate) fn round_trip(rule: &Rule) -> Rule {
    let message = new_rule("table", "chain", rule);
    decode_rule(&message.body).unwrap().2
}
