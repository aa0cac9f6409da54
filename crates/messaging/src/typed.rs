//! Topics and queues that know what travels through them.

use std::fmt;
use std::marker::PhantomData;

use trunkline_core::Result;

use crate::topic::{Destination, Source, TopicName, TopicPattern, is_name};

macro_rules! typed {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        pub struct $name<T: ?Sized> {
            name: &'static str,
            payload: PhantomData<fn(&T)>,
        }

        impl<T: ?Sized> $name<T> {
            /// Names it.
            ///
            /// # Panics
            /// When the name does not follow the grammar of [`TopicName`]; in a constant that is a compile error.
            #[must_use]
            pub const fn new(name: &'static str) -> Self {
                assert!(is_name(name), concat!("not the name of a ", $what));
                Self { name, payload: PhantomData }
            }

            /// Its name.
            ///
            /// # Panics
            /// Never: it was checked when it was made.
            #[must_use]
            pub fn name(&self) -> TopicName {
                TopicName::new(self.name).expect("it was checked when it was made")
            }
        }

        impl<T: ?Sized> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T: ?Sized> Copy for $name<T> {}

        impl<T: ?Sized> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.name)
            }
        }
    };
}

typed! {
    /// A topic whose messages are all `T`, so that publisher and handler agree when they are compiled.
    ///
    /// ```
    /// use trunkline_messaging::Topic;
    ///
    /// struct UserCreated { id: u64 }
    /// const USER_CREATED: Topic<UserCreated> = Topic::new("user.created");
    /// assert_eq!(USER_CREATED.name().as_str(), "user.created");
    /// ```
    ///
    /// ```compile_fail
    /// # use trunkline_messaging::Topic;
    /// const WRONG: Topic<u64> = Topic::new("user..created");
    /// ```
    Topic, "topic"
}

typed! {
    /// A queue whose messages are all `T`.
    Queue, "queue"
}

/// Where a `T` may be published: a [`Topic<T>`](Topic), a [`Queue<T>`](Queue), or a name, which takes anything.
pub trait To<T: ?Sized> {
    /// The destination.
    ///
    /// # Errors
    /// `Invalid` when a text is not a name.
    fn destination(self) -> Result<Destination>;
}

impl<T: ?Sized> To<T> for Topic<T> {
    fn destination(self) -> Result<Destination> {
        Ok(Destination::Topic(self.name()))
    }
}

impl<T: ?Sized> To<T> for Queue<T> {
    fn destination(self) -> Result<Destination> {
        Ok(Destination::Queue(self.name()))
    }
}

impl<T: ?Sized> To<T> for &str {
    fn destination(self) -> Result<Destination> {
        TopicName::new(self).map(Destination::Topic)
    }
}

impl<T: ?Sized> To<T> for &String {
    fn destination(self) -> Result<Destination> {
        TopicName::new(self).map(Destination::Topic)
    }
}

impl<T: ?Sized> To<T> for TopicName {
    fn destination(self) -> Result<Destination> {
        Ok(Destination::Topic(self))
    }
}

impl<T: ?Sized> To<T> for &TopicName {
    fn destination(self) -> Result<Destination> {
        Ok(Destination::Topic(self.clone()))
    }
}

impl<T: ?Sized> To<T> for Destination {
    fn destination(self) -> Result<Destination> {
        Ok(self)
    }
}

/// The payload of a source that knows it: handlers take exactly this.
#[derive(Debug)]
pub struct Typed<T: ?Sized>(PhantomData<fn(&T)>);

/// The payload of a source that does not know it: handlers may take any.
#[derive(Debug)]
pub struct Untyped(());

/// What handlers of a source may take as the payload.
#[diagnostic::on_unimplemented(
    message = "handlers of this topic do not take `{T}`",
    note = "take the type that the topic or queue was declared with"
)]
pub trait Accepts<T>: 'static {}

impl<T: 'static> Accepts<T> for Typed<T> {}
impl<T> Accepts<T> for Untyped {}

/// Where messages may come from: a [`Topic`], a [`Queue`], a pattern, or text that is one.
pub trait Listen {
    /// [`Typed`] or [`Untyped`].
    type Payload: 'static;

    /// The source.
    ///
    /// # Errors
    /// `Invalid` when a text is neither a name nor a pattern.
    fn source(self) -> Result<Source>;
}

impl<T: 'static> Listen for Topic<T> {
    type Payload = Typed<T>;

    fn source(self) -> Result<Source> {
        Ok(Source::Topics(self.name().into()))
    }
}

impl<T: 'static> Listen for Queue<T> {
    type Payload = Typed<T>;

    fn source(self) -> Result<Source> {
        Ok(Source::Queue(self.name()))
    }
}

impl Listen for &str {
    type Payload = Untyped;

    fn source(self) -> Result<Source> {
        TopicPattern::new(self).map(Source::Topics)
    }
}

impl Listen for &String {
    type Payload = Untyped;

    fn source(self) -> Result<Source> {
        self.as_str().source()
    }
}

impl Listen for TopicPattern {
    type Payload = Untyped;

    fn source(self) -> Result<Source> {
        Ok(Source::Topics(self))
    }
}

impl Listen for TopicName {
    type Payload = Untyped;

    fn source(self) -> Result<Source> {
        Ok(Source::Topics(self.into()))
    }
}

impl Listen for Source {
    type Payload = Untyped;

    fn source(self) -> Result<Source> {
        Ok(self)
    }
}
