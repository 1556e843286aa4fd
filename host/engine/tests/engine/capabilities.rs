//! What components may ask while their job is in work.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use weir_core::Stage;
use weir_core::page::Rect;
use weir_core::ports::Capabilities;

use crate::fakes::{Fakes, job};

#[tokio::test(start_paused = true)]
async fn components_see_the_open_documents_of_their_job_and_the_models() {
    let mut fakes = Fakes::new().cost(Stage::Read, 1000);
    let given: Arc<Mutex<Option<Arc<dyn Capabilities>>>> = Arc::default();
    let taken = Arc::clone(&given);
    fakes.script.opened = Arc::new(move |capabilities| *taken.lock() = Some(Arc::clone(capabilities)));
    let engine = fakes.engine();
    let handle = engine.start(job([fakes.document("a.pdf", 10)]));
    sleep(Duration::from_millis(1500)).await;
    let ask = given.lock().clone().unwrap();
    let id = fakes.id("a.pdf");

    let text = ask.page_text(&id, 3).await.unwrap();
    assert!(
        text.starts_with("page 3 says this") && text.contains('\n'),
        "{text}"
    );
    let text = ask.recognize(&id, 4, Rect::PAGE).await.unwrap();
    assert!(text.starts_with("page 4 says this"), "{text}");
    let (width, height, pixels) = ask.preview(&id, 2, 64).await.unwrap();
    assert_eq!((width, height, pixels.len()), (4, 1, 4));
    assert_eq!(ask.count_tokens("one two three").await.unwrap(), 3);
    assert_eq!(ask.embed(vec!["what is it".into()]).await.unwrap().len(), 1);

    let refused = |result: Result<String, weir_core::event::ErrorNote>| result.unwrap_err().kind;
    assert_eq!(refused(ask.page_text(&id, 11).await), "unavailable");
    assert_eq!(
        refused(ask.page_text(&weir_core::DocumentId::of(b"other"), 1).await),
        "unavailable"
    );
    assert_eq!(refused(ask.generate("why?", 10).await), "unavailable");
    let nothing = Rect {
        width: 0.0,
        ..Rect::PAGE
    };
    assert_eq!(refused(ask.recognize(&id, 1, nothing).await), "invalid");
    assert_eq!(ask.preview(&id, 1, 4000).await.unwrap_err().kind, "invalid");

    // A document that is done is closed, whoever still asks.
    handle.wait().await;
    assert_eq!(refused(ask.page_text(&id, 3).await), "unavailable");
}
