//! Event and command models, the EventStore contract, and the relay that publishes what was appended.
