//! Reasoning text of models. Some endpoints do not separate it from the response.

/// Removes leading reasoning text from a response.
pub(crate) fn strip_reasoning(text: &str) -> &str {
    let Some(thoughts) = text.trim_start().strip_prefix("<think>") else {
        return text;
    };
    thoughts.split_once("</think>").map_or("", |(_, answer)| answer)
}

#[cfg(test)]
mod tests {
    use super::strip_reasoning;

    #[test]
    fn reasoning_text_is_removed() {
        assert_eq!(strip_reasoning("\n<think>hm\n</think>\nSo."), "\nSo.");
        assert_eq!(strip_reasoning("<think>endless"), "");
        assert_eq!(strip_reasoning("I <think> so"), "I <think> so");
    }
}
