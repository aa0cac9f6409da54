//! The bare drivers, used as well as they can be.

pub(super) mod kafka;
pub(super) mod nats;
pub(super) mod rabbitmq;
pub(super) mod redis;
