//! Limits passages by characters and by estimated tokens.
//!
//! The tokens are estimated from the characters. An exact count would need the model's tokenizer and the capability to call it, but
//! the figure only has to keep passages within the model's limit. The weights were fitted to the tokenizer of all-MiniLM-L6-v2
//! (BERT's English word pieces). For English prose, tables, source code, Russian, Greek, Arabic and Chinese, the estimate differs
//! from the count by about 10 %.

/// The share of a passage that each kind of character takes, which limits characters and tokens at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PassageBudget {
    space: f64,
    letter: f64,
    digit: f64,
    other: f64,
}

impl PassageBudget {
    /// Creates a budget of characters and estimated tokens for passages of a text.
    pub(crate) fn new(chars: u32, tokens: u32, text: &str) -> Self {
        let char = 1.0 / f64::from(chars);
        let share = |of_token: f64| char.max(of_token / f64::from(tokens));
        Self {
            space: char,
            // The vocabulary contains whole English words. Other languages with the same letters have 2.3 (Polish) to 2.95
            // (Spanish) characters per token.
            letter: share(if is_english(text) { 0.25 } else { 0.4 }),
            digit: share(0.5),
            // Punctuation, or a letter of a script for which the vocabulary contains little more than single letters.
            other: share(1.0),
        }
    }

    /// Creates a budget of characters only.
    pub(crate) fn of_chars(chars: u32) -> Self {
        let char = 1.0 / f64::from(chars);
        Self {
            space: char,
            letter: char,
            digit: char,
            other: char,
        }
    }

    /// Returns a budget for passages of twice the size.
    pub(crate) fn doubled(self) -> Self {
        Self {
            space: self.space / 2.0,
            letter: self.letter / 2.0,
            digit: self.digit / 2.0,
            other: self.other / 2.0,
        }
    }

    /// Returns the share of a passage that a character takes.
    pub(crate) fn char_share(&self, c: char) -> f64 {
        match c {
            'a'..='z' | 'A'..='Z' => self.letter,
            ' ' | '\n' => self.space,
            // Accented Latin letters take more tokens, because the vocabulary contains them only without accents.
            '0'..='9' | '\u{c0}'..='\u{24f}' => self.digit,
            _ if c.is_whitespace() => self.space,
            _ => self.other,
        }
    }
}

/// Returns whether a text is English, from the frequency of common words in its first 1000 words. The result matters little for short
/// texts, whose passages are short anyway.
fn is_english(text: &str) -> bool {
    let (mut words, mut english) = (0_u32, 0_u32);
    for word in text.split_ascii_whitespace().take(1000) {
        words += 1;
        english += u32::from(matches!(
            word,
            "the" | "The" | "and" | "of" | "to" | "is" | "that" | "with"
        ));
    }
    english * 25 > words
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLISH: &str =
        "The weir is a structure that holds back a river and regulates its level with gates of steel. ";
    const SPANISH: &str =
        "La presa es una obra que retiene un río y regula el nivel del agua con compuertas de acero. ";

    #[test]
    fn characters_limit_prose_and_tokens_limit_dense_text() {
        let budget = PassageBudget::new(900, 230, ENGLISH);
        let share = |text: &str| text.chars().map(|c| budget.char_share(c)).sum::<f64>();
        assert!((share(&"word ".repeat(180)) - 1.0).abs() < 0.05);
        assert!(share(&"12345 ".repeat(150)) > 1.5);
        assert!(share(&"漢".repeat(230)) > 0.99);
    }

    #[test]
    fn words_outside_the_vocabulary_take_a_larger_share() {
        let share = |text: &str| {
            let budget = PassageBudget::new(900, 230, text);
            text.repeat(10).chars().map(|c| budget.char_share(c)).sum::<f64>()
        };
        assert!(share(ENGLISH) < 1.1 && share(SPANISH) > 1.2);
    }
}
