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
const FRA_SUPPRESS_PREFIX_LENGTH: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_MASK: u16 = 16;
/// Who made the rule (`FRA_PROTOCOL`).
const FRA_PROTOCOL: u16 = 21;

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
/// Rules like ours that are deleted with it at most.
const MOST_TWINS: usize = 16;
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
const fn route_head(family: Family) -> [u8; 12] {
    let scope = match family {
        Family::V4 => SCOPE_HOST,
        Family::V6 => 0,
    };
    [
        family.number(),
        0,
        0,
        0,
        TABLE,
        BOOT,
        scope,
        LOCAL,
        0,
        0,
        0,
        0,
    ]
}

fn route_message(kind: u16, flags: u16, family: Family) -> Message {
    let list = Attributes::new()
        .ne32(RTA_TABLE, ROUTE_TABLE)
        .ne32(RTA_OIF, LOOPBACK);
    Message::new(kind, flags, &route_head(family), &list)
}

/// `fib_rule_hdr` of our policy rule.
const fn rule_head(family: Family) -> [u8; 12] {
    [family.number(), 0, 0, 0, TABLE, 0, 0, TO_TABLE, 0, 0, 0, 0]
}

fn rule_message(kind: u16, flags: u16, family: Family) -> Message {
    let list = Attributes::new()
        .ne32(FRA_PRIORITY, RULE_PREFERENCE)
        .ne32(FRA_MARK, INBOUND_MARK)
        .ne32(FRA_MASK, MARK_MASK)
        .ne32(FRA_TABLE, ROUTE_TABLE);
    Message::new(kind, flags, &rule_head(family), &list)
}

/// Adds `local default dev lo table 100`, replacing what is there.
pub(crate) fn add_route(conversation: &mut Conversation, family: Family) -> io::Result<()> {
    conversation.request(route_message(NEW_ROUTE, CREATE | REPLACE, family))
}

/// Deletes the route; one that is gone is fine.
pub(crate) fn delete_route(conversation: &mut Conversation, family: Family) -> io::Result<()> {
    match conversation.request(route_message(DELETE_ROUTE, 0, family)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(()),
        result => result,
    }
}

/// Adds the policy rule; one that is there is fine.
pub(crate) fn add_rule(conversation: &mut Conversation, family: Family) -> io::Result<()> {
    let add = |flags| rule_message(NEW_RULE, CREATE | flags, family);
    match conversation.request(add(EXCLUSIVE)) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            if has_rule(conversation, family)? {
                return Ok(());
            }
            // To the kernel a rule that sees less, such as one source only, is the same.
            conversation.request(add(0))
        }
        result => result,
    }
}

/// Deletes the policy rule, and those that the kernel takes for the same; gone is fine.
pub(crate) fn delete_rule(conversation: &mut Conversation, family: Family) -> io::Result<()> {
    for _one_by_one in 0..MOST_TWINS {
        match conversation.request(rule_message(DELETE_RULE, 0, family)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Whether the policy rule is there.
pub(crate) fn has_rule(conversation: &mut Conversation, family: Family) -> io::Result<bool> {
    any(conversation, GET_RULE, family, |rule| {
        is_our_rule(rule, family)
    })
}

/// Whether our table leads everything to loopback.
pub(crate) fn has_route(conversation: &mut Conversation, family: Family) -> io::Result<bool> {
    any(conversation, GET_ROUTE, family, |route| {
        is_our_route(route, family)
    })
}

/// Whether a dump contains what is looked for, however long it is.
fn any(
    conversation: &mut Conversation,
    kind: u16,
    family: Family,
    is_it: impl Fn(&[u8]) -> bool,
) -> io::Result<bool> {
    let mut head = [0; 12];
    head[0] = family.number();
    let message = Message::new(kind, 0, &head, &Attributes::new());
    let found = conversation.fold(&message, |found: &mut bool, body| {
        *found |= is_it(body);
        Ok(())
    });
    match found.as_ref().err().and_then(io::Error::raw_os_error) {
        // The kernel has no such family.
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => Ok(false),
        _ => found,
    }
}

fn is_our_rule(body: &[u8], family: Family) -> bool {
    let Some((head, list)) = body.split_at_checked(12) else {
        return false;
    };
    let list = AttributeIter::new(list);
    // Family, lengths of destination and source, type of service; action; flags, of which one
    // inverts the rule.
    let wanted = rule_head(family);
    let plain = head.get(..4) == wanted.get(..4) && head.get(7..) == wanted.get(7..);
    // Whatever else a rule looks at narrows it.
    let narrowed = list.into_iter().any(|(kind, data)| match kind {
        FRA_PRIORITY | FRA_MARK | FRA_TABLE | FRA_MASK | FRA_PROTOCOL => false,
        FRA_SUPPRESS_PREFIX_LENGTH => data != [0xff; 4],
        _ => true,
    });
    plain
        && !narrowed
        && list.ne32(FRA_PRIORITY) == Some(RULE_PREFERENCE)
        && list.ne32(FRA_MARK) == Some(INBOUND_MARK)
        && list.ne32(FRA_MASK) == Some(MARK_MASK)
        && list.ne32(FRA_TABLE) == Some(ROUTE_TABLE)
}

fn is_our_route(body: &[u8], family: Family) -> bool {
    let Some((head, list)) = body.split_at_checked(12) else {
        return false;
    };
    let list = AttributeIter::new(list);
    // Family, lengths of destination and source, type of service; type.
    let wanted = route_head(family);
    let plain = head.get(..4) == wanted.get(..4) && head.get(7) == wanted.get(7);
    plain && list.ne32(RTA_TABLE) == Some(ROUTE_TABLE) && list.ne32(RTA_OIF) == Some(LOOPBACK)
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
        // What the kernel says of no route, and of routes and rules that are unreachable, a black
        // hole or prohibited.
        Err(error) => match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES) => Ok(false),
            _ => Err(error),
        },
    }
}
