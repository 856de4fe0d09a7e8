//! From what is to what shall be: pure, no kernel.

use super::model::{NAT, TABLES, tables};
use super::render::rule_text;
use super::spec::Spec;
use crate::nft::{BatchStep, Chain, Snapshot, Table};
use crate::route::Family;
use std::fmt;

/// What a family's routing looks like.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Routing {
    /// The kernel has the family.
    pub(crate) exists: bool,
    /// Loopback carries the family, so the route can be added.
    pub(crate) routable: bool,
    pub(crate) has_rule: bool,
    pub(crate) has_route: bool,
}

/// What is in a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) v4: Routing,
    pub(crate) v6: Routing,
    pub(crate) nft: Snapshot,
}

impl Observed {
    const fn families(&self) -> [(Family, Routing); 2] {
        [(Family::V4, self.v4), (Family::V6, self.v6)]
    }
}

/// The steps that make a namespace as it is wanted, in an order of which every prefix is safe.
///
/// On the way in: routes, policy rules, then every `nf_tables` change in one transaction. On the way
/// out the reverse. A plan holds only while nobody else changes the namespace's `nf_tables` rules;
/// [`execute`](super::execute) refuses it afterwards.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) generation: u32,
    /// Our tables as they were when the plan was made.
    pub(crate) before: Vec<Table>,
}

impl Plan {
    fn new(steps: Vec<Step>, now: &Snapshot) -> Self {
        let ours = |table: &&Table| TABLES.contains(&table.name.as_str());
        Self {
            steps,
            generation: now.generation,
            before: now.tables.iter().filter(ours).cloned().collect(),
        }
    }

    /// Whether everything is as wanted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the steps in their order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Writes one step a line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// One step of a [`Plan`]; prints what it does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step(pub(crate) Action);

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    AddRoute(Family),
    AddRule(Family),
    Commit(Vec<BatchStep>),
    DeleteRoute(Family),
    DeleteRule(Family),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Action::AddRoute(family) => write!(f, "add the {family} route of table 100"),
            Action::AddRule(family) => write!(f, "add the {family} policy rule"),
            Action::DeleteRoute(family) => write!(f, "delete the {family} route of table 100"),
            Action::DeleteRule(family) => write!(f, "delete the {family} policy rule"),
            Action::Commit(steps) => {
                write!(f, "commit {} nf_tables changes in one batch", steps.len())?;
                steps.iter().try_for_each(|step| write_change(f, step))
            }
        }
    }
}

fn write_change(f: &mut fmt::Formatter<'_>, step: &BatchStep) -> fmt::Result {
    match step {
        BatchStep::AddTable(table) => write!(f, "\n  add table {table}"),
        BatchStep::DeleteTable(table) => write!(f, "\n  delete table {table}"),
        BatchStep::FlushTable(table) => write!(f, "\n  delete the rules of table {table}"),
        BatchStep::AddChain { table, chain } => {
            write!(f, "\n  add chain {table} {}", chain.name)
        }
        BatchStep::AddRule { table, chain, rule } => {
            write!(f, "\n  add rule {table} {chain} {}", rule_text(rule))
        }
    }
}

/// Plans how to come from `observed` to `spec`.
pub(crate) fn plan_apply(spec: &Spec, observed: &Observed) -> Plan {
    let wanted = |family| family == Family::V4 || spec.ipv6;
    let mut steps = Vec::new();
    for (family, now) in observed.families() {
        if wanted(family) && now.routable && !now.has_route {
            steps.push(Step(Action::AddRoute(family)));
        }
    }
    for (family, now) in observed.families() {
        if wanted(family) && now.exists && !now.has_rule {
            steps.push(Step(Action::AddRule(family)));
        }
    }
    steps.extend(commit(changes(&tables(spec), &observed.nft)));
    Plan::new(steps, &observed.nft)
}

fn commit(changes: Vec<BatchStep>) -> Option<Step> {
    (!changes.is_empty()).then_some(Step(Action::Commit(changes)))
}

