//! Just enough of Rust's grammar to tell code from comments and strings.

/// The source with comments and the contents of literals replaced by spaces. Lines and columns stay
/// where they are (counted in characters).
pub(super) fn code_only(source: &str) -> String {
    let mut lexer = Lexer {
        rest: source.chars().collect(),
        at: 0,
        out: String::new(),
    };
    while lexer.at < lexer.rest.len() {
        lexer.step();
    }
    lexer.out
}

struct Lexer {
    rest: Vec<char>,
    at: usize,
    out: String,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest.get(self.at + ahead).copied()
    }

    fn looking_at(&self, text: &str) -> bool {
        text.chars()
            .enumerate()
            .all(|(i, c)| self.peek(i) == Some(c))
    }

    /// Copies one character.
    fn keep(&mut self) {
        self.out.extend(self.peek(0));
        self.at += 1;
    }

    /// Hides one character.
    fn blank(&mut self) {
        self.out
            .extend(self.peek(0).map(|c| if c == '\n' { c } else { ' ' }));
        self.at += 1;
    }

    fn step(&mut self) {
        let after_word = self
            .at
            .checked_sub(1)
            .and_then(|i| self.rest.get(i))
            .copied();
        let in_word = after_word.is_some_and(|c| c.is_alphanumeric() || c == '_');
        if self.looking_at("//") {
            while self.peek(0).is_some_and(|c| c != '\n') {
                self.blank();
            }
        } else if self.looking_at("/*") {
            self.block_comment();
        } else if let Some(hashes) = (!in_word).then(|| self.raw_string_hashes()).flatten() {
            self.raw_string(hashes);
        } else if self.peek(0) == Some('"') {
            self.quoted('"');
        } else if self.peek(0) == Some('\'') && self.is_character_literal() {
            self.quoted('\'');
        } else {
            self.keep();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.peek(0).is_some() {
            if self.looking_at("/*") {
                depth += 1;
                self.blank();
            } else if self.looking_at("*/") {
                depth -= 1;
                self.blank();
            }
            self.blank();
            if depth == 0 {
                return;
            }
        }
    }

    /// The number of `#` of a raw string that starts here (`r"`, `r#"`, `br#"`, `cr"`).
    fn raw_string_hashes(&self) -> Option<usize> {
        let prefix = if matches!(self.peek(0), Some('b' | 'c')) {
            1
        } else {
            0
        };
        if self.peek(prefix) != Some('r') {
            return None;
        }
        let hashes = (prefix + 1..)
            .take_while(|i| self.peek(*i) == Some('#'))
            .count();
        (self.peek(prefix + 1 + hashes) == Some('"')).then_some(hashes)
    }

    fn raw_string(&mut self, hashes: usize) {
        let end = format!("\"{}", "#".repeat(hashes));
        while self.peek(0).is_some_and(|c| c != '"') {
            self.blank();
        }
        self.blank();
        while self.peek(0).is_some() && !self.looking_at(&end) {
            self.blank();
        }
        for _ in 0..=hashes {
            if self.peek(0).is_some() {
                self.blank();
            }
        }
    }

    fn quoted(&mut self, quote: char) {
        self.keep();
        while let Some(c) = self.peek(0) {
            if c == quote {
                self.keep();
                return;
            }
            if c == '\\' {
                self.blank();
            }
            if self.peek(0).is_some() {
                self.blank();
            }
        }
    }

    /// `'a'` and `'\n'` are literals, `'a` is a lifetime.
    fn is_character_literal(&self) -> bool {
        self.peek(1) == Some('\\') || self.peek(2) == Some('\'')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn hides(source: &str) {
        let code = code_only(source);
        assert!(!code.contains("SECRET"), "{code}");
        assert!(code.contains("kept"), "{code}");
        assert_eq!(
            code.chars().count(),
            source.chars().count(),
            "positions moved"
        );
        assert_eq!(
            code.matches('\n').count(),
            source.matches('\n').count(),
            "lines moved"
        );
    }

    #[test]
    fn comments_and_literals_are_hidden() {
        hides("// SECRET\nkept");
        hides("/* SECRET /* nested SECRET */ SECRET */ kept");
        hides("\"SECRET \\\" SECRET\" kept");
        hides("r\"SECRET\\\" kept");
        hides("r#\"SECRET \" SECRET\"# kept");
        hides("br##\"SECRET \"# SECRET\"## kept");
        hides("'\"' kept /* SECRET */ '\\'' kept // SECRET");
        hides("\"é→ SECRET\nSECRET\" kept");
    }

    #[test]
    fn code_stays() {
        for code in [
            "fn f<'a>(x: &'a str) -> &'a str { x }",
            "let r = bar; for_r(\"\");",
            "r#type.call()",
            "'outer: loop { break 'outer }",
        ] {
            assert_eq!(code_only(code), code);
        }
    }

    #[test]
    fn unfinished_source_ends() {
        for source in ["\"abc", "/* abc", "r#\"abc", "'\\", "\"\\", "'"] {
            assert_eq!(
                code_only(source).chars().count(),
                source.chars().count(),
                "{source}"
            );
        }
    }
}
