//! Reading everything, and changing it in one transaction.

use super::ruleset::{
    Chain, DELETE_TABLE, GET_CHAIN, GET_GENERATION, GET_RULE, GET_TABLE, INET, NEW_TABLE, Rule,
    Table, decode_chain, decode_hooked, decode_rule, decode_table, flush_table, new_chain,
    new_rule, table_message,
};
use crate::netlink::{ACK, AttributeIter, Attributes, Conversation, Message};
use std::io;

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `nfgenmsg` of a batch: no family, the subsystem `nf_tables`.
const BATCH: [u8; 4] = [0, 0, 0, 10];

/// What the tables of the family `inet` held at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Changes with every transaction of anybody in the namespace.
    pub(crate) generation: u32,
    pub(crate) tables: Vec<Table>,
}

impl Snapshot {
    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
}

/// One change of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum BatchStep {
    AddChain {
        table: String,
        chain: Chain,
    },
    AddRule {
        table: String,
        chain: String,
        rule: Rule,
    },
    AddTable(String),
    DeleteTable(String),
    FlushTable(String),
}

impl BatchStep {
    fn message(&self) -> Message {
        match self {
            Self::AddChain { table, chain } => new_chain(table, chain),
            Self::AddRule { table, chain, rule } => new_rule(table, chain, rule),
            Self::AddTable(table) => table_message(NEW_TABLE, table),
            Self::DeleteTable(table) => table_message(DELETE_TABLE, table),
            Self::FlushTable(table) => flush_table(table),
        }
    }
}

/// Why a transaction did not happen; nothing was changed.
#[derive(Debug)]
pub(crate) enum CommitFault {
    /// Somebody else changed the tables since they were read.
    Overtaken,
    /// The kernel refused one of the steps, counted from 0.
    Refused { step: usize, source: io::Error },
}

/// Reads tables, chains and rules; starts over when somebody commits meanwhile.
pub(crate) fn snapshot(conversation: &mut Conversation) -> io::Result<Snapshot> {
    let mut last = generation(conversation)?;
    for _attempt in 0..8 {
        let tables = read(conversation)?;
        let now = generation(conversation)?;
        if now == last {
            return Ok(Snapshot {
                generation: now,
                tables,
            });
        }
        last = now;
    }
    Err(io::Error::from_raw_os_error(libc::EINTR))
}

fn generation(conversation: &mut Conversation) -> io::Result<u32> {
    let message = Message::new(GET_GENERATION, 0, &[0; 4], &Attributes::new());
    // nfnetlink's word for a subsystem that the kernel does not have.
    let missing = |error: io::Error| match error.raw_os_error() {
        Some(libc::EINVAL) => {
            io::Error::new(io::ErrorKind::Unsupported, "the kernel has no nf_tables")
        }
        _ => error,
    };
    let body = conversation.ask(message).map_err(missing)?;
    let list = AttributeIter::new(body.get(4..).unwrap_or(&[]));
    list.be32(1)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn read(conversation: &mut Conversation) -> io::Result<Vec<Table>> {
    let ask = |kind| Message::new(kind, 0, &INET, &Attributes::new());
    let mut tables: Vec<Table> = conversation
        .dump(&ask(GET_TABLE))?
        .iter()
        .filter_map(|body| decode_table(body))
        .collect();
    if tables.is_empty() {
        return Ok(tables);
    }
    for body in conversation.dump(&ask(GET_CHAIN))? {
        if let Some((table, chain)) = decode_chain(&body)
            && let Some(table) = tables.iter_mut().find(|t| t.name == table)
        {
            table.chains.push(chain);
        }
    }
    for body in conversation.dump(&ask(GET_RULE))? {
        if let Some((table, chain, rule)) = decode_rule(&body)
            && let Some(table) = tables.iter_mut().find(|t| t.name == table)
            && let Some(chain) = table.chains.iter_mut().find(|c| c.name == chain)
        {
            chain.rules.push(rule);
        }
    }
    Ok(tables)
}

/// Lists base chains of any family with rules that are called at `priority` or before, as table
/// and chain; at most [`MOST_AHEAD`] that `is_ours` denies.
pub(crate) fn chains_ahead(
    conversation: &mut Conversation,
    priority: i32,
    is_ours: impl Fn(&str) -> bool,
) -> io::Result<Vec<(String, String)>> {
    let message = Message::new(GET_CHAIN, 0, &[0; 4], &Attributes::new());
    conversation.fold(&message, |found: &mut Vec<_>, body| {
        let chain = decode_hooked(body).filter(|c| c.priority <= priority && !is_ours(&c.table));
        if found.len() < MOST_AHEAD {
            found.extend(chain.map(|c| (c.table, c.chain)));
        }
        Ok(())
    })
}

/// A few tell that somebody else is there.
const MOST_AHEAD: usize = 16;

/// Commits all steps or none, and only if nothing was committed since `generation`.
pub(crate) fn commit(
    conversation: &mut Conversation,
    generation: u32,
    steps: &[BatchStep],
) -> Result<(), CommitFault> {
    let mark = Attributes::new().be32(1, generation);
    let mut messages = vec![Message::new(BATCH_BEGIN, 0, &BATCH, &mark)];
    messages.extend(steps.iter().map(BatchStep::message));
    if let Some(last) = messages.last_mut() {
        last.flags |= ACK;
    }
    messages.push(Message::new(BATCH_END, 0, &BATCH, &Attributes::new()));
    // The batch's end is not answered: the last step is, after the commit.
    conversation.send_all(&messages, 1).map_err(|fault| {
        if fault.source.raw_os_error() == Some(libc::ERESTART) {
            return CommitFault::Overtaken;
        }
        CommitFault::Refused {
            step: fault.index.saturating_sub(1),
            source: fault.source,
        }
    })
}
