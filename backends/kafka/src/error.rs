//! From what the driver and the servers say to errors that a caller can act on.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use trunkline_core::{Error, ErrorKind, Origin, Retry};
use trunkline_messaging::TopicName;

/// The kind of an error of the driver or of a server.
pub(crate) fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::NetworkException
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::CoordinatorNotAvailable
        | Code::CoordinatorLoadInProgress
        | Code::NotCoordinator
        | Code::NotController
        | Code::WaitingForCoordinator
        | Code::KafkaStorageError
        | Code::NodeUpdate
        | Code::SSL => ErrorKind::Unavailable,
        Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::MessageTimedOut
        | Code::TimedOutQueue => ErrorKind::Timeout,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::IllegalSASLState
        | Code::UnsupportedSASLMechanism => ErrorKind::Unauthenticated,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => ErrorKind::Denied,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            ErrorKind::NotFound
        }
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::MessageBatchTooLarge
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::InvalidArgument
        | Code::InvalidRecord
        | Code::InvalidTransactionTimeout
        | Code::PolicyViolation => ErrorKind::Invalid,
        Code::QueueFull => ErrorKind::Exhausted,
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::AssignmentLost
        | Code::FencedInstanceId
        | Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::TopicAlreadyExists => ErrorKind::Conflict,
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::NotImplemented => {
            ErrorKind::Unsupported
        }
        Code::PurgeQueue | Code::PurgeInflight => ErrorKind::Cancelled,
        _ => ErrorKind::Internal,
    }
}

/// A publish that failed. What is certain not to be stored may be repeated.
pub(crate) fn of_publish(error: &KafkaError) -> Error {
    let code = error.rdkafka_error_code();
    let kind = code.map_or(ErrorKind::Internal, kind_of);
    let retry = match (kind, code) {
        // They are said before anything is sent, or in place of storing it.
        (ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::NotFound, _) => Retry::Never,
        (ErrorKind::Exhausted, _) => Retry::Safe,
        (_, Some(Code::PurgeQueue)) => Retry::Safe,
        _ => Retry::IfIdempotent,
    };
    Error::new(kind, format!("the publish failed: {error}"))
        .with_retry(retry)
        .with_origin(Origin::Remote)
        .with_source(error.clone())
}

/// What the driver or a server says to a question.
pub(crate) fn of_question(what: &str, error: &KafkaError) -> Error {
    let kind = error
        .rdkafka_error_code()
        .map_or(ErrorKind::Internal, kind_of);
    let retry = match kind {
        ErrorKind::Unavailable | ErrorKind::Timeout => Retry::Safe,
        _ => Retry::Never,
    };
    Error::new(kind, format!("{what}: {error}"))
        .with_retry(retry)
        .with_origin(Origin::Remote)
        .with_source(error.clone())
}

/// The queue is not there.
pub(crate) fn no_queue(queue: &TopicName) -> Error {
    Error::not_found(format!("there is no queue `{queue}`"))
}

/// Kafka's topic is not there.
pub(crate) fn no_topic(topic: &str) -> Error {
    Error::not_found(format!("there is no topic `{topic}`"))
}

/// After `disconnect`.
pub(crate) fn closed() -> Error {
    Error::cancelled("the broker was disconnected")
}

/// The delivery is no longer its holder's.
pub(crate) fn lease_lost() -> Error {
    Error::conflict("the lease of the delivery has ended; the message goes to another")
        .with_retry(Retry::Never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_a_kind_and_say_whether_a_repetition_is_safe() {
        let table = [
            (
                Code::AllBrokersDown,
                ErrorKind::Unavailable,
                Retry::IfIdempotent,
            ),
            (
                Code::NotEnoughReplicasAfterAppend,
                ErrorKind::Unavailable,
                Retry::IfIdempotent,
            ),
            (
                Code::MessageTimedOut,
                ErrorKind::Timeout,
                Retry::IfIdempotent,
            ),
            (Code::MessageSizeTooLarge, ErrorKind::Invalid, Retry::Never),
            (
                Code::TopicAuthorizationFailed,
                ErrorKind::Denied,
                Retry::Never,
            ),
            (
                Code::SaslAuthenticationFailed,
                ErrorKind::Unauthenticated,
                Retry::IfIdempotent,
            ),
            (Code::QueueFull, ErrorKind::Exhausted, Retry::Safe),
            (Code::PurgeQueue, ErrorKind::Cancelled, Retry::Safe),
            (
                Code::PurgeInflight,
                ErrorKind::Cancelled,
                Retry::IfIdempotent,
            ),
            (
                Code::OutOfOrderSequenceNumber,
                ErrorKind::Internal,
                Retry::IfIdempotent,
            ),
        ];
        for (code, kind, retry) in table {
            let error = of_publish(&KafkaError::MessageProduction(code));
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{code:?}");
        }
        let error = of_question(
            "metadata",
            &KafkaError::MetadataFetch(Code::OperationTimedOut),
        );
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Timeout, Retry::Safe)
        );
    }
}
