//! Who the source workload says it is.

use super::{BAGGAGE, clean, is_label};
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;

/// Members beyond this many are not looked at.
const MAX_MEMBERS: usize = 64;
/// A header longer than this is ignored whole.
const MAX_LEN: usize = 8 * 1024;

const WORKLOAD_TYPES: [&str; 4] = ["deployment", "cronjob", "pod", "job"];

/// The workload description that ambient proxies send in `baggage` (W3C Baggage).
///
/// As received it is a claim of the peer: use it for telemetry, never for a decision. Reading
/// keeps known keys only and drops values that are not labels; the first value of a key wins,
/// also when the header is repeated. An empty value is the same as none.
///
/// ```
/// use meshwright_hbone::Baggage;
///
/// let mut baggage = Baggage::default();
/// baggage.cluster = Some("Kubernetes".into());
/// baggage.namespace = Some("default".into());
/// baggage.workload_type = Some("deployment".into());
/// baggage.workload_name = Some("sleep".into());
/// assert_eq!(
///     baggage.to_header(),
///     "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=sleep",
/// );
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Baggage {
    /// `k8s.cluster.name`
    pub cluster: Option<Arc<str>>,
    /// `k8s.namespace.name`
    pub namespace: Option<Arc<str>>,
    /// The kind in `k8s.<kind>.name`: `deployment`, `cronjob`, `pod` or `job`.
    pub workload_type: Option<Arc<str>>,
    /// The value of `k8s.<kind>.name`.
    pub workload_name: Option<Arc<str>>,
    /// `service.name`
    pub service_name: Option<Arc<str>>,
    /// `service.version`
    pub service_version: Option<Arc<str>>,
    /// `cloud.region`
    pub region: Option<Arc<str>>,
    /// `cloud.availability_zone`
    pub zone: Option<Arc<str>>,
}

