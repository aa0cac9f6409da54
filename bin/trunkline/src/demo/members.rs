//! The processes of the demo.

use std::fmt;

/// One process of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Member {
    /// Knows who may order.
    Users,
    /// Charges, once per key.
    Payments,
    /// Takes orders, keeps them as events, publishes them.
    Orders,
    /// Tells the customers, once each.
    Notifications,
    /// The way in.
    Gateway,
}

impl Member {
    /// Every process, those without dependencies first.
    pub(crate) const ALL: [Self; 5] = [
        Self::Users,
        Self::Payments,
        Self::Orders,
        Self::Notifications,
        Self::Gateway,
    ];

    /// The name on the command line and in the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Payments => "payments",
            Self::Orders => "orders",
            Self::Notifications => "notifications",
            Self::Gateway => "gateway",
        }
    }

    /// The name in discovery.
    pub(crate) const fn service(self) -> &'static str {
        match self {
            Self::Users => "user-service",
            Self::Payments => "payment-service",
            Self::Orders => "order-service",
            Self::Notifications => "notification-service",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
