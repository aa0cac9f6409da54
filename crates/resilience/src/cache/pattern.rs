//! Text with the names of parameters in braces, which a call fills in.

/// Text with the names of parameters in braces: `product:{product_id}`.
///
/// ```
/// use trunkline_resilience::cache::Pattern;
///
/// let product = |name: &str| (name == "product_id").then(|| "42".to_owned());
/// assert_eq!(Pattern::fill("product:{product_id}", product).as_deref(), Ok("product:42"));
/// assert_eq!(Pattern::fill("user:{id}", product), Err("id"));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Pattern;

impl Pattern {
    /// Whether text is a pattern: not empty, each brace closed, each name of letters, digits, `_`, `-`, `.` and `:`.
    #[must_use]
    pub fn fits(text: &str) -> bool {
        !text.is_empty() && Self::fill(text, |name| is_name(name).then(String::new)).is_ok()
    }

    /// Puts the value of each parameter in its place. What is a value is written so that it cannot be taken for text
    /// of the pattern: `%` as `%25`, `:` as `%3A`.
    ///
    /// # Errors
    /// The name that has no value, or what is no name.
    pub fn fill(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> Result<String, &str> {
        let mut filled = String::with_capacity(text.len() + 16);
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or(after)?;
            if before.contains('}') {
                return Err(before);
            }
            filled.push_str(before);
            let value = value(name).ok_or(name)?;
            for letter in value.chars() {
                match letter {
                    '%' => filled.push_str("%25"),
                    ':' => filled.push_str("%3A"),
                    letter => filled.push(letter),
                }
            }
            rest = behind;
        }
        if rest.contains('}') {
            return Err(rest);
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_closed_and_hold_names() {
        for (text, fits) in [
            ("products", true),
            ("product:{id}", true),
            ("{a}{b}", true),
            ("lang:{header:accept-language}", true),
            ("", false),
            ("product:{", false),
            ("product:{id", false),
            ("product:id}", false),
            ("a}b{id}", false),
            ("{}", false),
            ("{a b}", false),
            ("{{id}}", false),
        ] {
            assert_eq!(Pattern::fits(text), fits, "{text}");
        }
    }

    #[test]
    fn values_cannot_pretend_to_be_text_of_the_pattern() {
        let fill = |a: &'static str, b: &'static str| {
            let value = move |name: &str| Some(if name == "a" { a } else { b }.to_owned());
            Pattern::fill("{a}:{b}", value).unwrap()
        };
        assert_ne!(fill("x:y", "z"), fill("x", "y:z"));
        assert_ne!(fill("x%3Ay", "z"), fill("x:y", "z"));
        assert_eq!(fill("x", "y"), "x:y");
    }
}
