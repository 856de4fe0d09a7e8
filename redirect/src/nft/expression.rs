//! The kernel's expressions, as attributes and back.

use crate::netlink::{AttributeIter, Attributes};

/// Names and attribute numbers are those of `linux/netfilter/nf_tables.h`.
const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

/// The register for data; verdicts go to register 0.
pub(crate) const REGISTER: u32 = 1;

/// What `meta` reads or writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MetaKey {
    InInterface,
    L4Protocol,
    Mark,
    NetworkProtocol,
    OutInterface,
    Other(u32),
}

impl MetaKey {
    const fn number(self) -> u32 {
        match self {
            Self::Mark => 3,
            Self::InInterface => 6,
            Self::OutInterface => 7,
            Self::NetworkProtocol => 15,
            Self::L4Protocol => 16,
            Self::Other(number) => number,
        }
    }

    const fn from_number(number: u32) -> Self {
        match number {
            3 => Self::Mark,
            6 => Self::InInterface,
            7 => Self::OutInterface,
            15 => Self::NetworkProtocol,
            16 => Self::L4Protocol,
            other => Self::Other(other),
        }
    }
}

/// What `ct` reads or writes: `NFT_CT_MARK`, `NFT_CT_ZONE`.
pub(crate) const CT_MARK: u32 = 3;
pub(crate) const CT_ZONE: u32 = 17;

/// Where `payload` counts from: the network header.
pub(crate) const NETWORK: u32 = 1;
/// Where `payload` counts from: the transport header.
pub(crate) const TRANSPORT: u32 = 2;

/// One expression. Data is always in [`REGISTER`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Expression {
    /// register = (register & mask) ^ xor
    Bitwise { mask: Vec<u8>, xor: Vec<u8> },
    /// Goes on if register equals data, or differs.
    Compare { negated: bool, data: Vec<u8> },
    /// Counts packets and bytes; the counts themselves are not part of a rule.
    Counter,
    /// register = conntrack
    CtLoad(u32),
    /// conntrack = register
    CtStore(u32),
    /// register = data
    Immediate(Vec<u8>),
    /// register = packet metadata
    MetaLoad(MetaKey),
    /// packet metadata = register
    MetaStore(MetaKey),
    /// Something this crate does not write.
    Other(String),
    /// register = bytes of the packet
    Payload { base: u32, offset: u32, length: u32 },
    /// Redirects to the local port in register.
    Redirect,
    /// Ends or leaves the chain; the name is that of the chain to jump to.
    Verdict { code: i32, chain: Option<String> },
}

impl Expression {
    /// Encodes the expression as one element of a rule's list.
    pub(crate) fn encode(&self) -> Attributes {
        let (name, data) = self.parts();
        Attributes::new().text(NAME, name).nest(DATA, &data)
    }

    fn parts(&self) -> (&str, Attributes) {
        let list = Attributes::new();
        let value = |bytes: &[u8]| Attributes::new().bytes(VALUE, bytes);
        match self {
            Self::Bitwise { mask, xor } => {
                let length = u32::try_from(mask.len()).unwrap_or_default();
                let list = list.be32(1, REGISTER).be32(2, REGISTER).be32(3, length);
                ("bitwise", list.nest(4, &value(mask)).nest(5, &value(xor)))
            }
            Self::Compare { negated, data } => {
                let list = list.be32(1, REGISTER).be32(2, u32::from(*negated));
                ("cmp", list.nest(3, &value(data)))
            }
            Self::Counter => ("counter", list),
            Self::CtLoad(key) => ("ct", list.be32(2, *key).be32(1, REGISTER)),
            Self::CtStore(key) => ("ct", list.be32(2, *key).be32(4, REGISTER)),
            Self::Immediate(data) => ("immediate", list.be32(1, REGISTER).nest(2, &value(data))),
            Self::MetaLoad(key) => ("meta", list.be32(2, key.number()).be32(1, REGISTER)),
            Self::MetaStore(key) => ("meta", list.be32(2, key.number()).be32(3, REGISTER)),
            Self::Other(name) => (name, list),
            Self::Payload {
                base,
                offset,
                length,
            } => {
                let list = list.be32(1, REGISTER).be32(2, *base);
                ("payload", list.be32(3, *offset).be32(4, *length))
            }
            Self::Redirect => ("redir", list.be32(1, REGISTER)),
            Self::Verdict { code, chain } => {
                let mut verdict = Attributes::new().be32(1, code.cast_unsigned());
                if let Some(chain) = chain {
                    verdict = verdict.text(2, chain);
                }
                let data = Attributes::new().nest(VERDICT, &verdict);
                ("immediate", list.be32(1, 0).nest(2, &data))
            }
        }
    }