/// Plans how to remove everything of ours.
pub(crate) fn plan_remove(observed: &Observed) -> Plan {
    let tables = TABLES
        .iter()
        .filter(|name| observed.nft.table(name).is_some())
        .map(|name| BatchStep::DeleteTable((*name).to_owned()))
        .collect();
    let mut steps: Vec<_> = commit(tables).into_iter().collect();
    for (family, now) in observed.families() {
        if now.has_rule {
            steps.push(Step(Action::DeleteRule(family)));
        }
    }
    for (family, now) in observed.families() {
        if now.has_route {
            steps.push(Step(Action::DeleteRoute(family)));
        }
    }
    Plan::new(steps, &observed.nft)
}

/// Plans how to stop redirecting while the connections that are redirected continue.
///
/// The translation of a connection works as long as its base chains exist and something keeps
/// conntrack alive: the redirecting rules go, chains and marks stay.
pub(crate) fn plan_begin_removal(observed: &Observed) -> Plan {
    let nat = observed.nft.table(NAT);
    let has_rules = nat.is_some_and(|table| table.chains.iter().any(|c| !c.rules.is_empty()));
    let flush = has_rules.then(|| BatchStep::FlushTable(NAT.to_owned()));
    let steps = commit(flush.into_iter().collect());
    Plan::new(steps.into_iter().collect(), &observed.nft)
}

/// Plans how to undo steps that may have been done, from tables as in `before`.
///
/// What captures goes before what brings answers back, and comes after it.
pub(crate) fn plan_roll_back(done: &[Step], before: &[Table], observed: &Observed) -> Plan {
    let undone =
        |undo: fn(Family) -> Action, is_due: fn(Routing) -> bool, step: fn(Family) -> Action| {
            let families = observed.families().into_iter();
            let due = families.filter(move |(_, now)| is_due(*now));
            let done = due.filter(move |(family, _)| done.contains(&Step(step(*family))));
            done.map(move |(family, _)| Step(undo(family)))
        };
    let mut steps = Vec::new();
    steps.extend(undone(
        Action::AddRoute,
        |now| now.routable && !now.has_route,
        Action::DeleteRoute,
    ));
    steps.extend(undone(
        Action::AddRule,
        |now| !now.has_rule,
        Action::DeleteRule,
    ));
    if done.iter().any(|step| matches!(step.0, Action::Commit(_))) {
        // A table that somebody had switched off comes back switched on.
        let mut before = before.to_vec();
        before.iter_mut().for_each(|table| table.dormant = false);
        steps.extend(commit(changes(&before, &observed.nft)));
    }
    steps.extend(undone(
        Action::DeleteRule,
        |now| now.has_rule,
        Action::AddRule,
    ));
    steps.extend(undone(
        Action::DeleteRoute,
        |now| now.has_route,
        Action::AddRoute,
    ));
    Plan::new(steps, &observed.nft)
}

fn changes(wanted: &[Table], now: &Snapshot) -> Vec<BatchStep> {
    let mut out = Vec::new();
    for table in wanted {
        match now.table(&table.name) {
            Some(present) if is_same(present, table) => (),
            Some(present) => repair(present, table, &mut out),
            None => create(table, &mut out),
        }
    }
    let is_wanted = |name: &str| wanted.iter().any(|table| table.name == name);
    for name in TABLES {
        if now.table(name).is_some() && !is_wanted(name) {
            out.push(BatchStep::DeleteTable(name.to_owned()));
        }
    }
    out
}

/// Whether both have the same chains with the same rules in the same order, and are on.
fn is_same(present: &Table, wanted: &Table) -> bool {
    let has = |chain| present.chains.contains(chain);
    present.dormant == wanted.dormant
        && present.chains.len() == wanted.chains.len()
        && wanted.chains.iter().all(has)
}

/// Rewrites a table.
///
/// With the right chains only the rules change. Otherwise the table goes and comes back, with all
/// that others put into it. Both are one transaction, in which new hooks are there before old ones
/// go, so translated connections continue.
fn repair(present: &Table, wanted: &Table, out: &mut Vec<BatchStep>) {
    let same = |a: &Chain, b: &Chain| a.name == b.name && a.base == b.base;
    let has = |chain| present.chains.iter().any(|p| same(p, chain));
    let chains_fit = present.chains.len() == wanted.chains.len() && wanted.chains.iter().all(has);
    if chains_fit && !present.dormant {
        out.push(BatchStep::FlushTable(wanted.name.clone()));
        add_rules(wanted, out);
    } else {
        out.push(BatchStep::DeleteTable(wanted.name.clone()));
        create(wanted, out);
    }
}

