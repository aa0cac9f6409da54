//! Mocks of interfaces: they answer as a test says, and tell what was called and should not have been.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Matches<A> = Box<dyn Fn(&A) -> bool + Send>;
type Answers<A, T, E> = Box<dyn FnMut(A) -> Result<T, E> + Send>;

/// One method of a mock. Clones are the same. When the last one goes, calls that were expected and did not come end the
/// test, unless it is failing already.
pub struct Stub<A, T, E>(Arc<Checked<A, T, E>>);

struct Checked<A, T, E>(Mutex<State<A, T, E>>);

struct State<A, T, E> {
    method: &'static str,
    expectations: Vec<Expectation<A, T, E>>,
    calls: Vec<String>,
    unexpected: Vec<String>,
}

struct Expectation<A, T, E> {
    /// What is expected, for messages.
    what: String,
    matches: Option<Matches<A>>,
    least: usize,
    most: usize,
    seen: usize,
    answers: Answers<A, T, E>,
}

impl<A, T, E> Clone for Stub<A, T, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A, T, E> fmt::Debug for Stub<A, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state();
        f.debug_struct("Stub")
            .field("method", &state.method)
            .field("calls", &state.calls)
            .finish_non_exhaustive()
    }
}

impl<A, T, E> Stub<A, T, E> {
    /// A method that nobody may call yet.
    #[must_use]
    pub fn new(method: &'static str) -> Self {
        Self(Arc::new(Checked(Mutex::new(State {
            method,
            expectations: Vec::new(),
            calls: Vec::new(),
            unexpected: Vec::new(),
        }))))
    }

    /// Begins to say which call is expected, and what it is answered.
    pub fn expect(&self) -> Expect<'_, A, T, E> {
        Expect {
            stub: self,
            what: "any arguments".to_owned(),
            matches: None,
            times: (0, usize::MAX),
        }
    }

    /// The arguments of every call so far, as `Debug` writes them.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.0.state().calls.clone()
    }

    /// What is not as expected.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.0.state().problems()
    }

    /// Answers a call by the first expectation that fits and is not used up.
    ///
    /// # Errors
    /// What the expectation says.
    ///
    /// # Panics
    /// When no call with these arguments is expected (any more): the test is wrong, or what it tests.
    pub fn call(&self, arguments: A) -> Result<T, E>
    where
        A: fmt::Debug,
    {
        let mut state = self.0.state();
        let text = format!("{arguments:?}");
        state.calls.push(text.clone());
        let fits = |one: &Expectation<A, T, E>| {
            one.seen < one.most
                && one
                    .matches
                    .as_ref()
                    .is_none_or(|matches| matches(&arguments))
        };
        let found = state.expectations.iter_mut().find(|one| fits(one));
        if let Some(expectation) = found {
            expectation.seen += 1;
            return (expectation.answers)(arguments);
        }
        let problem = state.describe(&text);
        state.unexpected.push(problem.clone());
        drop(state);
        panic!("{problem}");
    }
}

impl<A, T, E> Checked<A, T, E> {
    fn state(&self) -> MutexGuard<'_, State<A, T, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A, T, E> Drop for Checked<A, T, E> {
    fn drop(&mut self) {
        let problems = self.state().problems();
        if !problems.is_empty() && !std::thread::panicking() {
            panic!("{}", problems.join("\n"));
        }
    }
}

impl<A, T, E> State<A, T, E> {
    fn problems(&self) -> Vec<String> {
        let missing = self.expectations.iter().filter(|one| one.seen < one.least);
        let missing = missing.map(|one| {
            format!(
                "{} with {} was expected {}, and came {}; calls so far: {}",
                self.method,
                one.what,
                times(one.least, one.most),
                count(one.seen),
                listed(&self.calls)
            )
        });
        self.unexpected.iter().cloned().chain(missing).collect()
    }

    fn describe(&self, arguments: &str) -> String {
        let known = self.expectations.iter().map(|one| {
            let (what, times) = (&one.what, times(one.least, one.most));
            format!("{what}, {times}, came {}", count(one.seen))
        });
        let known: Vec<String> = known.collect();
        format!(
            "{} was called with {arguments}, which is not expected; expected: {}",
            self.method,
            listed(&known)
        )
    }
}