impl Baggage {
    /// Writes the header value; it may be empty.
    ///
    /// Characters that would end a member or are not visible ASCII become `_`, a value is cut
    /// at 253 characters. A workload of an unknown kind is left out.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        let kind = self
            .workload_type
            .as_deref()
            .filter(|kind| WORKLOAD_TYPES.contains(kind));
        let name_key = kind.map(|kind| format!("k8s.{kind}.name"));
        let members = [
            ("k8s.cluster.name", &self.cluster),
            ("k8s.namespace.name", &self.namespace),
            (name_key.as_deref().unwrap_or_default(), &self.workload_name),
            ("service.name", &self.service_name),
            ("service.version", &self.service_version),
            ("cloud.region", &self.region),
            ("cloud.availability_zone", &self.zone),
        ];
        let mut text = String::new();
        for (key, value) in members {
            let Some(value) = value
                .as_deref()
                .filter(|v| !v.is_empty() && !key.is_empty())
            else {
                continue;
            };
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(key);
            text.push('=');
            text.push_str(&clean(value));
        }
        HeaderValue::try_from(text).unwrap_or_else(|_never| HeaderValue::from_static(""))
    }

    /// Reads all `baggage` lines of a request or response.
    ///
    /// Never fails: what is not understood is left out.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut baggage = Self::default();
        let lines = headers.get_all(BAGGAGE).iter();
        let members = lines
            .filter(|line| line.len() <= MAX_LEN)
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','));
        for member in members.take(MAX_MEMBERS) {
            let mut parts = member.split('=');
            if let (Some(key), Some(value)) = (parts.next(), parts.next()) {
                baggage.take(key, value);
            }
        }
        baggage
    }

    fn take(&mut self, key: &str, value: &str) {
        let kind = key
            .strip_prefix("k8s.")
            .and_then(|rest| rest.strip_suffix(".name"))
            .filter(|kind| WORKLOAD_TYPES.contains(kind));
        if let Some(kind) = kind {
            if self.workload_name.is_none() && is_label(value, 253) {
                self.workload_type = Some(kind.into());
                self.workload_name = Some(value.into());
            }
            return;
        }
        let (field, max) = match key {
            "k8s.cluster.name" => (&mut self.cluster, 253),
            "k8s.namespace.name" => (&mut self.namespace, 63),
            "service.name" => (&mut self.service_name, 253),
            "service.version" => (&mut self.service_version, 253),
            "cloud.region" => (&mut self.region, 253),
            "cloud.availability_zone" => (&mut self.zone, 253),
            _ => return,
        };
        if field.is_none() && is_label(value, max) {
            *field = Some(value.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BAGGAGE, Baggage};
    use http::{HeaderMap, HeaderValue};
    use meshwright_testkit::trace;
    use proptest::prelude::*;

    fn read(lines: &[&[u8]]) -> Baggage {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(BAGGAGE, HeaderValue::from_bytes(line).unwrap());
        }
        Baggage::from_headers(&headers)
    }

    #[test]
    fn all_keys_are_written_in_order_and_read_back() {
        let _trace = trace();
        let text = "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,\
                    k8s.deployment.name=sleep,service.name=sleep,service.version=v1,\
                    cloud.region=eu,cloud.availability_zone=eu-1";
        let baggage = read(&[text.as_bytes()]);
        assert_eq!(baggage.workload_type.as_deref(), Some("deployment"));
        assert_eq!(baggage.to_header(), text);
    }

    #[test]
    fn first_value_of_a_key_wins_over_repeated_lines() {
        let _trace = trace();
        let baggage = read(&[
            b"service.name=a,service.name=b",
            b"service.name=c,cloud.region=r",
        ]);
        assert_eq!(baggage.service_name.as_deref(), Some("a"));
        assert_eq!(baggage.region.as_deref(), Some("r"), "lines are merged");
    }

    #[test]
    fn values_that_are_not_labels_are_left_out() {
        let _trace = trace();
        let long = format!("k8s.namespace.name={}", "n".repeat(64));
        for text in [
            "service.name=",
            "service.name",
            "service.name= a",
            "service.name=a b",
            "service.name=<script>",
            "SERVICE.NAME=a",
            "k8s.daemonset.name=x",
            &long,
        ] {
            assert_eq!(read(&[text.as_bytes()]), Baggage::default(), "{text}");
        }
        assert_eq!(
            read(&[b"service.name=\xff"]),
            Baggage::default(),
            "not ASCII"
        );
        assert_eq!(
            read(&[b"service.name=a=b=c"]).service_name.as_deref(),
            Some("a")
        );
    }

    #[test]
    fn hostile_sizes_are_bounded() {
        let _trace = trace();
        let many = "x=y,".repeat(2000) + "service.name=a";
        assert_eq!(
            read(&[many.as_bytes()]),
            Baggage::default(),
            "beyond 64 members"
        );
        let long = format!("service.name=a,x={}", "y".repeat(64 * 1024));
        assert_eq!(
            read(&[long.as_bytes()]),
            Baggage::default(),
            "a line of 64 KiB"
        );
    }

    #[test]
    fn strings_with_control_characters_cannot_break_the_header() {
        let _trace = trace();
        let baggage = Baggage {
            namespace: Some("de\r\nfault,k8s.cluster.name=evil\0".into()),
            workload_type: Some("dep\nloyment".into()),
            workload_name: Some("w".into()),
            ..Baggage::default()
        };
        let text = baggage.to_header();
        assert_eq!(text, "k8s.namespace.name=de__fault_k8s.cluster.name_evil_");
    }

    proptest! {
        #[test]
        fn writing_never_fails_and_reading_never_panics(value in "\\PC*|[\\x00-\\x7f]*", line in any::<Vec<u8>>()) {
            let baggage = Baggage { service_name: Some(value.as_str().into()), ..Baggage::default() };
            let header = baggage.to_header();
            prop_assert_eq!(header.is_empty(), value.is_empty());
            if let Ok(line) = HeaderValue::from_bytes(&line) {
                let mut headers = HeaderMap::new();
                headers.insert(BAGGAGE, line);
                let _read = Baggage::from_headers(&headers);
            }
        }
    }
}
