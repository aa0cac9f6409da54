//! Every name that leaves the process: headers, metrics, spans, log targets.
//!
//! Metrics follow OpenTelemetry's semantic conventions where they exist (dots become underscores in the Prometheus
//! text), else `trunkline.<area>.<thing>` with the unit in the documentation.

/// Names of headers, in HTTP, gRPC metadata and messages alike.
pub mod header {
    /// The correlation id, unless configured otherwise.
    pub const CORRELATION_ID: &str = "X-Correlation-ID";
    /// The calling service.
    pub const SERVICE_NAME: &str = "X-Service-Name";
    /// Time the caller will still wait, in whole milliseconds.
    pub const REQUEST_TIMEOUT_MS: &str = "X-Request-Timeout-Ms";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context, vendors' part.
    pub const TRACESTATE: &str = "tracestate";
    /// W3C baggage.
    pub const BAGGAGE: &str = "baggage";
    /// The deadline of gRPC, understood when reading.
    pub const GRPC_TIMEOUT: &str = "grpc-timeout";
    /// Makes an unsafe request repeatable (IETF httpapi draft).
    pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
    /// On an answer that failed: whoever answers has called on, retried and given up, or its circuit is open. Retrying once
    /// more one hop further would only multiply the load, and who answers is not who fails.
    pub const RETRIES_EXHAUSTED: &str = "X-Retries-Exhausted";
}

/// Names of headers of messages alone.
pub mod message_header {
    /// The sending service, as seed 003 names it.
    pub const SERVICE: &str = "service";
    /// When it was sent, RFC 3339.
    pub const TIMESTAMP: &str = "timestamp";
    /// CloudEvents, binary mode: the version of the specification.
    pub const CE_SPECVERSION: &str = "ce-specversion";
    /// CloudEvents: the message's id.
    pub const CE_ID: &str = "ce-id";
    /// CloudEvents: the sending service.
    pub const CE_SOURCE: &str = "ce-source";
    /// CloudEvents: what happened, which is the topic.
    pub const CE_TYPE: &str = "ce-type";
    /// CloudEvents: when it happened.
    pub const CE_TIME: &str = "ce-time";
    /// CloudEvents: to whom it happened, which is the aggregate of a relayed event.
    pub const CE_SUBJECT: &str = "ce-subject";
    /// The version that the aggregate of a relayed event had after it.
    pub const AGGREGATE_VERSION: &str = "trunkline-aggregate-version";
    /// Attempts made before this copy of the message.
    pub const ATTEMPTS: &str = "trunkline-attempts";
    /// Where a copy was first published to: `topic order.created`, `queue work`.
    pub const ORIGIN: &str = "trunkline-origin";
    /// That this is a copy of a dead letter for another attempt of who handles dead letters, and its attempts are of that.
    pub const COPY: &str = "trunkline-copy";
    /// That the id was made of what is in the message, as its sender gave it none: an equal message has the same.
    pub const DERIVED_ID: &str = "trunkline-derived-id";
    /// The topic that waits for the answer to a request, or `queue …` where somebody else's queue does.
    pub const REPLY_TO: &str = "trunkline-reply-to";
    /// The id of the request that this answers.
    pub const IN_REPLY_TO: &str = "trunkline-in-reply-to";
    /// The kind of error that this answer is.
    pub const REPLY_ERROR: &str = "trunkline-reply-error";
    /// Why a message is a dead letter, in one word.
    pub const DEAD_REASON: &str = "trunkline-dead-letter-reason";
    /// The last error, with its causes.
    pub const DEAD_ERROR: &str = "trunkline-dead-letter-error";
    /// The group whose handler gave it up.
    pub const DEAD_GROUP: &str = "trunkline-dead-letter-group";
    /// What that handler subscribes to: `topics order.*`, `queue work`.
    pub const DEAD_SOURCE: &str = "trunkline-dead-letter-source";
    /// The name of that handler.
    pub const DEAD_HANDLER: &str = "trunkline-dead-letter-handler";
    /// When it was given up, RFC 3339.
    pub const DEAD_AT: &str = "trunkline-dead-letter-at";
    /// How the payload is encrypted: algorithm, key, the headers that are covered.
    pub const ENCRYPTION: &str = "trunkline-encryption";
    /// How it is signed: algorithm, key, the headers that are covered, the signature.
    pub const SIGNATURE: &str = "trunkline-signature";
    /// That the payload is a claim on what is stored elsewhere.
    pub const CLAIM: &str = "trunkline-claim";
    /// How the payload is compressed, as HTTP names it.
    pub const CONTENT_ENCODING: &str = "content-encoding";
    /// The version of the schema of the payload.
    pub const SCHEMA_VERSION: &str = "trunkline-schema-version";
    /// How often it was taken out of dead letters and tried again.
    pub const REPLAYS: &str = "trunkline-replays";
}

