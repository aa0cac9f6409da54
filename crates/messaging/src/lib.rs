//! Messaging: one contract for message brokers, and everything above it done once for all of them.
//!
//! A backend moves bytes with headers and settles deliveries. Retry, dead letters, deduplication, requests, codecs, context and
//! metrics live here, above the [`MessageBroker`] trait, so that they mean the same on every broker. Applications use
//! the `trunkline` facade, which takes all of this from configuration; use this crate directly to write a backend, or
//! when you want messaging and nothing else. If you need one broker's own protocol — exchanges, partitions, streams —
//! use its driver: what is here is what brokers have in common, and [`Capabilities`] says what each lacks.
//!
//! ```
//! use trunkline_messaging::memory::MemoryBroker;
//! use trunkline_messaging::{HandlerError, MessageBroker, Messaging, Topic};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct UserCreated { id: u64 }
//! const USER_CREATED: Topic<UserCreated> = Topic::new("user.created");
//!
//! async fn send_welcome(event: UserCreated) -> Result<(), HandlerError> {
//!     if event.id == 0 {
//!         return Err(HandlerError::dead_letter("there is no user 0"));
//!     }
//!     Ok(()) // an error that `?` returns would be tried again
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
//! let broker = MemoryBroker::default().erase();
//! broker.connect().await?;
//! let messaging = Messaging::builder(broker).service("mailer").build();
//! messaging.subscribe(USER_CREATED).max_attempts(5).handle(send_welcome).await?;
//! messaging.publish(USER_CREATED, &UserCreated { id: 7 }).await?;
//! # Ok(()) }
//! ```
//!
//! # Concepts
//! - [`MessageBroker`]: what a backend implements; [`AnyBroker`] is any of them. [`memory`] has one for tests and single
//!   processes. `docs/adding-a-broker.md` in the repository tells how to add another.
//! - [`Destination`]s are topics, which every group that subscribes gets a copy of, and queues, of which each message
//!   goes to one consumer. [`TopicPattern`]s have `*` and `#`.
//! - [`Publisher`] writes values with the headers that every message should carry; [`Router`] brings messages to
//!   handlers; [`Requester`] asks and waits for an answer; [`EventBus`] is the one of many Node services.
//!   [`Messaging`] is all of them over one broker.
//! - [`inbox`] remembers what was done, so that it is done once; [`DeadLetters`] shows, replays and removes what no
//!   attempt could handle.
//! - [`TopicPolicies`] says which settings hold for which topic; [`Prefix`] keeps environments on one broker apart.
//!
//! # Features
//! - `protection`: [messages encrypted and signed](protection). Off by default.
//! - `compression`: [payloads compressed](compression) by zstd and gzip. Off by default.
//! - `json-schema`: [payloads that keep a JSON Schema](schema). Off by default.
//!
//! Brokers are crates of their own.
//!
//! # Guarantees
//! - **Delivery** is at least once on a broker with the capability `redelivery`. A handler sees a message again after a
//!   crash, a lost connection, or its own failure; with an [`inbox`] the second time is recognised, within the time that
//!   the inbox remembers. Nothing gives exactly-once effects outside of a transaction that holds both the effect and the
//!   record.
//! - **A confirmed publish** is with the broker as durably as it claims. A publish that fails may have happened, unless
//!   its error says `Retry::Safe`; the publish policy repeats it under the same id.
//! - **Order** holds within a key, and only there; also under redelivery, on brokers that order by key and redeliver
//!   with a delay. A replayed dead letter comes after what overtook it.
//! - **A failing message** is tried `max_attempts` times, counted across crashes where the broker counts, and is then a
//!   dead letter. One that cannot be read is a dead letter at once.
//! - **Cancellation**: a handler is dropped at its timeout, when its message is lost to another consumer, and at the end
//!   of a drain. Public futures say what dropping them means.
//! - **Bounds**: prefetch and concurrency bound what a consumer holds; the in-memory broker and inbox are bounded in
//!   count and bytes, and make publishers wait.
//!
//! # See also
//! `trunkline-sqlite` (durable, shared by the processes of a machine), `trunkline-events` (the relay that publishes what
//! was appended), `trunkline-testing` (the suites that every broker passes), `trunkline-resilience` (the policies).

mod asyncapi;
mod broker;
mod capabilities;
pub mod claim;
pub mod cloudevents;
pub mod codec;
pub mod compression;
mod config;
mod dead_letters;
mod delivery;
mod erased;
pub mod inbox;
pub mod memory;
mod message;
mod messaging;
mod patterns;
mod policies;
mod prefix;
pub mod protection;
mod publisher;
mod router;
pub mod schema;
mod subscription;
pub mod supervisor;
mod surroundings;
mod topic;
mod typed;
mod wire;

pub use asyncapi::AsyncApi;
pub use broker::{Browse, BrowsePage, MessageBroker, QueueInfo, StoredMessage};
pub use capabilities::{Capabilities, OrderingGuarantee};
pub use config::{ConsumePolicy, MessageBrokerConfig, PublishPolicy, TopicPolicy};
pub use dead_letters::{
    DeadLetter, DeadLetters, Edit, LetterFilter, LetterPage, Replay, ReplayReport,
};
pub use delivery::{Delivery, DeliveryInfo, Settle, Settlement};
pub use erased::AnyBroker;
pub use message::{Message, Publish, Receipt, Routed};
pub use messaging::{Messaging, MessagingBuilder};
pub use patterns::{Envelope, EventBus, Requester};
pub use policies::{ConsumeSettings, PublishSettings, SamePolicies, TopicPolicies};
pub use prefix::Prefix;
pub use publisher::{Outgoing, Publisher};
#[cfg(feature = "protobuf")]
pub use router::ViaProtobuf;
pub use router::{
    AnyMiddleware, Attempt, Extract, Handled, Handler, HandlerError, Headers, Incoming, IntoAnswer,
    IntoOutcome, Listening, MessageKey, Middleware, Next, Router, Subscribing, Upgrades, ViaPart,
    ViaPayload,
};
pub use subscription::{Start, Subscribe, Subscription, SubscriptionState};
pub use topic::{Destination, Source, TopicName, TopicPattern};
pub use typed::{Accepts, Listen, Queue, To, Topic, Typed, Untyped};
