//! Requests of a client.

use std::fmt::Write as _;

use crate::{
    handler::Rejected,
    proto::discovery::{DeltaDiscoveryRequest, Status},
};

/// `INVALID_ARGUMENT`, as gRPC numbers it.
const INVALID_ARGUMENT: i32 = 3;

/// How long a refusal's text may be; names beyond are counted.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// Accepts a response, or refuses it and names each resource that was not applied.
pub(super) fn reply(type_url: &str, nonce: String, rejected: &[Rejected]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        response_nonce: nonce,
        error_detail: (!rejected.is_empty()).then(|| Status {
            code: INVALID_ARGUMENT,
            message: message(rejected),
            ..Status::default()
        }),
        ..DeltaDiscoveryRequest::default()
    }
}

fn message(rejected: &[Rejected]) -> String {
    let mut text = String::new();
    for (n, one) in rejected.iter().enumerate() {
        let separator = if n == 0 { "" } else { "; " };
        if text.len() + one.name.len() + one.reason.len() > MAX_MESSAGE_BYTES && n > 0 {
            // Writing to a string cannot fail.
            write!(text, "; and {} more", rejected.len() - n).ok();
            break;
        }
        write!(text, "{separator}{one}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{MAX_MESSAGE_BYTES, reply};
    use crate::handler::Rejected;

    #[test]
    fn refusal_names_every_bad_resource_in_one_message() {
        let _trace = meshwright_testkit::trace();
        let bad = [
            Rejected::new("a", "too big"),
            Rejected::new("b", "too small"),
        ];
        let detail = reply("t", "n1".to_owned(), &bad).error_detail.unwrap();
        assert_eq!(detail.message, "a: too big; b: too small");
        assert_eq!(reply("t", "n1".to_owned(), &[]).error_detail, None);
    }

    #[test]
    fn refusal_of_very_many_resources_stays_bounded() {
        let _trace = meshwright_testkit::trace();
        let bad = vec![Rejected::new("name".repeat(10), "reason"); 10_000];
        let message = reply("t", "n".to_owned(), &bad)
            .error_detail
            .unwrap()
            .message;
        assert!(message.len() < MAX_MESSAGE_BYTES + 100);
        assert!(message.ends_with(" more"), "the rest is counted");
    }
}
