//! Reading variables by name while collecting faults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::fault::{InvalidSetting, InvalidSettings, InvalidValue};
use super::source::{Header, Roots, Secret, Token};
use super::value::{CpuQuantity, WorkerThreads, digits, parse_duration};

/// A copy of an environment.
#[derive(Clone, Default)]
pub struct Variables {
    values: BTreeMap<String, OsString>,
}

/// Reads variables and records those that cannot be used.
///
/// Every method that returns a plain value returns its default, and records the fault, if the
/// variable does not parse; [`finish`](Self::finish) then refuses the whole.
#[derive(Debug)]
pub struct Checker<'a> {
    variables: &'a Variables,
    faults: Vec<InvalidSetting>,
    notes: Vec<String>,
}

impl Variables {
    /// Copies the environment of this process.
    ///
    /// A variable whose name is not UTF-8 is left out.
    #[must_use]
    pub fn of_process() -> Self {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Self {
            values: std::env::vars_os().filter_map(named).collect(),
        }
    }

    /// Makes an environment of pairs.
    pub fn from_pairs<N: Into<String>, V: Into<OsString>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self {
            values: pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    /// Begins to read.
    #[must_use]
    pub fn checker(&self) -> Checker<'_> {
        Checker {
            variables: self,
            faults: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Names only: values may be secrets.
impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl<'a> Checker<'a> {
    /// The value as text, also if it is empty; not UTF-8 is a fault.
    pub fn raw(&mut self, name: &str) -> Option<&'a str> {
        let value = self.variables.values.get(name)?;
        let text = value.to_str();
        if text.is_none() {
            self.fault(name, None, InvalidValue::NotUnicode);
        }
        text
    }

    /// The value as text; an empty one counts as not set.
    pub fn text(&mut self, name: &str) -> Option<&'a str> {
        self.raw(name).filter(|text| !text.is_empty())
    }

    /// A switch: Rust's booleans, so only `true` and `false`.
    pub fn boolean(&mut self, name: &str, default: bool) -> bool {
        self.optional_boolean(name).unwrap_or(default)
    }

    /// A switch that may be left open.
    pub fn optional_boolean(&mut self, name: &str) -> Option<bool> {
        self.parse(name, InvalidValue::Boolean, |text| text.parse().ok())
    }

    /// A length of time.
    pub fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let set = self.parse(name, InvalidValue::Duration, parse_duration);
        set.unwrap_or(default)
    }

    /// A length of time of `min` to `max` seconds.
    pub fn duration_within(&mut self, name: &str, min: u64, max: u64) -> Option<Duration> {
        self.parse(name, InvalidValue::DurationRange { min, max }, |text| {
            let range = Duration::from_secs(min)..=Duration::from_secs(max);
            parse_duration(text).filter(|length| range.contains(length))
        })
    }

