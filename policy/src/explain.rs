//! The same decision, with its grounds.

mod near;

use std::{fmt, net::IpAddr, net::SocketAddr, sync::Arc};

use crate::{
    connection::{Connection, Facts},
    decision::{Decision, Denied, Reason},
    index::Found,
    matching::{Condition, Rule, Test, Unevaluable},
    policy::{Action, Policy},
    set::{PolicySet, Verdict, denied},
};
use near::nearest_miss;

/// A decision, what made it, and what nearly made another one.
///
/// `Display` is several lines for people; the first is the decision's own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The decision, always that of [`PolicySet::decide`] on the same connection.
    pub decision: Decision,
    /// The rule that decided; `None` if the absence of a match did.
    pub by: Option<Matched>,
    /// The rule that came nearest to deciding otherwise: of a DENY policy if the connection is
    /// allowed, of an ALLOW policy if none allowed it.
    pub nearest_miss: Option<NearMiss>,
    /// Rules of dry-run policies that match: they would have counted if they were enforced.
    pub dry_run: Vec<Matched>,
    /// All policies that apply to the workload, in the order in which they are asked.
    pub applying: Vec<Applying>,
    /// What the connection was judged by.
    pub caller: Caller,
}

/// What a decision knows of the caller and of where it goes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Caller {
    /// The SPIFFE ID without `spiffe://`; `None` for plaintext.
    pub principal: Option<Box<str>>,
    /// The address of the TCP peer.
    pub source_ip: IpAddr,
    /// Address and port that are to be reached.
    pub destination: SocketAddr,
}

/// A policy that applies to the workload.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Applying {
    /// Its resource name.
    pub policy: Arc<str>,
    /// What a match means.
    pub action: Action,
    /// Whether it is only evaluated for the log.
    pub dry_run: bool,
    /// Whether it stands in for a policy that could not be read.
    pub stand_in: bool,
}

/// A rule that matched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Matched {
    /// The policy's resource name.
    pub policy: Arc<str>,
    /// What the match means.
    pub action: Action,
    /// The rule, counted from zero.
    pub rule: u32,
    /// For each clause of the rule, in order, its first match that holds; `None` for a clause
    /// without matches.
    pub matches: Vec<Option<u32>>,
}

/// A rule that did not match, but nearly.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NearMiss {
    /// The policy's resource name.
    pub policy: Arc<str>,
    /// What a match would have meant.
    pub action: Action,
    /// The rule, counted from zero.
    pub rule: u32,
    /// What kept it from matching; never empty.
    pub failed: Vec<FailedCondition>,
}

/// A condition that kept a rule from matching.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedCondition {
    /// The clause, counted from zero.
    pub clause: u32,
    /// The match of the clause that came nearest.
    pub matching: u32,
    /// The field as the schema names it; `None` if the match has no condition left.
    pub field: Option<&'static str>,
    /// The alternatives of the policy, the first few.
    pub wanted: String,
    /// What the connection has.
    pub actual: String,
}

impl PolicySet {
    /// Decides like [`decide`](Self::decide), by the same code, and says why.
    ///
    /// Looks at every rule that applies to the workload: for people and debug endpoints, not for
    /// every connection.
    #[must_use]
    pub fn explain(&self, connection: &Connection<'_>) -> Explanation {
        let facts = Facts::new(connection);
        let applicable = self.applicable(connection);
        let miss =
            |action| nearest_miss(&applicable, action, &facts, self.mode().unevaluable(action));
        let matched = |found| Matched::new(found, &facts, self);
        let (decision, by, nearest_miss) = match self.judge(connection, &facts, true) {
            Verdict::Allow(found) => (Decision::Allow, found.map(matched), miss(Action::Deny)),
            Verdict::Deny(found) => (Decision::Deny(denied(found)), Some(matched(found)), None),
            Verdict::NotAllowed => {
                let decision = Decision::Deny(Denied::new(None, Reason::NotAllowed));
                (decision, None, miss(Action::Allow))
            }
            Verdict::Unknown(policy) => {
                let policy = Arc::clone(policy);
                (Decision::Unknown { policy }, None, None)
            }
        };
        let dry_run = applicable
            .iter()
            .filter(|policy| policy.dry_run)
            .filter_map(|policy| {
                let unevaluable = self.mode().unevaluable(policy.action);
                let mut rules = policy.rules.iter().zip(0_u32..);
                let (_, rule) = rules.find(|(rule, _)| rule.holds(&facts, unevaluable))?;
                Some(matched(Found { policy, rule }))
            });
        Explanation {
            decision,
            by,
            nearest_miss,
            dry_run: dry_run.collect(),
            applying: applicable
                .iter()
                .map(|policy| Applying::new(policy))
                .collect(),
            caller: Caller {
                principal: facts.principal.map(Box::from),
                source_ip: facts.source_ip,
                destination: SocketAddr::new(facts.destination_ip, facts.destination_port),
            },
        }
    }
}

