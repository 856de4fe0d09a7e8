//! The objects as Kubernetes stores them.
//!
//! Field names are those of the API. Unknown fields of a `spec` are refused: a misspelt condition
//! must not vanish. Unknown fields beside it are not looked at.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The objects that policies are made from.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Objects {
    /// `AuthorizationPolicy` objects.
    pub authorization_policies: Vec<AuthorizationPolicy>,
    /// `PeerAuthentication` objects.
    pub peer_authentications: Vec<PeerAuthentication>,
}

/// What of an object's metadata matters here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    /// The object's namespace; `default` if the manifest has none.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Annotations; `istio.io/dry-run` is looked at.
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// Of two objects that say something about one thing the older counts. RFC 3339 in UTC, as
    /// Kubernetes writes it; an object without it counts as the oldest.
    #[serde(default)]
    pub creation_timestamp: Option<String>,
}

/// An `AuthorizationPolicy` of `security.istio.io`.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct AuthorizationPolicy {
    /// Name and namespace.
    pub metadata: Metadata,
    /// The policy.
    #[serde(default, deserialize_with = "or_default")]
    pub spec: AuthorizationPolicySpec,
}

/// The policy in an [`AuthorizationPolicy`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct AuthorizationPolicySpec {
    /// The workloads it is for; all of the namespace if absent.
    pub selector: Option<Selector>,
    /// The gateway or service it is for, old form.
    pub target_ref: Option<TargetRef>,
    /// The gateways or services it is for: such a policy is nothing for a node proxy.
    #[serde(default, deserialize_with = "or_default")]
    pub target_refs: Vec<TargetRef>,
    /// `ALLOW` (also if absent), `DENY`, `AUDIT` or `CUSTOM`.
    pub action: Option<String>,
    /// For `CUSTOM`.
    pub provider: Option<Provider>,
    /// Any of them matches.
    #[serde(default, deserialize_with = "or_default")]
    pub rules: Vec<Rule>,
}

/// A `PeerAuthentication` of `security.istio.io`.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct PeerAuthentication {
    /// Name and namespace.
    pub metadata: Metadata,
    /// The modes.
    #[serde(default, deserialize_with = "or_default")]
    pub spec: PeerAuthenticationSpec,
}

/// The modes in a [`PeerAuthentication`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct PeerAuthenticationSpec {
    /// The workloads it is for; all of the namespace, or of the mesh, if absent.
    pub selector: Option<Selector>,
    /// The mode of all ports that have none of their own.
    pub mtls: Option<MutualTls>,
    /// Modes of single ports, of the workload and not of a service.
    #[serde(default, deserialize_with = "or_default")]
    pub port_level_mtls: BTreeMap<u16, MutualTls>,
}

/// Whether a port takes plaintext.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MutualTls {
    /// `UNSET` (also if absent), `DISABLE`, `PERMISSIVE` or `STRICT`.
    pub mode: Option<String>,
}

/// Picks workloads by their labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Selector {
    /// All of these must be there. If there are none, the whole namespace is picked.
    #[serde(default, deserialize_with = "or_default")]
    pub match_labels: BTreeMap<String, String>,
}

/// Points to a gateway or service.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct TargetRef {
    /// Such as `Gateway` or `Service`.
    pub kind: String,
    /// The object's name.
    pub name: String,
}

/// Who decides for the action `CUSTOM`.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct Provider {
    /// A name of the mesh's configuration.
    #[serde(default)]
    pub name: String,
}

/// All parts that are there must match; without any part it matches everything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Rule {
    /// Any of these sources.
    pub from: Option<Vec<From>>,
    /// Any of these operations.
    pub to: Option<Vec<To>>,
    /// All of these conditions.
    #[serde(default, deserialize_with = "or_default")]
    pub when: Vec<Condition>,
}

/// A source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct From {
    /// Its conditions.
    #[serde(default, deserialize_with = "or_default")]
    pub source: Source,
}

/// An operation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct To {
    /// Its conditions.
    #[serde(default, deserialize_with = "or_default")]
    pub operation: Operation,
}

macro_rules! lists {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_meta])* #[serde(default, deserialize_with = "or_default")] pub $field: Vec<String>,)*
        }

        impl $name {
            pub(super) fn is_empty(&self) -> bool {
                true $(&& self.$field.is_empty())*
            }
        }
    };
}

lists! {
    /// Who calls: fields are joined by "and", the values of a field by "or".
    Source {
        /// SPIFFE IDs without `spiffe://`; `*` at one end.
        principals,
        /// None of these.
        not_principals,
        /// Identities of a JWT: HTTP only.
        request_principals,
        /// None of these: HTTP only.
        not_request_principals,
        /// Namespaces in the caller's identity; `*` at one end.
        namespaces,
        /// None of these.
        not_namespaces,
        /// Addresses or ranges of the TCP peer.
        ip_blocks,
        /// None of these.
        not_ip_blocks,
        /// Addresses or ranges of the original client: HTTP only.
        remote_ip_blocks,
        /// None of these: HTTP only.
        not_remote_ip_blocks,
        /// `NAMESPACE/NAME`, or a name in the policy's namespace.
        service_accounts,
        /// None of these.
        not_service_accounts,
        /// Trust domains: not for a node proxy.
        trust_domains,
        /// None of these: not for a node proxy.
        not_trust_domains,
    }
}

lists! {
    /// What is called: fields are joined by "and", the values of a field by "or".
    Operation {
        /// Host names: HTTP only.
        hosts,
        /// None of these: HTTP only.
        not_hosts,
        /// Ports of the workload.
        ports,
        /// None of these.
        not_ports,
        /// Methods: HTTP only.
        methods,
        /// None of these: HTTP only.
        not_methods,
        /// Paths: HTTP only.
        paths,
        /// None of these: HTTP only.
        not_paths,
    }
}

/// A condition on one attribute.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Condition {
    /// The attribute, such as `source.ip`.
    pub key: String,
    /// Any of these.
    #[serde(default, deserialize_with = "or_default")]
    pub values: Vec<String>,
    /// None of these.
    #[serde(default, deserialize_with = "or_default")]
    pub not_values: Vec<String>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// `null` is as good as nothing, as for the API server.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
