//! The policy rule and the route that bring answers to borrowed addresses back to the proxy.

use crate::capture::{INBOUND_MARK, MARK_MASK, ROUTE_TABLE, RULE_PREFERENCE};
use crate::netlink::{
    AttributeIter, Attributes, CREATE, Conversation, EXCLUSIVE, Message, REPLACE,
};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

/// `NETLINK_ROUTE`.
pub(crate) const PROTOCOL: isize = 0;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const FRA_PRIORITY: u16 = 6;
const FRA_MARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_MASK: u16 = 16;

/// Loopback is interface 1 of every namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;
/// `RTN_LOCAL`.
const LOCAL: u8 = 2;
/// `FR_ACT_TO_TBL`.
const TO_TABLE: u8 = 1;
/// `RTPROT_BOOT`.
const BOOT: u8 = 3;
/// `RT_SCOPE_HOST`.
const SCOPE_HOST: u8 = 254;
/// The table's number where it has only a byte; the attribute holds it too.
const TABLE: u8 = 100;

/// An address family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// `rtmsg` of the default route of our table.
fn route_head(family: Family) -> [u8; 12] {
    let scope = match family {
        Family::V4 => SCOPE_HOST,
        Family::V6 => 0,
    };
    let head = [family.number(), 0, 0, 0, TABLE, BOOT, scope, LOCAL];
    let mut out = [0; 12];
    for (to, from) in out.iter_mut().zip(head) {
        *to = from;
    }
    out
}

fn route_message(kind: u16, flags: u16, family: Family) -> Message {
    let list = Attributes::new()
        .ne32(RTA_TABLE, ROUTE_TABLE)
        .ne32(RTA_OIF, LOOPBACK);
    Message::new(kind, flags, &route_head(family), &list)
}

fn rule_message(kind: u16, flags: u16, family: Family) -> Message {
    let head = [family.number(), 0, 0, 0, TABLE, 0, 0, TO_TABLE, 0, 0, 0, 0];
    let list = Attributes::new()
        .ne32(FRA_PRIORITY, RULE_PREFERENCE)
        .ne32(FRA_MARK, INBOUND_MARK)
        .ne32(FRA_MASK, MARK_MASK)
        .ne32(FRA_TABLE, ROUTE_TABLE);
    Message::new(kind, flags, &head, &list)
}

/// Adds `local default dev lo table 100`, replacing what is there.
pub(crate) fn add_route(conversation: &mut Conversation, family: Family) -> io::Result<()> {
    conversation.request(route_message(NEW_ROUTE, CREATE | REPLACE, family))
}

/// Deletes the route; one that is gone is fine.
pub(crate) fn delete_route(conversation: &mut Conversation, family: Family) -> io::Result<()> {
    let gone = [libc::ESRCH, libc::ENOENT];
    tolerate(
        conversation.request(route_message(DELETE_ROUTE, 0, family)),
        &gone,
    )
}

/// Adds the policy rule; one that is there is fine.
pub(crate) fn add_rule(conversation: &mut Conversation, family: Family) -> io::Result<()> {
    let result = conversation.request(rule_message(NEW_RULE, CREATE | EXCLUSIVE, family));
    tolerate(result, &[libc::EEXIST])
}

/// Deletes the policy rule; one that is gone is fine.
pub(crate) fn delete_rule(conversation: &mut Conversation, family: Family) -> io::Result<()> {
    let result = conversation.request(rule_message(DELETE_RULE, 0, family));
    tolerate(result, &[libc::ENOENT])
}

fn tolerate(result: io::Result<()>, numbers: &[i32]) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|n| numbers.contains(&n)) => Ok(()),
        result => result,
    }
}

/// Whether the policy rule is there.
pub(crate) fn has_rule(conversation: &mut Conversation, family: Family) -> io::Result<bool> {
    let mut head = [0; 12];
    head[0] = family.number();
    let message = Message::new(GET_RULE, 0, &head, &Attributes::new());
    let rules = match conversation.dump(&message) {
        // The kernel has no such family.
        Err(error) if is_unsupported(&error) => return Ok(false),
        rules => rules?,
    };
    Ok(rules.iter().any(|rule| is_our_rule(rule, family)))
}

fn is_our_rule(body: &[u8], family: Family) -> bool {
    let Some((head, list)) = body.split_at_checked(12) else {
        return false;
    };
    let list = AttributeIter::new(list);
    // Family, lengths of destination and source, action: anything more would narrow the rule.
    let plain = [head.first(), head.get(1), head.get(2), head.get(7)]
        == [Some(&family.number()), Some(&0), Some(&0), Some(&TO_TABLE)];
    plain
        && list.ne32(FRA_PRIORITY) == Some(RULE_PREFERENCE)
        && list.ne32(FRA_MARK) == Some(INBOUND_MARK)
        && list.ne32(FRA_MASK) == Some(MARK_MASK)
        && list.ne32(FRA_TABLE) == Some(ROUTE_TABLE)
}

/// Whether our table leads everything to loopback.
pub(crate) fn has_route(conversation: &mut Conversation, family: Family) -> io::Result<bool> {
    let mut head = [0; 12];
    head[0] = family.number();
    let message = Message::new(GET_ROUTE, 0, &head, &Attributes::new());
    let routes = match conversation.dump(&message) {
        Err(error) if is_unsupported(&error) => return Ok(false),
        routes => routes?,
    };
    Ok(routes.iter().any(|route| is_our_route(route, family)))
}

fn is_our_route(body: &[u8], family: Family) -> bool {
    let Some((head, list)) = body.split_at_checked(12) else {
        return false;
    };
    let list = AttributeIter::new(list);
    let plain = [head.first(), head.get(1), head.get(7)]
        == [Some(&family.number()), Some(&0), Some(&LOCAL)];
    plain && list.ne32(RTA_TABLE) == Some(ROUTE_TABLE) && list.ne32(RTA_OIF) == Some(LOOPBACK)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
    )
}

/// Asks the kernel itself: would a packet with the connection's mark come back to this host?
pub(crate) fn marked_packets_stay(
    conversation: &mut Conversation,
    family: Family,
) -> io::Result<bool> {
    // An address of the documentation ranges (RFC 5737, RFC 3849) stands for any client.
    let (length, address) = match family {
        Family::V4 => (32, Ipv4Addr::new(192, 0, 2, 1).octets().to_vec()),
        Family::V6 => {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
            (128, address.octets().to_vec())
        }
    };
    let head = [family.number(), length, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let list = Attributes::new()
        .bytes(RTA_DST, &address)
        .ne32(RTA_MARK, INBOUND_MARK);
    match conversation.ask(Message::new(GET_ROUTE, 0, &head, &list)) {
        Ok(answer) => Ok(answer.get(7) == Some(&LOCAL)),
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(false),
        Err(error) => Err(error),
    }
}
