//! Reading Istio's variables: every value is checked, and all faults are reported at once.
//!
//! A [`Variables`] is a copy of the process environment (or of a test's pairs). A [`Checker`] reads
//! from it by name; a value that does not parse is recorded, a default is returned in its place,
//! and reading goes on, so that an operator sees every mistake of a manifest after one start.
//!
//! ```
//! use meshwright_istio_surface::env::Variables;
//! use std::time::Duration;
//!
//! let variables = Variables::from_pairs([("KEEPALIVE_TIME", "3m"), ("IPV6_ENABLED", "yes")]);
//! let mut checker = variables.checker();
//! assert_eq!(checker.duration("KEEPALIVE_TIME", Duration::ZERO), Duration::from_secs(180));
//! assert!(checker.boolean("IPV6_ENABLED", true), "the default stands in for a fault");
//! let faults = checker.finish().unwrap_err();
//! assert_eq!(
//!     faults.to_string(),
//!     "1 setting is invalid: IPV6_ENABLED=\"yes\" is neither `true` nor `false`"
//! );
//! ```

mod checker;
mod fault;
mod proxy_config;
mod source;
mod value;

pub use checker::{Checker, Variables};
pub use fault::{InvalidSetting, InvalidSettings, InvalidValue};
pub use proxy_config::ProxyConfig;
pub use source::{Header, Roots, Secret, Token};
pub use value::{CpuQuantity, WorkerThreads, parse_duration};