    /// A whole number from `min` to `max`.
    pub fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        self.parse(name, InvalidValue::Number { min, max }, |text| {
            digits(text).filter(|number| (min..=max).contains(number))
        })
    }

    /// A Kubernetes CPU quantity.
    pub fn cpu_quantity(&mut self, name: &str) -> Option<CpuQuantity> {
        self.parse(name, InvalidValue::Quantity, CpuQuantity::parse)
    }

    /// A number of threads.
    pub fn worker_threads(&mut self, name: &str) -> Option<WorkerThreads> {
        self.parse(name, InvalidValue::WorkerThreads, WorkerThreads::parse)
    }

    /// An IP address.
    pub fn ip_addr(&mut self, name: &str) -> Option<IpAddr> {
        self.parse(name, InvalidValue::IpAddr, |text| text.parse().ok())
    }

    /// One of some words.
    pub fn word(&mut self, name: &str, words: &'static [&'static str]) -> Option<&'static str> {
        self.parse(name, InvalidValue::NotOneOf { words }, |text| {
            words.iter().copied().find(|word| *word == text)
        })
    }

    /// Reads a set variable with `parse`; a value that gives nothing is a fault for `reason`.
    pub fn parse<T>(
        &mut self,
        name: &str,
        reason: InvalidValue,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let text = self.raw(name)?;
        let value = parse(text);
        if value.is_none() {
            self.fault(name, Some(text), reason);
        }
        value
    }

    /// The address of a server; a missing scheme becomes `https`, any other scheme is a fault
    /// because a token would travel readable. So is a user or password, which would be shown.
    pub fn server(&mut self, name: &str, text: &str) -> Option<Uri> {
        let full = if text.contains("://") {
            text.to_owned()
        } else {
            format!("https://{text}")
        };
        let has_user = text.contains('@');
        let uri = full.parse::<Uri>().ok().filter(|uri| {
            uri.scheme_str() == Some("https")
                && uri.host().is_some_and(|host| !host.is_empty())
                && !has_user
        });
        if uri.is_none() {
            self.fault(name, (!has_user).then_some(text), InvalidValue::Uri);
        }
        uri
    }

    /// Roots: the word `SYSTEM`, an existing file, or PEM; `default` is the file if not set.
    pub fn roots(&mut self, name: &str, default: &Path) -> Roots {
        let set = self.text(name);
        let file = set.map_or(default, Path::new);
        if set == Some("SYSTEM") {
            return Roots::System;
        }
        if file.exists() {
            return Roots::File(file.to_owned());
        }
        if let Some(text) = set
            && let Ok(Some(_)) = CertificateDer::pem_slice_iter(text.as_bytes())
                .next()
                .transpose()
        {
            return Roots::Pem(text.into());
        }
        // What is PEM and holds no certificate may be a private key.
        let shown = file.to_string_lossy();
        let shown = (!shown.contains("-----")).then_some(&*shown);
        self.fault(name, shown, InvalidValue::NoRoots);
        Roots::File(file.to_owned())
    }

    /// A token: an existing file, or the token itself; `default` is the file if not set, and
    /// without it there is no token.
    ///
    /// A value that looks like a path and names no file is a fault: sent as a token it would only
    /// be refused far away. It may be a token all the same, and is not repeated.
    pub fn token(&mut self, name: &str, default: &Path) -> Token {
        let Some(text) = self.text(name) else {
            return if default.exists() {
                Token::File(default.to_owned())
            } else {
                Token::None
            };
        };
        let path = Path::new(text);
        if path.exists() {
            return Token::File(path.to_owned());
        }
        if text.starts_with('/') || text.starts_with('.') {
            self.fault(name, None, InvalidValue::NoSuchFile);
            return Token::None;
        }
        if HeaderValue::from_str(text.trim()).is_err() {
            self.fault(name, None, InvalidValue::Header);
        }
        Token::Static(Secret::new(text.trim()))
    }

    /// Extra headers: the rest of each variable's name is the header's, its value is secret.
    pub fn headers(&mut self, prefix: &str) -> Vec<Header> {
        let mut headers = Vec::new();
        for (name, value) in self.with_prefix(prefix) {
            let key = name.get(prefix.len()..).unwrap_or_default();
            // gRPC: a name ending in `-bin` would need a base64 value, which the variable is not.
            let key = HeaderName::from_bytes(key.to_ascii_lowercase().as_bytes())
                .ok()
                .filter(|key| !key.as_str().ends_with("-bin"));
            match (key, HeaderValue::from_str(value)) {
                (Some(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.push(Header { name, value });
                }
                _ => self.fault(name, None, InvalidValue::Header),
            }
        }
        headers
    }

    /// All variables whose name begins with `prefix`, and is longer, in order of their names.
    pub fn with_prefix(&mut self, prefix: &str) -> Vec<(&'a str, &'a str)> {
        let variables = self.variables;
        let mut found = Vec::new();
        let tail = variables.values.range(prefix.to_owned()..);
        for (name, value) in tail.take_while(|(name, _)| name.starts_with(prefix)) {
            match value.to_str() {
                Some(text) if name.len() > prefix.len() => found.push((name.as_str(), text)),
                Some(_) => {}
                None => self.fault(name, None, InvalidValue::NotUnicode),
            }
        }
        found
    }

    /// Makes every variable that begins with `prefix` a fault, unless it is one of `known` or
    /// begins with one of `foreign`, which are the prefixes of other programs.
    pub fn only(&mut self, prefix: &str, known: &[&str], foreign: &[&str]) {
        for (name, _) in self.with_prefix(prefix) {
            let is_foreign = foreign.iter().any(|prefix| name.starts_with(prefix));
            if !known.contains(&name) && !is_foreign {
                self.fault(name, None, InvalidValue::Unknown);
            }
        }
    }

    /// Whether the variable is there at all.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.variables.values.contains_key(name)
    }

    /// The path of a file, not checked for existence; an empty one counts as not set.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// Records a fault, once if several readers meet it; leave `value` out if it is secret.
    pub fn fault(&mut self, name: &str, value: Option<&str>, reason: InvalidValue) {
        let fault = InvalidSetting::new(name, value, reason);
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Records a sentence for the operator: something asked for has no effect.
    pub fn note(&mut self, sentence: impl Into<String>) {
        self.notes.push(sentence.into());
    }

    /// Ends reading and gives the sentences for the operator.
    ///
    /// # Errors
    ///
    /// All faults, if there was any.
    pub fn finish(self) -> Result<Vec<String>, InvalidSettings> {
        if self.faults.is_empty() {
            Ok(self.notes)
        } else {
            Err(InvalidSettings::new(self.faults))
        }
    }
}

#[cfg(test)]
#[path = "checker/tests.rs"]
mod tests;
