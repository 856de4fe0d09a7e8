//! The messages of the `Authorization` resource, generated from `proto/authorization.proto`.
//!
//! A schema that knows every field of a *security* message is not enough: an unknown field could
//! carry a condition that this version would not apply. [`convert`](crate::convert) therefore reads
//! the wire itself and refuses what it does not know; these types are for building resources (a
//! control plane, tests) and for printing them.

mod istio_security;

pub use istio_security::{
    Action, Address, Authorization, Clause, Match, Rule, Scope, ServiceAccountMatch, StringMatch,
    string_match,
};

/// The xDS type URL of an [`Authorization`] resource.
pub const AUTHORIZATION_TYPE_URL: &str = "type.googleapis.com/istio.security.Authorization";
