//! How a stream ended, in the words of Istio's metrics.

use std::error::Error as _;

use tonic::{Code, Status};

use super::events::ConnectionEnd;

/// How far a stream had come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// The head of the answer had arrived.
    Answered,
    /// Nothing had.
    Opening,
}

pub(super) fn classify(status: &Status, progress: Progress) -> ConnectionEnd {
    // A server's status has no cause; one that the transport made has.
    if progress == Progress::Opening && status.source().is_some() {
        return ConnectionEnd::ConnectionError;
    }
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => ConnectionEnd::Reconnect,
        Code::Unavailable if is_going_away(status.message()) => ConnectionEnd::Reconnect,
        _ => ConnectionEnd::Error,
    }
}

/// Texts of gRPC libraries for a connection that the other end closed in order.
fn is_going_away(message: &str) -> bool {
    message.contains("transport is closing") || message.contains("received prior goaway")
}

#[cfg(test)]
mod tests {
    use super::{Progress, classify};
    use crate::client::ConnectionEnd;
    use tonic::Status;

    #[test]
    fn statuses_are_told_apart_as_istio_does() {
        let _trace = meshwright_testkit::trace();
        let of = |status: Status| classify(&status, Progress::Answered);
        assert_eq!(of(Status::unknown("")), ConnectionEnd::Reconnect);
        assert_eq!(of(Status::cancelled("")), ConnectionEnd::Reconnect);
        assert_eq!(
            of(Status::unavailable("transport is closing")),
            ConnectionEnd::Reconnect
        );
        assert_eq!(
            of(Status::unavailable("no healthy upstream")),
            ConnectionEnd::Error
        );
        assert_eq!(of(Status::internal("")), ConnectionEnd::Error);
    }

    #[test]
    fn failure_of_the_transport_before_an_answer_is_a_connection_error() {
        let _trace = meshwright_testkit::trace();
        let status = || Status::from_error(Box::new(std::io::Error::other("refused")));
        assert_eq!(
            classify(&status(), Progress::Opening),
            ConnectionEnd::ConnectionError
        );
        assert_ne!(
            classify(&status(), Progress::Answered),
            ConnectionEnd::ConnectionError
        );
        let by_server = Status::unavailable("later");
        assert_eq!(
            classify(&by_server, Progress::Opening),
            ConnectionEnd::Error
        );
    }
}
