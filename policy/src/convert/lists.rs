//! The lists of a match, and the values in them.

use crate::{
    invalid::Flaw,
    matching::{Condition, Match, Test},
    values::{Accounts, Comparison, Networks, Ports, Texts, network, push_exact},
    wire::{Fields, Value, read_varint},
};

/// Longest text to compare with: a SPIFFE ID has at most 2048 bytes.
const MAX_TEXT_BYTES: usize = 2048;

/// Which fields of a message have been seen; numbers are below 16.
#[derive(Debug, Default)]
pub(super) struct Seen(u16);

impl Seen {
    pub(super) fn once(&mut self, number: u32) -> Result<(), Flaw> {
        let bit = 1_u16 << (number & 15);
        if self.0 & bit != 0 {
            return Err(Flaw::Repeated);
        }
        self.0 |= bit;
        Ok(())
    }
}

/// The lists of one match as they come in: each pair is a field and its negation.
#[derive(Debug, Default)]
pub(super) struct RawMatch<'a> {
    namespaces: [Vec<Comparison<'a>>; 2],
    principals: [Vec<Comparison<'a>>; 2],
    source_ips: [Vec<ipnet::IpNet>; 2],
    destination_ips: [Vec<ipnet::IpNet>; 2],
    destination_ports: [Vec<u16>; 2],
    service_accounts: [Vec<(&'a str, &'a str)>; 2],
}

impl<'a> RawMatch<'a> {
    pub(super) const fn field(number: u32) -> Option<&'static str> {
        Some(match number {
            1 => "namespaces",
            2 => "not_namespaces",
            3 => "principals",
            4 => "not_principals",
            5 => "source_ips",
            6 => "not_source_ips",
            7 => "destination_ips",
            8 => "not_destination_ips",
            9 => "destination_ports",
            10 => "not_destination_ports",
            11 => "service_accounts",
            12 => "not_service_accounts",
            _ => return None,
        })
    }

    /// Adds the values of one field and returns how many they were.
    pub(super) fn add(&mut self, number: u32, value: Value<'a>) -> Result<usize, Flaw> {
        let [namespaces, not_namespaces] = &mut self.namespaces;
        let [principals, not_principals] = &mut self.principals;
        let [source_ips, not_source_ips] = &mut self.source_ips;
        let [destination_ips, not_destination_ips] = &mut self.destination_ips;
        let [ports, not_ports] = &mut self.destination_ports;
        let [accounts, not_accounts] = &mut self.service_accounts;
        match number {
            1 => push_exact(namespaces, comparison(value)?),
            2 => push_exact(not_namespaces, comparison(value)?),
            3 => push_exact(principals, comparison(value)?),
            4 => push_exact(not_principals, comparison(value)?),
            5 => source_ips.push(address(value)?),
            6 => not_source_ips.push(address(value)?),
            7 => destination_ips.push(address(value)?),
            8 => not_destination_ips.push(address(value)?),
            9 => return add_ports(ports, value),
            10 => return add_ports(not_ports, value),
            11 => accounts.push(service_account(value)?),
            12 => not_accounts.push(service_account(value)?),
            number => {
                return Err(Flaw::UnknownField {
                    message: "Match",
                    number,
                });
            }
        }
        Ok(1)
    }

    /// Cheap comparisons first: a match is decided by the first condition that fails.
    pub(super) fn into_match(self) -> Match {
        let mut conditions = Vec::new();
        let mut add = |negated, is_empty: bool, test| {
            if !is_empty {
                push_exact(&mut conditions, Condition { negated, test });
            }
        };
        for (list, negated) in self.destination_ports.into_iter().zip([false, true]) {
            add(
                negated,
                list.is_empty(),
                Test::DestinationPorts(Ports::new(list)),
            );
        }
        for (list, negated) in self.source_ips.iter().zip([false, true]) {
            add(
                negated,
                list.is_empty(),
                Test::SourceIps(Networks::new(list)),
            );
        }
        for (list, negated) in self.destination_ips.iter().zip([false, true]) {
            add(
                negated,
                list.is_empty(),
                Test::DestinationIps(Networks::new(list)),
            );
        }
        for (list, negated) in self.namespaces.iter().zip([false, true]) {
            add(negated, list.is_empty(), Test::Namespaces(Texts::new(list)));
        }
        for (list, negated) in self.principals.iter().zip([false, true]) {
            add(negated, list.is_empty(), Test::Principals(Texts::new(list)));
        }
        for (list, negated) in self.service_accounts.iter().zip([false, true]) {
            add(
                negated,
                list.is_empty(),
                Test::ServiceAccounts(Accounts::new(list)),
            );
        }
        Match {
            conditions: conditions.into(),
        }
    }
}

fn comparison(value: Value<'_>) -> Result<Comparison<'_>, Flaw> {
    let mut fields = Fields::new(value.bytes()?);
    let mut found = None;
    while let Some((number, value)) = fields.next()? {
        let comparison = match number {
            1 => Comparison::Exact(text(value)?),
            2 => Comparison::Prefix(text(value)?),
            3 => Comparison::Suffix(text(value)?),
            4 => {
                // `Empty` has no fields; one that has some says more than is known here.
                if let Some((number, _)) = Fields::new(value.bytes()?).next()? {
                    return Err(Flaw::UnknownField {
                        message: "Empty",
                        number,
                    });
                }
                Comparison::Presence
            }
            number => {
                return Err(Flaw::UnknownField {
                    message: "StringMatch",
                    number,
                });
            }
        };
        if found.replace(comparison).is_some() {
            return Err(Flaw::Repeated);
        }
    }
    found.ok_or(Flaw::NoComparison)
}

fn text(value: Value<'_>) -> Result<&str, Flaw> {
    let text = value.text()?;
    if text.is_empty() {
        return Err(Flaw::EmptyText);
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(Flaw::TooLarge {
            limit: MAX_TEXT_BYTES,
        });
    }
    Ok(text)
}

fn address(value: Value<'_>) -> Result<ipnet::IpNet, Flaw> {
    let mut fields = Fields::new(value.bytes()?);
    let (mut address, mut prefix, mut seen) = (&[][..], 0, Seen::default());
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => address = value.bytes()?,
            2 => prefix = value.varint()?,
            number => {
                return Err(Flaw::UnknownField {
                    message: "Address",
                    number,
                });
            }
        }
        seen.once(number)?;
    }
    network(address, prefix).ok_or(Flaw::AddressRange {
        bytes: address.len(),
        prefix,
    })
}

fn service_account(value: Value<'_>) -> Result<(&str, &str), Flaw> {
    let mut fields = Fields::new(value.bytes()?);
    let (mut namespace, mut name, mut seen) = ("", "", Seen::default());
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => namespace = text(value)?,
            2 => name = text(value)?,
            number => {
                return Err(Flaw::UnknownField {
                    message: "ServiceAccountMatch",
                    number,
                });
            }
        }
        seen.once(number)?;
    }
    if namespace.is_empty() || name.is_empty() {
        return Err(Flaw::EmptyText);
    }
    Ok((namespace, name))
}

/// Packed or one by one: a reader must take both.
fn add_ports(ports: &mut Vec<u16>, value: Value<'_>) -> Result<usize, Flaw> {
    let before = ports.len();
    match value {
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                ports.push(port(read_varint(&mut packed)?)?);
            }
        }
        value => ports.push(port(value.varint()?)?),
    }
    Ok(ports.len() - before)
}

fn port(value: u64) -> Result<u16, Flaw> {
    u16::try_from(value).map_err(|_wide| Flaw::Port { value })
}
