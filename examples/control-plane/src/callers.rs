//! Who may call: bearer tokens, and what each of them stands for.

use std::{fs, io::Read as _, path::Path, sync::Arc};

use meshwright_identity::{SpiffeId, TrustDomain};
use serde::Deserialize;

use crate::{compile::Accounts, manifest::names};

const MAX_FILE: u64 = 1024 * 1024;
const MAX_TOKENS: usize = 10_000;
/// Shorter ones could be guessed over a network.
const MIN_TOKEN: usize = 16;

/// The callers that are known.
#[derive(Clone)]
pub(crate) enum Callers {
    /// Development: any caller, with any token or none.
    Any,
    Listed(Vec<(Token, Caller)>),
}

/// What a token stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Caller {
    /// Anybody, in development.
    Anyone,
    /// A node proxy: it may ask for the identities of the pods on its node.
    Node(Arc<str>),
    /// A workload: it may ask for its own identity.
    Workload(SpiffeId),
}

/// A secret. Not printed.
#[derive(Clone)]
pub(crate) struct Token(String);

/// The file: `tokens:`, each with `token` and one of `node` and `serviceAccount`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    tokens: Vec<RawToken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawToken {
    token: String,
    #[serde(default, deserialize_with = "names::optional")]
    node: Arc<str>,
    /// `namespace/name`
    #[serde(default)]
    service_account: String,
}

/// A list of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// An entry says nothing that can be used. Tokens are not printed; count the entries.
    #[error("entry {entry} {rule}")]
    Entry {
        /// From 1.
        entry: usize,
        /// What is wrong with it.
        rule: &'static str,
    },
    /// The text is not a list of tokens. The library's message could quote a token, so only the
    /// place is told.
    #[error("not a list of tokens: see line {line}, column {column}")]
    NotTokens {
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
    },
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read {
        /// The operating system's answer.
        source: std::io::Error,
    },
}

impl Callers {
    /// Reads a list of tokens.
    pub(crate) fn load(path: &Path, trust_domain: &TrustDomain) -> Result<Self, TokensError> {
        let mut text = String::new();
        fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
            .map_err(|source| TokensError::Read { source })?;
        Self::parse(&text, trust_domain)
    }

    fn parse(text: &str, trust_domain: &TrustDomain) -> Result<Self, TokensError> {
        let raw: RawFile = serde_saphyr::from_str(text).map_err(|error| {
            let (line, column) = error
                .location()
                .map_or((1, 1), |at| (at.line(), at.column()));
            TokensError::NotTokens { line, column }
        })?;
        let mut listed: Vec<(Token, Caller)> = Vec::new();
        for (index, raw) in raw.tokens.into_iter().enumerate() {
            let wrong = |rule| TokensError::Entry {
                entry: index + 1,
                rule,
            };
            if index >= MAX_TOKENS {
                return Err(wrong("is one too many"));
            }
            let printable = raw.token.bytes().all(|c| c.is_ascii_graphic());
            if raw.token.len() < MIN_TOKEN || !printable {
                return Err(wrong(
                    "has a token shorter than 16 characters, or with spaces",
                ));
            }
            if listed.iter().any(|(token, _)| token.0 == raw.token) {
                return Err(wrong("repeats a token"));
            }
            let caller = match (&*raw.node, raw.service_account.as_str()) {
                ("", "") => Err("names neither a node nor a serviceAccount"),
                (_, "") => Ok(Caller::Node(raw.node)),
                ("", account) => workload(account, trust_domain)
                    .map(Caller::Workload)
                    .ok_or("has a serviceAccount that is not `namespace/name`"),
                _ => Err("names both a node and a serviceAccount"),
            };
            listed.push((Token(raw.token), caller.map_err(wrong)?));
        }
        Ok(Self::Listed(listed))
    }

    /// Whom the value of an `authorization` header stands for.
    pub(crate) fn caller(&self, authorization: Option<&str>) -> Option<Caller> {
        let Self::Listed(listed) = self else {
            return Some(Caller::Anyone);
        };
        let given = authorization?.strip_prefix("Bearer ")?;
        let mut found = None;
        for (token, caller) in listed {
            if token.is(given) {
                found = Some(caller.clone());
            }
        }
        found
    }

    pub(crate) const fn is_development(&self) -> bool {
        matches!(self, Self::Any)
    }
}

impl Token {
    /// Takes the same time for every text of the same length.
    fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let difference = own.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
        own.len() == given.len() && std::hint::black_box(difference) == 0
    }
}

impl Caller {
    /// The identity that this caller gets a certificate for, given what it asks for.
    pub(crate) fn identity(
        &self,
        wanted: Option<SpiffeId>,
        accounts: &Accounts,
    ) -> Result<SpiffeId, Refused> {
        match (self, wanted) {
            (Self::Anyone, Some(wanted)) => Ok(wanted),
            (Self::Anyone | Self::Node(_), None) => Err(Refused::Unnamed),
            (Self::Node(node), Some(wanted)) => {
                let workload = wanted.workload().ok_or(Refused::NotOnNode)?;
                let here = accounts.runs_on(node, workload.namespace, workload.service_account);
                if here {
                    Ok(wanted)
                } else {
                    Err(Refused::NotOnNode)
                }
            }
            (Self::Workload(own), None) => Ok(own.clone()),
            (Self::Workload(own), Some(wanted)) => {
                if *own == wanted {
                    Ok(wanted)
                } else {
                    Err(Refused::NotOwn)
                }
            }
        }
    }
}