fn listed(all: &[String]) -> String {
    match all {
        [] => "nothing".to_owned(),
        all => all.join("; "),
    }
}

fn times(least: usize, most: usize) -> String {
    match (least, most) {
        (0, usize::MAX) => "any number of times".to_owned(),
        (least, usize::MAX) => format!("at least {}", count(least)),
        (least, most) if least == most => count(least),
        (0, most) => format!("at most {}", count(most)),
        (least, most) => format!("{least} to {most} times"),
    }
}

fn count(number: usize) -> String {
    match number {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        number => format!("{number} times"),
    }
}

/// An expectation that is being said; it holds once it is said what it is answered.
#[must_use = "say what is answered: returns, fails or answers"]
pub struct Expect<'s, A, T, E> {
    stub: &'s Stub<A, T, E>,
    what: String,
    matches: Option<Matches<A>>,
    times: (usize, usize),
}

impl<A, T, E> fmt::Debug for Expect<'_, A, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expect")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

impl<A, T, E> Expect<'_, A, T, E> {
    /// Only calls with these arguments: one value, or a tuple where there are several.
    pub fn with(mut self, arguments: A) -> Self
    where
        A: PartialEq + fmt::Debug + Send + 'static,
    {
        self.what = format!("{arguments:?}");
        self.matches = Some(Box::new(move |given| *given == arguments));
        self
    }

    /// Only calls with arguments of which this holds.
    pub fn when(mut self, matches: impl Fn(&A) -> bool + Send + 'static) -> Self {
        "arguments that fit a condition".clone_into(&mut self.what);
        self.matches = Some(Box::new(matches));
        self
    }

    /// So many calls: `1`, `..=2`, `1..`. Default: any number.
    pub fn times(mut self, times: impl Times) -> Self {
        self.times = times.bounds();
        self
    }

    /// Exactly one call.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// No call.
    pub fn never(self)
    where
        A: 'static,
    {
        // Whatever fits it is told at once, as an expectation that is used up.
        self.times(0).answers(|_| unreachable!("no call fits it"));
    }

    /// Answers each call with this value.
    pub fn returns(self, value: T)
    where
        T: Clone + Send + 'static,
    {
        self.answers(move |_| Ok(value.clone()));
    }

    /// Fails each call with the error that this makes.
    pub fn fails(self, mut error: impl FnMut() -> E + Send + 'static) {
        self.answers(move |_| Err(error()));
    }

    /// Answers each call with what this makes of its arguments.
    pub fn answers(self, answers: impl FnMut(A) -> Result<T, E> + Send + 'static) {
        let (least, most) = self.times;
        let expectation = Expectation {
            what: self.what,
            matches: self.matches,
            least,
            most,
            seen: 0,
            answers: Box::new(answers),
        };
        self.stub.0.state().expectations.push(expectation);
    }
}

/// How often a call is expected: a number or a range.
pub trait Times {
    /// The least and the most.
    fn bounds(self) -> (usize, usize);
}

impl Times for usize {
    fn bounds(self) -> (usize, usize) {
        (self, self)
    }
}

macro_rules! ranges {
    ($($kind:ty),*) => {$(
        impl Times for $kind {
            fn bounds(self) -> (usize, usize) {
                let least = match self.start_bound() {
                    Bound::Included(least) => *least,
                    Bound::Excluded(before) => before.saturating_add(1),
                    Bound::Unbounded => 0,
                };
                let most = match self.end_bound() {
                    Bound::Included(most) => *most,
                    Bound::Excluded(after) => after.saturating_sub(1),
                    Bound::Unbounded => usize::MAX,
                };
                (least, most)
            }
        }
    )*};
}

ranges!(
    std::ops::Range<usize>,
    std::ops::RangeFrom<usize>,
    std::ops::RangeInclusive<usize>,
    std::ops::RangeToInclusive<usize>,
    std::ops::RangeTo<usize>
);
