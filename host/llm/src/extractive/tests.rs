use weir_core::Lane;
use weir_core::decision::Device;

use super::*;

/// Counts words: texts that share words are alike.
struct Words;

#[async_trait]
impl Embedder for Words {
    async fn embed(&self, _: &Account, texts: Vec<String>) -> Result<Vec<Vec<f32>>, InferenceError> {
        let vector = |text: &String| {
            let mut vector = vec![0.0_f32; 64];
            for word in text
                .to_lowercase()
                .split(|c: char| !c.is_alphanumeric())
                .filter(|w| w.len() > 3)
            {
                let place = word
                    .bytes()
                    .fold(7_usize, |hash, byte| hash.wrapping_mul(31) + usize::from(byte))
                    % 64;
                vector[place] += 1.0;
            }
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1.0);
            vector.into_iter().map(|x| x / length).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }

    fn count_tokens(&self, text: &str) -> Result<u32, InferenceError> {
        Ok(text.split_whitespace().count() as u32)
    }

    fn dimensions(&self) -> usize {
        64
    }

    fn max_tokens(&self) -> u32 {
        256
    }

    fn workers(&self) -> u32 {
        1
    }

    fn device(&self) -> Device {
        Device {
            gpu: false,
            memory_bytes: 0,
            cores: 1,
        }
    }
}

const TEXT: &str = "Weirs in rivers\nA weir is a low barrier across a river that raises the level of its water. \
    Many a weir was built so that mills could take water from the river.\nThe miller had a dog with one eye and three legs. \
    Where a weir raises the water, boats pass the river by a lock. \
    A weir also measures how much water a river carries, because the level above the weir depends on it.\nLunch was late on that day. \
    Fish need a ladder beside the weir to climb the river to where they were born. \
    In floods the weir is lowered so that the water of the river can pass.";

fn question(kind: QuestionKind, text: &str, max_tokens: u32) -> Question {
    Question {
        account: Account {
            tenant: "t".parse().unwrap(),
            lane: Lane::Bulk,
            linger: Duration::from_secs(9),
            weight: 1.0,
        },
        kind,
        system: Some("You are a summarizer.".into()),
        prompt: "Summarize the text in five sentences. Do it well.\n---\n{text}\n---\nSummary:".into(),
        text: text.into(),
        image: None,
        max_tokens,
        patience: Duration::from_secs(1),
        document: None,
    }
}

async fn ask(question: &Question) -> Result<Reply, Fault> {
    Extractive::new(Arc::new(Words)).ask(question).await
}

/// Every quote is the text's, word for word and in its order, and the answer is nothing but quotes.
fn check(reply: &Reply, text: &str) {
    let (mut said, mut source) = (0, 0);
    for quote in &reply.quotes {
        let answered = &reply.text[quote.answer.start as usize..quote.answer.end as usize];
        let quoted = &text[quote.source.start as usize..quote.source.end as usize];
        let words: Vec<_> = quoted.split_whitespace().collect();
        assert_eq!(answered, words.join(" "));
        assert!(quote.answer.start as usize <= said + 1 && quote.source.start >= source);
        (said, source) = (quote.answer.end as usize, quote.source.end);
    }
    assert_eq!(said, reply.text.len());
    assert!(!reply.text.contains("Summar"), "the prompt is not echoed");
}

#[tokio::test]
async fn a_summary_is_the_sentences_that_say_most_where_they_stand() {
    let reply = ask(&question(QuestionKind::Map, TEXT, 300)).await.unwrap();
    check(&reply, TEXT);
    assert_eq!(reply.quotes.len(), 2, "a quarter of eight: {}", reply.text);
    assert!(
        !reply.text.contains("dog") && !reply.text.contains("Lunch"),
        "{}",
        reply.text
    );
    assert!(
        !reply.text.contains("Weirs in rivers"),
        "a heading is no sentence"
    );
}

#[tokio::test]
async fn it_keeps_to_its_tokens_and_is_never_empty() {
    for (tokens, quotes) in [(1, 1), (20, 1), (300, 2)] {
        let reply = ask(&question(QuestionKind::Preview, TEXT, tokens)).await.unwrap();
        check(&reply, TEXT);
        assert_eq!(reply.quotes.len(), quotes, "{tokens}: {}", reply.text);
    }
    let title = ask(&question(QuestionKind::Title, TEXT, 20)).await.unwrap();
    check(&title, TEXT);
    assert!(title.text.split_whitespace().count() <= 12, "{}", title.text);
}

#[tokio::test]
async fn nothing_is_said_twice() {
    let text = "A weir raises the level of the water. ".repeat(12) + "Fish need a ladder to climb the river.";
    let reply = ask(&question(QuestionKind::Reduce, &text, 300)).await.unwrap();
    assert!(reply.text.contains("ladder"), "{}", reply.text);
}

#[tokio::test]
async fn a_text_without_sentences_has_nothing_to_quote() {
    for text in ["", "Contents\n1 Weirs\n2 Locks\n"] {
        let fault = ask(&question(QuestionKind::Map, text, 300)).await.unwrap_err();
        assert_eq!(fault, Fault::NothingToQuote);
    }
}

#[tokio::test]
async fn a_very_long_text_is_looked_at_from_all_over() {
    let text: String = (0..3000)
        .map(|i| format!("The river number {i} has a weir. "))
        .collect();
    let reply = ask(&question(QuestionKind::Map, &text, 300)).await.unwrap();
    check(&reply, &text);
    assert_eq!(reply.quotes.len(), 5);
}
