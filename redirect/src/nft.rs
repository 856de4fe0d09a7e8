//! `nf_tables` over nfnetlink: typed rules, one batch as one transaction, dumps decoded to the same
//! types.
//!
//! Rules are compared by meaning, never by text: the kernel and `nft` print back other masks than
//! they were given.

mod expression;
mod recognize;
mod rule;
mod ruleset;
mod transaction;

pub(crate) use rule::{Field, Match, Statement, Transport, Value, Verdict, normalize};
#[cfg(test)]
pub(crate) use ruleset::round_trip;
pub(crate) use ruleset::{BaseChain, Chain, ChainKind, Hook, Rule, Table};
pub(crate) use transaction::{BatchStep, CommitFault, Snapshot, chains_ahead, commit, snapshot};

/// `NETLINK_NETFILTER`.
pub(crate) const PROTOCOL: isize = 12;