/// Why a caller does not get an identity.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("no pod with this service account runs on the caller's node")]
    NotOnNode,
    #[error("a workload may ask for its own identity only")]
    NotOwn,
    #[error("the request names no identity (ImpersonatedIdentity), and the token has none")]
    Unnamed,
}

fn workload(account: &str, trust_domain: &TrustDomain) -> Option<SpiffeId> {
    let (namespace, name) = account.split_once('/')?;
    SpiffeId::for_workload(trust_domain, namespace, name).ok()
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("Any"),
            Self::Listed(listed) => write!(f, "Listed({})", listed.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Caller, Callers, Refused, TokensError};
    use crate::{
        Manifests,
        compile::{Accounts, Mesh, compile},
    };
    use meshwright_identity::{SpiffeId, TrustDomain};

    const LIST: &str = "tokens:\n- {token: aaaaaaaaaaaaaaaa, node: n1}\n- {token: bbbbbbbbbbbbbbbb, serviceAccount: shop/web}\n";

    fn parse(text: &str) -> Result<Callers, TokensError> {
        Callers::parse(text, &TrustDomain::parse("cluster.local").unwrap())
    }

    fn id(text: &str) -> Option<SpiffeId> {
        Some(SpiffeId::parse(&format!("spiffe://cluster.local/{text}")).unwrap())
    }

    fn accounts() -> Accounts {
        let pods = "apiVersion: meshwright.dev/v1alpha1\nkind: Workload\nmetadata: {name: a, namespace: shop}\nspec: {addresses: [10.0.0.1], node: n1, serviceAccount: web}\n";
        let mesh = Mesh::new(TrustDomain::parse("cluster.local").unwrap());
        compile(&Manifests::parse("m", pods).unwrap(), &mesh)
            .unwrap()
            .accounts
    }

    #[test]
    fn only_a_listed_token_is_a_caller() {
        let _trace = meshwright_testkit::trace();
        let callers = parse(LIST).unwrap();
        assert_eq!(
            callers.caller(Some("Bearer aaaaaaaaaaaaaaaa")),
            Some(Caller::Node("n1".into()))
        );
        for bad in [
            "",
            "Bearer ",
            "Bearer aaaaaaaaaaaaaaa",
            "Bearer aaaaaaaaaaaaaaaab",
            "Basic aaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaa",
        ] {
            assert_eq!(callers.caller(Some(bad)), None, "`{bad}`");
        }
        assert_eq!(callers.caller(None), None);
        assert_eq!(Callers::Any.caller(None), Some(Caller::Anyone));
    }

    #[test]
    fn node_gets_identities_of_its_own_pods_only() {
        let _trace = meshwright_testkit::trace();
        let accounts = accounts();
        let here = Caller::Node("n1".into());
        assert_eq!(
            here.identity(id("ns/shop/sa/web"), &accounts).ok(),
            id("ns/shop/sa/web")
        );
        assert_eq!(
            here.identity(id("ns/shop/sa/other"), &accounts),
            Err(Refused::NotOnNode)
        );
        assert_eq!(
            here.identity(id("no/workload"), &accounts),
            Err(Refused::NotOnNode)
        );
        assert_eq!(here.identity(None, &accounts), Err(Refused::Unnamed));
        let elsewhere = Caller::Node("n2".into());
        assert_eq!(
            elsewhere.identity(id("ns/shop/sa/web"), &accounts),
            Err(Refused::NotOnNode)
        );
    }

    #[test]
    fn workload_gets_its_own_identity_only() {
        let _trace = meshwright_testkit::trace();
        let web = Caller::Workload(id("ns/shop/sa/web").unwrap());
        let none = Accounts::default();
        assert_eq!(web.identity(None, &none).ok(), id("ns/shop/sa/web"));
        assert_eq!(
            web.identity(id("ns/shop/sa/web"), &none).ok(),
            id("ns/shop/sa/web")
        );
        assert_eq!(
            web.identity(id("ns/shop/sa/db"), &none),
            Err(Refused::NotOwn)
        );
    }

    #[test]
    fn list_that_is_wrong_is_refused_without_printing_a_token() {
        let _trace = meshwright_testkit::trace();
        for (text, wanted) in [
            (
                "tokens: [{token: cccccccccccccccc}]",
                "entry 1 names neither",
            ),
            (
                "tokens: [{token: cccccccccccccccc, node: a, serviceAccount: b/c}]",
                "entry 1 names both",
            ),
            (
                "tokens: [{token: short, node: a}]",
                "entry 1 has a token shorter",
            ),
            (
                "tokens: [{token: cccccccccccccccc, serviceAccount: b}]",
                "entry 1 has a serviceAccount",
            ),
            (
                "tokens: [{token: cccccccccccccccc, node: a}, {token: cccccccccccccccc, node: b}]",
                "entry 2 repeats",
            ),
            ("tokens: [{token: cccccccccccccccc, nod: a}]", "line 1"),
            ("cccccccccccccccc", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
            assert!(!error.contains("cccc"), "a token is never printed: {error}");
        }
        assert_eq!(format!("{:?}", parse(LIST).unwrap()), "Listed(2)");
    }
}
