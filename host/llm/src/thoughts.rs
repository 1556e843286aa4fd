//! Models that reason aloud are not all served by who keeps that apart from the answer.

/// An answer without the thoughts before it.
pub(crate) fn without(text: &str) -> &str {
    let Some(thoughts) = text.trim_start().strip_prefix("<think>") else {
        return text;
    };
    thoughts.split_once("</think>").map_or("", |(_, answer)| answer)
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn thoughts_are_left_out() {
        assert_eq!(without("\n<think>hm\n</think>\nSo."), "\nSo.");
        assert_eq!(without("<think>endless"), "");
        assert_eq!(without("I <think> so"), "I <think> so");
    }
}
