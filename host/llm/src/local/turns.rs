//! A question in the words of a model: its chat template, filled in so that no text can leave its turn.
//!
//! A template is rendered once, around two markers, and cut at them. What stands between is read with the model's own marks for the
//! beginnings and ends of turns; what is put in is read without, so that a document that writes `<|im_end|>` has written ten
//! characters and not ended its turn. Rendering each question whole would save the cutting and hand the document the pen.

use llama_cpp_2::model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel};
use llama_cpp_2::token::LlamaToken;

/// Stand for what is said, where the template is rendered. No template has them, and none changes them.
const SYSTEM: &str = "weir-system-9f2c41d7";
const USER: &str = "weir-user-5b80e3aa";

/// How a model is talked to.
pub(super) struct Turns {
    /// Around what the user says.
    plain: [String; 2],
    /// Around what the system says and the user says; without one the system's words go before the user's.
    with_system: Option<[String; 3]>,
}

impl Turns {
    /// The template in a model's file.
    pub(super) fn of(model: &LlamaModel) -> Result<Self, String> {
        let template = model
            .chat_template(None)
            .map_err(|_| "has no chat template: use a model that was tuned to follow instructions")?;
        let render = |turns: &[(&str, &str)]| render(model, &template, turns);
        let plain = render(&[("user", USER)])
            .ok_or("has a chat template that llama.cpp does not know: use another model")?;
        let (before, after) = cut(&plain, USER).ok_or("has a chat template that leaves out what is asked")?;
        let both = render(&[("system", SYSTEM), ("user", USER)]);
        let with_system = both.and_then(|both| {
            let (before, rest) = cut(&both, SYSTEM)?;
            let (between, after) = cut(rest, USER)?;
            Some([before.to_owned(), between.to_owned(), after.to_owned()])
        });
        Ok(Self {
            plain: [before.to_owned(), after.to_owned()],
            with_system,
        })
    }

    /// A question's tokens, up to where the model begins to answer.
    pub(super) fn tokens(&self, model: &LlamaModel, system: Option<&str>, user: &str) -> Vec<LlamaToken> {
        let vocab = model.vocab();
        let mut tokens = Vec::new();
        if vocab.should_add_bos() {
            tokens.push(vocab.bos());
        }
        let marks =
            |text: &str, tokens: &mut Vec<_>| vocab.tokenize_into(text.as_bytes(), tokens, false, true);
        let said =
            |text: &str, tokens: &mut Vec<_>| vocab.tokenize_into(text.as_bytes(), tokens, false, false);
        match (system, &self.with_system) {
            (Some(system), Some([before, between, after])) => {
                marks(before, &mut tokens);
                said(system, &mut tokens);
                marks(between, &mut tokens);
                said(user, &mut tokens);
                marks(after, &mut tokens);
            }
            (system, _) => {
                let [before, after] = &self.plain;
                marks(before, &mut tokens);
                if let Some(system) = system {
                    said(&format!("{system}\n\n"), &mut tokens);
                }
                said(user, &mut tokens);
                marks(after, &mut tokens);
            }
        }
        tokens
    }
}

fn render(model: &LlamaModel, template: &LlamaChatTemplate, turns: &[(&str, &str)]) -> Option<String> {
    let turns: Result<Vec<_>, _> = turns
        .iter()
        .map(|(who, what)| LlamaChatMessage::new((*who).into(), (*what).into()))
        .collect();
    model.apply_chat_template(template, &turns.ok()?, true).ok()
}

/// What is before and after a marker that is there once.
fn cut<'a>(text: &'a str, marker: &str) -> Option<(&'a str, &'a str)> {
    text.split_once(marker)
        .filter(|(_, after)| !after.contains(marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_cut_at_what_is_there_once() {
        assert_eq!(cut("<u>weir-user-5b80e3aa</u>", USER), Some(("<u>", "</u>")));
        assert_eq!(cut("<u></u>", USER), None);
        assert_eq!(cut(&format!("{USER}{USER}"), USER), None);
    }
}
