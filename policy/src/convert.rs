//! Resource bytes to a [`Policy`], or the reason why not.
//!
//! Whatever is dropped from a policy changes whom it lets in, so nothing is dropped: an unknown
//! field, an unknown value of an enumeration, an address that is none refuses the whole resource.
//! The one exception are the two `extensions` fields, which every consumer ignores.

mod lists;

use std::sync::Arc;

use crate::{
    InvalidPolicy,
    invalid::{Flaw, Place},
    matching::{Clause, Match, Rule},
    policy::{Action, Policy, Scope, Selects},
    values::push_exact,
    wire::{Fields, Value},
};
use lists::{RawMatch, Seen};

/// Largest resource that is read, in bytes. Kubernetes stores objects of up to about 1.5 MiB.
pub const MAX_RESOURCE_BYTES: usize = 2 << 20;

/// Most rules, clauses, matches and values together in one policy.
///
/// An element takes two bytes on the wire and some forty in memory.
pub const MAX_ELEMENTS: usize = 200_000;

/// Longest namespace or name: Kubernetes allows 253, istiod adds prefixes.
const MAX_NAME_BYTES: usize = 512;

/// Reads the `Authorization` resource called `name` (`NAMESPACE/NAME`).
///
/// One pass over the bytes; what comes out is arranged for comparison already.
///
/// ```
/// use meshwright_policy::{convert, proto};
/// use prost::Message;
///
/// let policy = proto::Authorization {
///     name: "web".into(),
///     namespace: "shop".into(),
///     ..Default::default()
/// };
/// assert!(convert("shop/web", &policy.encode_to_vec()).is_ok());
/// assert!(convert("shop/other", &policy.encode_to_vec()).is_err());
/// ```
///
/// # Errors
///
/// Returns the first place whose content cannot be kept in the policy exactly as it was sent.
pub fn convert(name: &str, resource: &[u8]) -> Result<Policy, InvalidPolicy> {
    if resource.len() > MAX_RESOURCE_BYTES {
        return Err(Flaw::TooLarge {
            limit: MAX_RESOURCE_BYTES,
        }
        .into());
    }
    let mut reader = Reader::default();
    let head = reader.authorization(resource)?;
    let namespace = checked_name(head.namespace)?;
    checked_name(head.name)?;
    if name
        .strip_prefix(namespace)
        .and_then(|rest| rest.strip_prefix('/'))
        != Some(head.name)
    {
        return Err(Flaw::NameMismatch.into());
    }
    Ok(Policy {
        name: name.into(),
        namespace: namespace.len(),
        selects: Selects::Scope(head.scope),
        action: head.action,
        dry_run: head.dry_run,
        rules: head.rules.into(),
        wire: resource.into(),
        invalid: None,
    })
}

/// Makes the stand-in for a resource that [`convert`] refused: it fails closed for whom it selects.
///
/// Scope and action are taken from the resource if the fields of its outermost message can be
/// walked to the end and say something known. An unreadable action counts as DENY. An unreadable
/// scope selects the namespace in the resource's name. `None` if there is no such namespace: such a
/// name selects nobody, and whoever lists it finds it unknown.
pub(crate) fn stand_in(name: &str, resource: &[u8], invalid: InvalidPolicy) -> Option<Policy> {
    let (namespace, short) = name.split_once('/')?;
    checked_name(namespace)
        .and_then(|_namespace| checked_name(short))
        .ok()?;
    let (selects, action, dry_run) = readable_head(resource);
    let rules: Box<[Rule]> = match action {
        Action::Allow => Box::default(),
        Action::Deny => Box::new([Rule {
            clauses: Box::default(),
        }]),
    };
    Some(Policy {
        name: name.into(),
        namespace: namespace.len(),
        selects,
        action,
        dry_run,
        rules,
        wire: Box::default(),
        invalid: Some(Arc::new(invalid)),
    })
}

/// Makes a stand-in that denies everything everywhere; `name` is `NAMESPACE/NAME`.
pub(crate) fn stand_in_for_everything(name: &str, invalid: InvalidPolicy) -> Policy {
    Policy {
        name: name.into(),
        namespace: name.find('/').unwrap_or_default(),
        selects: Selects::Scope(Scope::Global),
        action: Action::Deny,
        dry_run: false,
        rules: Box::new([Rule {
            clauses: Box::default(),
        }]),
        wire: Box::default(),
        invalid: Some(Arc::new(invalid)),
    }
}

/// What can still be said about a broken resource: whom it selects, its action, if it is dry-run.
fn readable_head(resource: &[u8]) -> (Selects, Action, bool) {
    let (mut selects, mut action, mut dry_run) =
        (Selects::Scope(Scope::Global), Action::Allow, false);
    let mut fields = Fields::new(resource);
    loop {
        match fields.next() {
            Ok(Some((3, value))) => {
                selects = scope(value).map_or(Selects::Unreadable, Selects::Scope);
            }
            Ok(Some((4, value))) => action = self::action(value).unwrap_or(Action::Deny),
            Ok(Some((6, value))) => dry_run = value == Value::Varint(1),
            Ok(Some(_)) => {}
            Ok(None) => return (selects, action, dry_run),
            Err(_) => return (Selects::Unreadable, Action::Deny, false),
        }
    }
}

fn checked_name(name: &str) -> Result<&str, Flaw> {
    let printable = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(printable) {
        return Err(Flaw::Name);
    }
    Ok(name)
}

