//! `AuthorizationPolicy` and `PeerAuthentication` objects to the resources that istiod sends.
//!
//! For a control plane that reads manifests itself, and for tests that are easier to read in YAML.
//! The resources are the ones that a node proxy gets: parts about HTTP are left out the way istiod
//! leaves them out (an ALLOW rule loses its place, a DENY rule loses the part), policies for
//! gateways, dry-run policies and the actions CUSTOM and AUDIT do not appear. What was left out is
//! in [`Translation::notes`].
//!
//! Two things differ from istiod, both on purpose. What it drops silently (an address that is none,
//! `a*b`, a port that is no number) is an error here, with the path of the field, and all errors
//! come at once. And where it lists a port-level policy that it does not send, which a careful
//! proxy takes for a policy yet to come, both are made from one effective mode.
//!
//! ```
//! use meshwright_policy::kubernetes::{from_yaml, translate};
//!
//! let objects = from_yaml(
//!     "
//! apiVersion: security.istio.io/v1
//! kind: AuthorizationPolicy
//! metadata: {name: web, namespace: shop}
//! spec:
//!   selector: {matchLabels: {app: web}}
//!   rules:
//!   - from: [{source: {principals: [cluster.local/ns/shop/sa/cart]}}]
//! ",
//! )?;
//! let translation = translate(&objects, "istio-system")?;
//! assert_eq!(translation.authorizations().len(), 1);
//! let labels = |name: &str| (name == "app").then_some("web");
//! assert_eq!(translation.listed_by("shop", labels), ["shop/web"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authorization;
mod invalid;
mod objects;
mod patterns;
mod peer;
mod translation;
mod yaml;

pub use invalid::{InvalidObject, InvalidObjects, InvalidYaml, Problem};
pub use objects::{
    AuthorizationPolicy, AuthorizationPolicySpec, Condition, From, Metadata, MutualTls, Objects,
    Operation, PeerAuthentication, PeerAuthenticationSpec, Provider, Rule, Selector, Source,
    TargetRef, To,
};
pub use translation::{Note, NoteKind, Translation, translate};
pub use yaml::from_yaml;

#[cfg(test)]
mod tests;