impl Applying {
    fn new(policy: &Policy) -> Self {
        Self {
            policy: Arc::clone(&policy.name),
            action: policy.action,
            dry_run: policy.dry_run,
            stand_in: policy.invalid.is_some(),
        }
    }
}

impl Matched {
    fn new(found: Found<'_>, facts: &Facts<'_>, set: &PolicySet) -> Self {
        let unevaluable = set.mode().unevaluable(found.policy.action);
        let rule = found.policy.rules.get(found.rule as usize);
        Self {
            policy: Arc::clone(&found.policy.name),
            action: found.policy.action,
            rule: found.rule,
            matches: rule
                .map(|rule| first_matches(rule, facts, unevaluable))
                .unwrap_or_default(),
        }
    }
}

fn first_matches(rule: &Rule, facts: &Facts<'_>, unevaluable: Unevaluable) -> Vec<Option<u32>> {
    let first = |clause: &crate::matching::Clause| {
        let mut matches = clause.matches.iter().zip(0_u32..);
        matches
            .find(|(matching, _)| matching.holds(facts, unevaluable))
            .map(|(_, place)| place)
    };
    rule.clauses.iter().map(first).collect()
}

impl FailedCondition {
    fn new(place: (u32, u32), condition: Option<&Condition>, facts: &Facts<'_>) -> Self {
        let (clause, matching) = place;
        Self {
            clause,
            matching,
            field: condition.map(Condition::field),
            wanted: condition
                .map(|condition| alternatives(&condition.test))
                .unwrap_or_default(),
            actual: condition
                .map(|condition| value_of(&condition.test, facts))
                .unwrap_or_default(),
        }
    }
}

/// How many alternatives are printed.
const ALTERNATIVES: usize = 4;

fn alternatives(test: &Test) -> String {
    let mut all: Box<dyn Iterator<Item = String> + '_> = match test {
        Test::DestinationIps(networks) | Test::SourceIps(networks) => {
            Box::new(networks.iter().map(|network| network.to_string()))
        }
        Test::DestinationPorts(ports) => Box::new(ports.iter().map(|port| port.to_string())),
        Test::Namespaces(texts) | Test::Principals(texts) => Box::new(texts.patterns()),
        Test::ServiceAccounts(accounts) => Box::new(
            accounts
                .iter()
                .map(|(namespace, name)| format!("{namespace}/{name}")),
        ),
    };
    let mut shown: Vec<String> = all.by_ref().take(ALTERNATIVES).collect();
    let rest = all.count();
    if rest > 0 {
        shown.push(format!("{rest} more"));
    }
    shown.join(", ")
}

fn value_of(test: &Test, facts: &Facts<'_>) -> String {
    let text = |text: Option<&str>| text.unwrap_or("no identity").to_owned();
    match test {
        Test::DestinationIps(_) => facts.destination_ip.to_string(),
        Test::DestinationPorts(_) => facts.destination_port.to_string(),
        Test::Namespaces(_) => text(facts.account.map(|(namespace, _)| namespace)),
        Test::Principals(_) => text(facts.principal),
        Test::ServiceAccounts(_) => match facts.account {
            Some((namespace, name)) => format!("{namespace}/{name}"),
            None => text(None),
        },
        Test::SourceIps(_) => facts.source_ip.to_string(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Caller {
            principal,
            source_ip,
            destination,
        } = &self.caller;
        let principal = principal.as_deref().unwrap_or("no identity");
        writeln!(f, "{}", self.decision)?;
        write!(
            f,
            "  connection: {principal} at {source_ip} to {destination}"
        )?;
        for policy in &self.applying {
            write!(f, "\n  applies: {policy}")?;
        }
        if let Some(by) = &self.by {
            write!(f, "\n  decided by: {by}")?;
        }
        for matched in &self.dry_run {
            write!(f, "\n  dry run: {matched}")?;
        }
        self.nearest_miss
            .as_ref()
            .map_or(Ok(()), |miss| write!(f, "\n  nearest miss: {miss}"))
    }
}

impl fmt::Display for Applying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.policy, self.action)?;
        if self.dry_run {
            f.write_str(", dry run")?;
        }
        if self.stand_in {
            f.write_str(", not readable")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Matched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), rule {}", self.policy, self.action, self.rule)?;
        for (clause, matching) in self.matches.iter().enumerate() {
            match matching {
                Some(matching) => write!(f, ", clause {clause} by match {matching}")?,
                None => write!(f, ", clause {clause} by being empty")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), rule {}", self.policy, self.action, self.rule)?;
        for failed in &self.failed {
            write!(
                f,
                "\n    clause {}, match {}: {failed}",
                failed.clause, failed.matching
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for FailedCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "{field} {}, but it is {}", self.wanted, self.actual),
            None => f.write_str("no condition is left in it"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
        })
    }
}

#[cfg(test)]
mod tests;