fn scope(value: Value<'_>) -> Result<Scope, Flaw> {
    match value.varint()? {
        0 => Ok(Scope::Global),
        1 => Ok(Scope::Namespace),
        2 => Ok(Scope::WorkloadSelector),
        value => Err(Flaw::UnknownScope { value }),
    }
}

fn action(value: Value<'_>) -> Result<Action, Flaw> {
    match value.varint()? {
        0 => Ok(Action::Allow),
        1 => Ok(Action::Deny),
        value => Err(Flaw::UnknownAction { value }),
    }
}

/// The outermost message.
struct Head<'a> {
    name: &'a str,
    namespace: &'a str,
    scope: Scope,
    action: Action,
    dry_run: bool,
    rules: Vec<Rule>,
}

/// Reads messages and remembers where it is and how much it has read.
#[derive(Debug, Default)]
struct Reader {
    place: Place,
    elements: usize,
}

impl Reader {
    fn authorization<'a>(&mut self, message: &'a [u8]) -> Result<Head<'a>, InvalidPolicy> {
        let mut head = Head {
            name: "",
            namespace: "",
            scope: Scope::Global,
            action: Action::Allow,
            dry_run: false,
            rules: Vec::new(),
        };
        let mut seen = Seen::default();
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            self.place = Place::default();
            self.place.field = match number {
                1 => Some("name"),
                2 => Some("namespace"),
                3 => Some("scope"),
                4 => Some("action"),
                6 => Some("dry_run"),
                _ => None,
            };
            match number {
                5 => {
                    let index = head.rules.len();
                    self.place.rule = u32::try_from(index).ok();
                    head.rules.push(self.rule(value)?);
                }
                7 => self.extension(value)?,
                number => self
                    .singular(&mut head, &mut seen, number, value)
                    .map_err(|flaw| self.invalid(flaw))?,
            }
        }
        Ok(head)
    }

    fn singular<'a>(
        &self,
        head: &mut Head<'a>,
        seen: &mut Seen,
        number: u32,
        value: Value<'a>,
    ) -> Result<(), Flaw> {
        match number {
            1 => head.name = value.text()?,
            2 => head.namespace = value.text()?,
            3 => head.scope = scope(value)?,
            4 => head.action = action(value)?,
            6 => {
                head.dry_run = match value.varint()? {
                    0 => false,
                    1 => true,
                    value => return Err(Flaw::Flag { value }),
                }
            }
            number => {
                return Err(Flaw::UnknownField {
                    message: "Authorization",
                    number,
                });
            }
        }
        seen.once(number)
    }

    fn rule(&mut self, value: Value<'_>) -> Result<Rule, InvalidPolicy> {
        self.count(1)?;
        let mut clauses = Vec::new();
        let mut fields = self.message(value)?;
        while let Some((number, value)) = fields.next().map_err(|flaw| self.invalid(flaw))? {
            if number != 1 {
                return Err(self.unknown("Rule", number));
            }
            self.place.clause = u32::try_from(clauses.len()).ok();
            push_exact(&mut clauses, self.clause(value)?);
            self.place.clause = None;
        }
        Ok(Rule {
            clauses: clauses.into(),
        })
    }

    fn clause(&mut self, value: Value<'_>) -> Result<Clause, InvalidPolicy> {
        self.count(1)?;
        let mut matches = Vec::new();
        let mut fields = self.message(value)?;
        while let Some((number, value)) = fields.next().map_err(|flaw| self.invalid(flaw))? {
            if number != 2 {
                return Err(self.unknown("Clause", number));
            }
            self.place.matching = u32::try_from(matches.len()).ok();
            push_exact(&mut matches, self.matching(value)?);
            self.place.matching = None;
        }
        Ok(Clause {
            matches: matches.into(),
        })
    }

    fn matching(&mut self, value: Value<'_>) -> Result<Match, InvalidPolicy> {
        self.count(1)?;
        let mut raw = RawMatch::default();
        let mut fields = self.message(value)?;
        while let Some((number, value)) = fields.next().map_err(|flaw| self.invalid(flaw))? {
            if number == 13 {
                self.extension(value)?;
                continue;
            }
            self.place.field = RawMatch::field(number);
            let added = raw.add(number, value).map_err(|flaw| self.invalid(flaw))?;
            self.count(added)?;
            self.place.field = None;
        }
        Ok(raw.into_match())
    }

    /// Known and ignored, but it must be a message.
    fn extension(&self, value: Value<'_>) -> Result<(), InvalidPolicy> {
        self.message(value).map(drop)
    }

    fn message<'a>(&self, value: Value<'a>) -> Result<Fields<'a>, InvalidPolicy> {
        value
            .bytes()
            .map(Fields::new)
            .map_err(|flaw| self.invalid(flaw))
    }

    fn count(&mut self, elements: usize) -> Result<(), InvalidPolicy> {
        self.elements = self.elements.saturating_add(elements);
        if self.elements > MAX_ELEMENTS {
            return Err(self.invalid(Flaw::TooLarge {
                limit: MAX_ELEMENTS,
            }));
        }
        Ok(())
    }

    const fn invalid(&self, flaw: Flaw) -> InvalidPolicy {
        InvalidPolicy::at(self.place, flaw)
    }

    const fn unknown(&self, message: &'static str, number: u32) -> InvalidPolicy {
        self.invalid(Flaw::UnknownField { message, number })
    }
}

#[cfg(test)]
mod tests;