/// Names of spans.
pub mod span {
    /// One message handed to the broker, until it is confirmed.
    pub const PUBLISH: &str = "publish";
    /// One message in its handler.
    pub const PROCESS: &str = "process";
}

/// Names of metrics, as given to the registry (which adds units and `_total`).
pub mod metric {
    /// Histogram, seconds: requests sent, by service, endpoint and status.
    pub const HTTP_CLIENT_DURATION: &str = "http_client_request_duration";
    /// Gauge: requests under way, by service.
    pub const HTTP_CLIENT_ACTIVE: &str = "http_client_active_requests";
    /// Histogram, seconds, detailed: single attempts, by service, instance and outcome.
    pub const HTTP_CLIENT_ATTEMPT_DURATION: &str = "trunkline_http_client_attempt_duration";
    /// Histogram, seconds: requests served, by route, method and status.
    pub const HTTP_SERVER_DURATION: &str = "http_server_request_duration";
    /// Gauge: requests being served.
    pub const HTTP_SERVER_ACTIVE: &str = "http_server_active_requests";
    /// Counter: attempts after the first, by service and endpoint.
    pub const RETRIES: &str = "trunkline_retries";
    /// Counter: second requests beside a first whose answer is late, by service and endpoint.
    pub const HEDGES: &str = "trunkline_hedges";
    /// Counter: of those, the ones whose answer was taken, by service and endpoint.
    pub const HEDGES_WON: &str = "trunkline_hedges_won";
    /// Counter: calls that were passed on to another version of the service, by service and endpoint.
    pub const VERSION_FALLBACKS: &str = "trunkline_version_fallbacks";
    /// Counter: retries and hedges that the budget refused, by service.
    pub const RETRY_BUDGET_EXHAUSTED: &str = "trunkline_retry_budget_exhausted";
    /// Counter: changes of a circuit, by service, endpoint and new state.
    pub const CIRCUIT_TRANSITIONS: &str = "trunkline_circuit_transitions";
    /// Gauge: 0 closed, 1 half-open, 2 open, by service and endpoint.
    pub const CIRCUIT_STATE: &str = "trunkline_circuit_state";
    /// Counter: calls refused here, by service and reason.
    pub const REJECTIONS: &str = "trunkline_rejections";
    /// Gauge: calls that may run at once as far as was found out, by service and endpoint.
    pub const CONCURRENCY_LIMIT: &str = "trunkline_concurrency_limit";
    /// Counter: calls with which something was made to go wrong, by service and fault.
    pub const CHAOS_FAULTS: &str = "trunkline_chaos_faults";
    /// Counter: failed calls, by service and operation.
    pub const SERVICE_CALL_ERRORS: &str = "trunkline_service_call_errors";
    /// Counter: calls that met the cache of answers, by service and outcome (hit, stale, revalidated, miss, shared).
    pub const CACHE_REQUESTS: &str = "trunkline_http_cache_requests";
    /// Counter: answers that made room for others in the cache.
    pub const CACHE_EVICTIONS: &str = "trunkline_http_cache_evictions";
    /// Gauge: bytes of the answers in the cache.
    pub const CACHE_BYTES: &str = "trunkline_http_cache_bytes";
    /// Counter: messages published, by broker, destination and outcome.
    pub const MESSAGES_PUBLISHED: &str = "messaging_client_sent_messages";
    /// Counter: messages delivered to handlers, by broker, destination and group.
    pub const MESSAGES_CONSUMED: &str = "messaging_client_consumed_messages";
    /// Histogram, seconds: publish until confirmed.
    pub const PUBLISH_DURATION: &str = "messaging_client_operation_duration";
    /// Histogram, seconds: one message in its handler.
    pub const PROCESS_DURATION: &str = "messaging_process_duration";
    /// Histogram, bytes, detailed: payloads, by broker, destination and direction.
    pub const MESSAGE_SIZE: &str = "trunkline_messaging_payload_size";
    /// Counter: messages put into dead letters, by destination, group and reason.
    pub const DEAD_LETTERS: &str = "trunkline_messaging_dead_letters";
    /// Counter: attempts after the first, by destination and group.
    pub const REDELIVERIES: &str = "trunkline_messaging_redeliveries";
    /// Counter: deliveries that dedup recognised, by destination and group.
    pub const DUPLICATES: &str = "trunkline_messaging_duplicates";
    /// Counter: publishes that reached no subscriber, by destination.
    pub const UNROUTABLE: &str = "trunkline_messaging_unroutable";
    /// Gauge: messages in handlers, by destination and group.
    pub const IN_FLIGHT: &str = "trunkline_messaging_in_flight";
    /// Gauge: messages that wait for a group, by destination and group; absent while its broker cannot say.
    pub const LAG: &str = "trunkline_messaging_lag";
    /// Gauge: 1 while a subscription is attached, by destination and group.
    pub const SUBSCRIPTION_ATTACHED: &str = "trunkline_messaging_subscription_attached";
    /// Histogram, seconds: name to instances, by service.
    pub const RESOLVE_DURATION: &str = "trunkline_discovery_resolve_duration";
    /// Gauge: instances known, by service and status.
    pub const INSTANCES: &str = "trunkline_discovery_instances";
    /// Counter: changes seen by watches, by service.
    pub const DISCOVERY_CHANGES: &str = "trunkline_discovery_changes";
    /// Gauge, seconds: age of the last answer of the registry, by service, while it is away.
    pub const DISCOVERY_STALE: &str = "trunkline_discovery_stale_age";
    /// Counter: announcements of own instances, by outcome: `new`, `lost` (the lease was), `again` (after that).
    pub const REGISTRATIONS: &str = "trunkline_discovery_registrations";
    /// Counter: events appended, by store.
    pub const EVENTS_APPENDED: &str = "trunkline_events_appended";
    /// Counter: events published by a relay, by relay.
    pub const EVENTS_RELAYED: &str = "trunkline_events_relayed";
    /// Gauge: events appended and not yet published, by relay.
    pub const RELAY_LAG: &str = "trunkline_events_relay_lag";
    /// Gauge, seconds: age of the oldest event appended and not yet published, by relay.
    pub const RELAY_AGE: &str = "trunkline_events_relay_age";
    /// Gauge: 1 healthy, 0.5 degraded, 0 unhealthy, by component.
    pub const COMPONENT_HEALTH: &str = "trunkline_component_health";
}

/// Targets of log events.
pub mod target {
    /// Everything.
    pub const ROOT: &str = "trunkline";
    /// The manager: initialisation, health results, errors, recovery attempts.
    pub const MANAGER: &str = "trunkline::manager";
    /// Calls, one event each, with duration.
    pub const CALL: &str = "trunkline::call";
    /// Requests served, one event each, with duration.
    pub const ACCESS: &str = "trunkline::access";
    /// Events that concern security.
    pub const SECURITY: &str = "trunkline::security";
}