    /// Decodes one element of a rule's list; what is not understood becomes [`Self::Other`].
    pub(crate) fn decode(element: AttributeIter<'_>) -> Self {
        let name = element.text(NAME).unwrap_or_default();
        let data = element.inside(DATA).unwrap_or(AttributeIter::new(&[]));
        Self::decode_known(&name, data).unwrap_or(Self::Other(name))
    }

    fn decode_known(name: &str, list: AttributeIter<'_>) -> Option<Self> {
        let value = |kind| Some(list.inside(kind)?.find(VALUE)?.to_vec());
        // Register 1 is also seen as the first of the 32-bit registers.
        let is_register = |kind| matches!(list.be32(kind), Some(REGISTER | 8));
        Some(match name {
            "bitwise" if is_register(1) && is_register(2) && list.be32(6).unwrap_or(0) == 0 => {
                Self::Bitwise {
                    mask: value(4)?,
                    xor: value(5)?,
                }
            }
            "cmp" if is_register(1) => Self::Compare {
                negated: match list.be32(2)? {
                    0 => false,
                    1 => true,
                    _ => return None,
                },
                data: value(3)?,
            },
            "counter" => Self::Counter,
            "ct" if is_register(1) => Self::CtLoad(list.be32(2)?),
            "ct" if is_register(4) => Self::CtStore(list.be32(2)?),
            "immediate" if is_register(1) => Self::Immediate(value(2)?),
            "immediate" if list.be32(1) == Some(0) => {
                let verdict = list.inside(2)?.inside(VERDICT)?;
                Self::Verdict {
                    code: verdict.be32(1)?.cast_signed(),
                    chain: verdict.text(2),
                }
            }
            "meta" if is_register(1) => Self::MetaLoad(MetaKey::from_number(list.be32(2)?)),
            "meta" if is_register(3) => Self::MetaStore(MetaKey::from_number(list.be32(2)?)),
            "payload" if is_register(1) => Self::Payload {
                base: list.be32(2)?,
                offset: list.be32(3)?,
                length: list.be32(4)?,
            },
            "redir" if is_register(1) && list.find(2).is_none_or(|_| is_register(2)) => {
                Self::Redirect
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{CT_MARK, CT_ZONE, Expression, MetaKey, NETWORK};
    use crate::netlink::{AttributeIter, Attributes};

    #[test]
    fn every_expression_is_read_back_as_written() {
        let _trace = meshwright_testkit::trace();
        let all = [
            Expression::Bitwise {
                mask: vec![0, 1, 2, 3],
                xor: vec![4, 5, 6, 7],
            },
            Expression::Compare {
                negated: true,
                data: vec![6],
            },
            Expression::Counter,
            Expression::CtLoad(CT_MARK),
            Expression::CtStore(CT_ZONE),
            Expression::Immediate(vec![1, 0]),
            Expression::MetaLoad(MetaKey::L4Protocol),
            Expression::MetaStore(MetaKey::Mark),
            Expression::Other("log".to_owned()),
            Expression::Payload {
                base: NETWORK,
                offset: 16,
                length: 4,
            },
            Expression::Redirect,
            Expression::Verdict {
                code: -3,
                chain: Some("istio-output".to_owned()),
            },
        ];
        for expression in all {
            let list = Attributes::new().nest(1, &expression.encode());
            let element = AttributeIter::new(list.as_slice()).inside(1).unwrap();
            assert_eq!(Expression::decode(element), expression);
        }
    }
}
