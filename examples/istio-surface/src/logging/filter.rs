//! Which events become lines, and changing that while the program runs.

use std::fmt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Longest filter, in bytes: requests to change it add to it.
const LONGEST: usize = 4096;
/// What `info` is in the words of a filter.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// A checked filter, written as `RUST_LOG` is (`info`, `info,access=debug`). Default: `info`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    text: String,
}

/// A filter that does not parse.
#[derive(Debug)]
#[non_exhaustive]
pub enum InvalidFilter {
    /// A directive is neither a level nor `module=level`.
    Directive {
        /// The directive, shortened.
        text: String,
    },
    /// The text is not in the grammar of filters.
    Grammar {
        /// What the parser said.
        source: ParseError,
    },
    /// Longer than 4 KiB; reset it first.
    TooLong,
}

impl Filter {
    /// Checks the text of `RUST_LOG`.
    ///
    /// # Errors
    ///
    /// [`InvalidFilter`] if it is longer than 4 KiB or does not parse.
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        if text.len() > LONGEST {
            return Err(InvalidFilter::TooLong);
        }
        EnvFilter::try_new(text).map_err(|source| InvalidFilter::Grammar { source })?;
        Ok(Self { text: text.into() })
    }

    /// Adds directives of a request to change the level: `debug`, or `module=debug,other=trace`.
    ///
    /// Only these two forms: the grammar of `RUST_LOG` has more, with costs that an unauthenticated
    /// request must not choose.
    ///
    /// # Errors
    ///
    /// [`InvalidFilter`], and nothing is changed, if one directive is wrong or the whole becomes
    /// too long.
    pub fn with(&self, directives: &str) -> Result<Self, InvalidFilter> {
        let mut text = self.text.clone();
        for directive in directives.split(',') {
            check(directive)?;
            // A directive that is already there would only be repeated.
            if text.split(',').next_back() != Some(directive) {
                text.push(',');
                text.push_str(directive);
            }
        }
        // The parser keeps the last directive of each target, so its own text is the short form.
        let short = EnvFilter::try_new(&text)
            .map_err(|source| InvalidFilter::Grammar { source })?
            .to_string();
        Self::parse(&short)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter that a subscriber takes.
    pub(super) fn to_env_filter(&self) -> EnvFilter {
        EnvFilter::try_new(&self.text).unwrap_or_else(|_checked| EnvFilter::new("info"))
    }
}

fn check(directive: &str) -> Result<(), InvalidFilter> {
    let (module, level) = match directive.split_once('=') {
        Some((module, level)) => (Some(module), level),
        None => (None, directive),
    };
    let level_known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    let module_fine = module.is_none_or(|module| {
        !module.is_empty()
            && module
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'-' | b'.'))
    });
    if level_known && module_fine {
        return Ok(());
    }
    let text = directive
        .chars()
        .take(64)
        .flat_map(char::escape_debug)
        .collect();
    Err(InvalidFilter::Directive { text })
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            text: "info".into(),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for InvalidFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directive { text } => {
                write!(f, "`{text}` is neither a level nor module=level")
            }
            Self::Grammar { .. } => f.write_str("the filter of log lines does not parse"),
            Self::TooLong => f.write_str("the filter of log lines is longer than 4096 bytes"),
        }
    }
}

impl std::error::Error for InvalidFilter {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Grammar { source } => Some(source),
            Self::Directive { .. } | Self::TooLong => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, InvalidFilter};

    #[test]
    fn directive_of_a_request_replaces_the_one_for_the_same_target() {
        let _trace = meshwright_testkit::trace();
        let filter = Filter::parse("info").unwrap();
        let filter = filter
            .with("access=debug")
            .unwrap()
            .with("access=warn,debug")
            .unwrap();
        let mut parts: Vec<_> = filter.as_str().split(',').collect();
        parts.sort_unstable();
        assert_eq!(parts, ["access=warn", "debug"]);
    }

    #[test]
    fn repeated_requests_do_not_grow_the_filter() {
        let _trace = meshwright_testkit::trace();
        let mut filter = Filter::default();
        for _ in 0..1000 {
            filter = filter.with("debug").unwrap().with("a=info").unwrap();
        }
        assert!(filter.as_str().len() < 32, "{filter}");
    }

    #[test]
    fn request_with_a_colon_or_a_regular_expression_is_refused() {
        let _trace = meshwright_testkit::trace();
        for text in [
            "access:debug",
            "",
            "[span{field=.*}]=debug",
            "a=loud",
            "=debug",
            "a b=info",
        ] {
            assert!(
                matches!(
                    Filter::default().with(text),
                    Err(InvalidFilter::Directive { .. })
                ),
                "{text:?}"
            );
        }
    }

    #[test]
    fn filter_beyond_its_limit_is_refused() {
        let _trace = meshwright_testkit::trace();
        let many: Vec<_> = (0..600).map(|n| format!("module{n}=debug")).collect();
        assert!(matches!(
            Filter::default().with(&many.join(",")),
            Err(InvalidFilter::TooLong)
        ));
    }
}
