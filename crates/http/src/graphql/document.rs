//! What operations a GraphQL document has: enough of its grammar to know which one is asked for and what it does.

use trunkline_core::{Error, Result};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    Mutation,
    Subscription,
}

/// One operation of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation<'d> {
    pub(super) kind: Kind,
    /// `None` where it has no name.
    pub(super) name: Option<&'d str>,
}

/// The operation that a request asks for: the one by that name, or the only one.
///
/// # Errors
/// `Invalid` when there is none, or several and no name.
pub(super) fn choose<'d>(document: &'d str, name: Option<&str>) -> Result<Operation<'d>> {
    let all = operations(document);
    let wrong = |what: String| Err(Error::invalid(format!("GraphQL: {what}")));
    match name {
        Some(name) => {
            let known = all.iter().find(|operation| operation.name == Some(name));
            match known {
                Some(operation) => Ok(operation.clone()),
                None => wrong(format!("the document has no operation `{name}`")),
            }
        }
        None => match all.as_slice() {
            [only] => Ok(only.clone()),
            [] => wrong("the document has no operation; write `query Name { … }`".to_owned()),
            several => wrong(format!(
                "the document has {} operations; say which one by `operation`",
                several.len()
            )),
        },
    }
}

/// Every operation at the top of a document. What is no GraphQL is left for the server to refuse.
fn operations(document: &str) -> Vec<Operation<'_>> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut begun: Option<Operation<'_>> = None;
    // Whether a name at the top belongs to a fragment.
    let mut fragment = false;
    let mut tokens = Tokens(document);
    while let Some(token) = tokens.next() {
        match token {
            Token::Open => {
                if depth == 0 && !fragment {
                    let anonymous = Operation {
                        kind: Kind::Query,
                        name: None,
                    };
                    found.push(begun.take().unwrap_or(anonymous));
                }
                depth += 1;
            }
            Token::Close => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    fragment = false;
                }
            }
            // Variables and directives, whose values may hold braces.
            Token::Arguments => tokens.skip_arguments(),
            Token::Name(_) if depth > 0 || fragment => {}
            Token::Name("fragment") if begun.is_none() => fragment = true,
            Token::Name(word) => match &mut begun {
                None => {
                    let kind = match word {
                        "query" => Kind::Query,
                        "mutation" => Kind::Mutation,
                        "subscription" => Kind::Subscription,
                        _ => continue,
                    };
                    begun = Some(Operation { kind, name: None });
                }
                Some(operation) => drop(operation.name.get_or_insert(word)),
            },
            // A name of a directive is none of an operation.
            Token::Directive => drop(tokens.next()),
        }
    }
    found
}

enum Token<'d> {
    Name(&'d str),
    Open,
    Close,
    Arguments,
    Directive,
}

/// What is left of a document.
struct Tokens<'d>(&'d str);

impl<'d> Tokens<'d> {
    fn next(&mut self) -> Option<Token<'d>> {
        loop {
            let first = self.0.chars().next()?;
            match first {
                '{' => return self.one(Token::Open),
                '}' => return self.one(Token::Close),
                '(' => return self.one(Token::Arguments),
                '@' => return self.one(Token::Directive),
                '#' => self.skip_until(&['\n', '\r']),
                '"' => self.skip_string(),
                first if first.is_ascii_alphabetic() || first == '_' => {
                    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
                    let (name, rest) = self.0.split_at(end);
                    self.0 = rest;
                    return Some(Token::Name(name));
                }
                other => self.advance(other.len_utf8()),
            }
        }
    }

    fn one(&mut self, token: Token<'d>) -> Option<Token<'d>> {
        self.advance(1);
        Some(token)
    }

    fn advance(&mut self, bytes: usize) {
        self.0 = self.0.get(bytes..).unwrap_or_default();
    }

    fn skip_until(&mut self, ends: &[char]) {
        let end = self.0.find(ends).unwrap_or(self.0.len());
        self.advance(end);
    }

    /// Everything up to the parenthesis that closes the one that was just read.
    fn skip_arguments(&mut self) {
        let mut depth = 1_usize;
        while let Some(first) = self.0.chars().next() {
            match first {
                '"' => {
                    self.skip_string();
                    continue;
                }
                '#' => {
                    self.skip_until(&['\n', '\r']);
                    continue;
                }
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            self.advance(first.len_utf8());
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_string(&mut self) {
        if let Some(block) = self.0.strip_prefix("\"\"\"") {
            self.0 = block;
            loop {
                match self.0.find("\"\"\"") {
                    None => self.0 = "",
                    // `\"""` is no end.
                    Some(end) if self.0.get(..end).is_some_and(|text| text.ends_with('\\')) => {
                        self.advance(end + 3);
                        continue;
                    }
                    Some(end) => self.advance(end + 3),
                }
                return;
            }
        }
        self.advance(1);
        while let Some(first) = self.0.chars().next() {
            self.advance(first.len_utf8());
            match first {
                '\\' => {
                    let escaped = self.0.chars().next().map_or(0, char::len_utf8);
                    self.advance(escaped);
                }
                '"' | '\n' | '\r' => return,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(document: &str) -> (Kind, Option<&str>) {
        let operation = choose(document, None).unwrap();
        (operation.kind, operation.name)
    }

    #[test]
    fn the_only_operation_is_found() {
        for (document, kind, name) in [
            ("{ user { name } }", Kind::Query, None),
            ("query { a }", Kind::Query, None),
            (
                "query User($id: ID!) { user(id: $id) { name } }",
                Kind::Query,
                Some("User"),
            ),
            (
                "mutation Add{ add(a: \"}{\") }",
                Kind::Mutation,
                Some("Add"),
            ),
            ("subscription S { s }", Kind::Subscription, Some("S")),
            ("# query No {}\nmutation M { m }", Kind::Mutation, Some("M")),
            (
                "query Q($a: I = {b: {c: 1}}) @d(e: {f: 1}) { a }",
                Kind::Query,
                Some("Q"),
            ),
            ("query @d { a }", Kind::Query, None),
            (
                "fragment query on User { name } mutation M { m { ...query } }",
                Kind::Mutation,
                Some("M"),
            ),
            (
                "query Q { a(t: \"\"\"mutation { \\\"\"\" }\"\"\") }",
                Kind::Query,
                Some("Q"),
            ),
            ("query mutation { a }", Kind::Query, Some("mutation")),
        ] {
            assert_eq!(one(document), (kind, name), "{document}");
        }
    }

    #[test]
    fn of_several_the_named_one_is_taken() {
        let document = "query A { a } mutation B { b }";
        assert_eq!(choose(document, Some("B")).unwrap().kind, Kind::Mutation);
        for (document, name, wrong) in [
            (document, None, "2 operations"),
            (document, Some("C"), "no operation `C`"),
            ("fragment F on A { a }", None, "no operation"),
            ("", None, "no operation"),
        ] {
            let error = choose(document, name).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[a-z{}()\"#\\\\@\n é…]{0,60}") {
            operations(&text);
        }
    }
}
