//! How large a text is to a reader and to a model.
//!
//! The tokens are estimated from the characters: counting them would take the model's own tokenizer, and the right to call
//! it, for a figure that only has to keep a passage from growing past what the model sees. The weights were fitted to the
//! tokenizer of all-MiniLM-L6-v2 (BERT's English word pieces): over English prose, tables, source text, Russian, Greek,
//! Arabic and Chinese the estimate is within a tenth or so of the count.

/// Characters and tokens a passage may have, as the share of a passage that each character takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Room {
    space: f64,
    letter: f64,
    digit: f64,
    other: f64,
}

impl Room {
    /// Room in a text for characters and tokens.
    pub(crate) fn new(chars: u32, tokens: u32, text: &str) -> Self {
        let char = 1.0 / f64::from(chars);
        let share = |of_token: f64| char.max(of_token / f64::from(tokens));
        Self {
            space: char,
            // The vocabulary holds English words whole. Other languages that are written with the same letters come to 2.3
            // (Polish) to 2.95 (Spanish) characters a token.
            letter: share(if is_english(text) { 0.25 } else { 0.4 }),
            digit: share(0.5),
            // A mark, or a letter of a script of which the vocabulary knows little more than its letters.
            other: share(1.0),
        }
    }

    /// Room for characters alone.
    pub(crate) fn chars(chars: u32) -> Self {
        let char = 1.0 / f64::from(chars);
        Self {
            space: char,
            letter: char,
            digit: char,
            other: char,
        }
    }

    /// Twice the room.
    pub(crate) fn doubled(self) -> Self {
        Self {
            space: self.space / 2.0,
            letter: self.letter / 2.0,
            digit: self.digit / 2.0,
            other: self.other / 2.0,
        }
    }

    /// The share of a passage that a character takes.
    pub(crate) fn share(&self, c: char) -> f64 {
        match c {
            'a'..='z' | 'A'..='Z' => self.letter,
            ' ' | '\n' => self.space,
            // Accented Latin letters cost more than others: the vocabulary knows them without their accents.
            '0'..='9' | '\u{c0}'..='\u{24f}' => self.digit,
            _ if c.is_whitespace() => self.space,
            _ => self.other,
        }
    }
}

/// Whether a text is English, by the words every English text is full of. Told from its beginning; where there is too little
/// to tell from, passages are short anyhow.
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
    fn characters_bound_prose_and_tokens_bound_what_is_dense() {
        let room = Room::new(900, 230, ENGLISH);
        let share = |text: &str| text.chars().map(|c| room.share(c)).sum::<f64>();
        assert!((share(&"word ".repeat(180)) - 1.0).abs() < 0.05);
        assert!(share(&"12345 ".repeat(150)) > 1.5);
        assert!(share(&"漢".repeat(230)) > 0.99);
    }

    #[test]
    fn words_that_the_vocabulary_does_not_hold_take_more_room() {
        let share = |text: &str| {
            let room = Room::new(900, 230, text);
            text.repeat(10).chars().map(|c| room.share(c)).sum::<f64>()
        };
        assert!(share(ENGLISH) < 1.1 && share(SPANISH) > 1.2);
    }
}
