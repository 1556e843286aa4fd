//! How large a text is to a reader and to a model.
//!
//! The tokens are estimated from the characters: counting them would take the model's own tokenizer, and the right to call
//! it, for a figure that only has to keep a passage from growing past what the model sees.

/// Characters and tokens a passage may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Room {
    pub(crate) chars: f64,
    pub(crate) tokens: f64,
}

impl Room {
    /// Room for characters alone.
    pub(crate) fn chars(chars: u32) -> Self {
        Self {
            chars: f64::from(chars),
            tokens: f64::INFINITY,
        }
    }

    /// The share of the room that a character takes.
    pub(crate) fn share(&self, c: char) -> f64 {
        (1.0 / self.chars).max(tokens(c) / self.tokens)
    }
}

/// Tokens a character adds, on average, for the word pieces of BERT-like models.
fn tokens(c: char) -> f64 {
    match c {
        _ if c.is_whitespace() => 0.0,
        'a'..='z' | 'A'..='Z' => 0.25,
        '0'..='9' => 0.5,
        // accented Latin
        '\u{c0}'..='\u{24f}' => 0.5,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_bound_prose_and_tokens_bound_what_is_dense() {
        let room = Room {
            chars: 900.0,
            tokens: 230.0,
        };
        let share = |text: &str| text.chars().map(|c| room.share(c)).sum::<f64>();
        assert!((share(&"word ".repeat(180)) - 1.0).abs() < 0.05);
        assert!(share(&"12345 ".repeat(150)) > 1.5);
        assert!(share(&"漢".repeat(230)) > 0.99);
    }
}