fn create(table: &Table, out: &mut Vec<BatchStep>) {
    out.push(BatchStep::AddTable(table.name.clone()));
    out.extend(table.chains.iter().map(|chain| add_chain(table, chain)));
    add_rules(table, out);
}

fn add_chain(table: &Table, chain: &Chain) -> BatchStep {
    BatchStep::AddChain {
        table: table.name.clone(),
        chain: Chain {
            rules: Vec::new(),
            ..chain.clone()
        },
    }
}

fn add_rules(table: &Table, out: &mut Vec<BatchStep>) {
    for chain in &table.chains {
        out.extend(chain.rules.iter().map(|rule| BatchStep::AddRule {
            table: table.name.clone(),
            chain: chain.name.clone(),
            rule: rule.clone(),
        }));
    }
}

/// A difference between what is and what shall be; prints what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Drift {
    /// A chain of somebody else sees packets before our chains, or at the same priority: it may
    /// redirect, mark or exempt them first. Left by another agent, or made by the pod itself.
    /// [`apply`](super::apply) leaves it alone.
    Ahead {
        /// Family and table.
        table: String,
        /// The chain.
        chain: String,
    },
    /// Packets with the mark of borrowed addresses do not come back to the proxy, although rule
    /// and route are there: another rule goes before ours.
    Diverted(Family),
    /// A chain has other rules, another order, or another place than wanted.
    Chain {
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The first rule that is not as wanted, as `nft` would write it; empty where the chain
        /// itself is missing, foreign or attached elsewhere.
        rule: String,
    },
    /// The route of table 100 is missing.
    Route(Family),
    /// The policy rule is missing.
    Rule(Family),
    /// A table of ours is missing, switched off, or there and should not be.
    Table(String),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead { table, chain } => {
                write!(
                    f,
                    "chain {table} {chain} is called before the capture rules"
                )
            }
            Self::Diverted(family) => write!(f, "marked {family} packets are routed elsewhere"),
            Self::Chain { table, chain, rule } if rule.is_empty() => {
                write!(f, "chain {table} {chain} is not in its place")
            }
            Self::Chain { table, chain, rule } => write!(f, "chain {table} {chain} at: {rule}"),
            Self::Route(family) => write!(f, "the {family} route of table 100 is missing"),
            Self::Rule(family) => write!(f, "the {family} policy rule is missing"),
            Self::Table(table) => write!(f, "table {table} is not as wanted"),
        }
    }
}

/// Names every difference.
pub(crate) fn drift(spec: &Spec, observed: &Observed) -> Vec<Drift> {
    let mut out = Vec::new();
    for (family, now) in observed.families() {
        if family == Family::V6 && !spec.ipv6 {
            continue;
        }
        if now.exists && !now.has_rule {
            out.push(Drift::Rule(family));
        }
        if now.routable && !now.has_route {
            out.push(Drift::Route(family));
        }
    }
    let wanted = tables(spec);
    for name in TABLES {
        let wanted = wanted.iter().find(|table| table.name == name);
        match (wanted, observed.nft.table(name)) {
            (Some(wanted), Some(present)) if present.dormant == wanted.dormant => {
                chain_drift(wanted, present, &mut out);
            }
            (None, None) => (),
            _ => out.push(Drift::Table(name.to_owned())),
        }
    }
    out
}

fn chain_drift(wanted: &Table, present: &Table, out: &mut Vec<Drift>) {
    let mut differs = |chain: &Chain, rule: String| {
        out.push(Drift::Chain {
            table: wanted.name.clone(),
            chain: chain.name.clone(),
            rule,
        });
    };
    for chain in &wanted.chains {
        let same = |c: &&Chain| c.name == chain.name && c.base == chain.base;
        let Some(now) = present.chains.iter().find(same) else {
            differs(chain, String::new());
            continue;
        };
        let longest = chain.rules.len().max(now.rules.len());
        let first = (0..longest).find(|i| chain.rules.get(*i) != now.rules.get(*i));
        if let Some(index) = first {
            let rule = chain.rules.get(index).or_else(|| now.rules.get(index));
            differs(chain, rule.map(rule_text).unwrap_or_default());
        }
    }
    for chain in &present.chains {
        if !wanted.chains.iter().any(|c| c.name == chain.name) {
            differs(chain, String::new());
        }
    }
}
