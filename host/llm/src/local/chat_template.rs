//! The chat template of a model, applied so that a text cannot end its message.
//!
//! The template is rendered once around two markers and split at them. The parts between the markers are tokenized with the
//! model's special tokens for the beginnings and ends of messages. The inserted texts are tokenized without special tokens, so
//! that `<|im_end|>` in a document is ten characters and does not end the message. Rendering each request as a whole would be
//! simpler, but a document could then insert special tokens.

use llama_cpp_2::model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel};
use llama_cpp_2::token::LlamaToken;

/// Markers for the texts when the template is rendered. Templates do not contain them and do not change them.
const SYSTEM_MARKER: &str = "weir-system-9f2c41d7";
const USER_MARKER: &str = "weir-user-5b80e3aa";

/// The parts of a model's chat template.
pub(super) struct ChatTemplate {
    /// The parts before and after the user's message.
    around_user: [String; 2],
    /// The parts around the system prompt and the user's message. `None` if the template has no system prompt; it is then put
    /// before the user's message.
    around_system_and_user: Option<[String; 3]>,
}

impl ChatTemplate {
    /// Reads the template from the model's file.
    pub(super) fn from_model(model: &LlamaModel) -> Result<Self, String> {
        let template = model
            .chat_template(None)
            .map_err(|_| "has no chat template: use a model that was tuned to follow instructions")?;
        let render = |messages: &[(&str, &str)]| render_template(model, &template, messages);
        let plain = render(&[("user", USER_MARKER)])
            .ok_or("has a chat template that llama.cpp does not know: use another model")?;
        let (before, after) =
            split_at_marker(&plain, USER_MARKER).ok_or("has a chat template without the user's message")?;
        let both = render(&[("system", SYSTEM_MARKER), ("user", USER_MARKER)]);
        let with_system = both.and_then(|both| {
            let (before, rest) = split_at_marker(&both, SYSTEM_MARKER)?;
            let (between, after) = split_at_marker(rest, USER_MARKER)?;
            Some([before.to_owned(), between.to_owned(), after.to_owned()])
        });
        Ok(Self {
            around_user: [before.to_owned(), after.to_owned()],
            around_system_and_user: with_system,
        })
    }

    /// Returns the tokens of a request up to the beginning of the response.
    pub(super) fn tokenize_chat_request(
        &self,
        model: &LlamaModel,
        system: Option<&str>,
        user: &str,
    ) -> Vec<LlamaToken> {
        let vocab = model.vocab();
        let mut tokens = Vec::new();
        if vocab.should_add_bos() {
            tokens.push(vocab.bos());
        }
        let tokenize_with_special =
            |text: &str, tokens: &mut Vec<_>| vocab.tokenize_into(text.as_bytes(), tokens, false, true);
        let tokenize_plain =
            |text: &str, tokens: &mut Vec<_>| vocab.tokenize_into(text.as_bytes(), tokens, false, false);
        match (system, &self.around_system_and_user) {
            (Some(system), Some([before, between, after])) => {
                tokenize_with_special(before, &mut tokens);
                tokenize_plain(system, &mut tokens);
                tokenize_with_special(between, &mut tokens);
                tokenize_plain(user, &mut tokens);
                tokenize_with_special(after, &mut tokens);
            }
            (system, _) => {
                let [before, after] = &self.around_user;
                tokenize_with_special(before, &mut tokens);
                if let Some(system) = system {
                    tokenize_plain(&format!("{system}\n\n"), &mut tokens);
                }
                tokenize_plain(user, &mut tokens);
                tokenize_with_special(after, &mut tokens);
            }
        }
        tokens
    }
}

fn render_template(
    model: &LlamaModel,
    template: &LlamaChatTemplate,
    messages: &[(&str, &str)],
) -> Option<String> {
    let messages: Result<Vec<_>, _> = messages
        .iter()
        .map(|(role, content)| LlamaChatMessage::new((*role).into(), (*content).into()))
        .collect();
    model.apply_chat_template(template, &messages.ok()?, true).ok()
}

/// Splits a text at a marker that must occur exactly once.
fn split_at_marker<'a>(text: &'a str, marker: &str) -> Option<(&'a str, &'a str)> {
    text.split_once(marker)
        .filter(|(_, after)| !after.contains(marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_is_split_only_at_a_unique_marker() {
        assert_eq!(
            split_at_marker("<u>weir-user-5b80e3aa</u>", USER_MARKER),
            Some(("<u>", "</u>"))
        );
        assert_eq!(split_at_marker("<u></u>", USER_MARKER), None);
        assert_eq!(
            split_at_marker(&format!("{USER_MARKER}{USER_MARKER}"), USER_MARKER),
            None
        );
    }
}
