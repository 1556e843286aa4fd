//! The capabilities of components while their job is active.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;
use weir_core::Stage;
use weir_core::page::Rect;
use weir_core::ports::HostCapabilities;

use crate::fakes::{FakeHost, single_tenant_job};

#[tokio::test(start_paused = true)]
async fn components_see_the_open_documents_of_their_job_and_the_models() {
    let mut fakes = FakeHost::new().with_cost(Stage::Read, 1000);
    let captured: Arc<Mutex<Option<Arc<dyn HostCapabilities>>>> = Arc::default();
    let captured_clone = Arc::clone(&captured);
    fakes.script.on_open =
        Arc::new(move |capabilities| *captured_clone.lock() = Some(Arc::clone(capabilities)));
    let engine = fakes.build_engine();
    let handle = engine.start_or_resume_job(single_tenant_job([fakes.document_spec("a.pdf", 10)]));
    sleep(Duration::from_millis(1500)).await;
    let ask = captured.lock().clone().unwrap();
    let id = fakes.document_id("a.pdf");

    let text = ask.read_page_text_layer(&id, 3).await.unwrap();
    assert!(
        text.starts_with("page 3 says this") && text.contains('\n'),
        "{text}"
    );
    let text = ask.recognize_region(&id, 4, Rect::WHOLE_PAGE).await.unwrap();
    assert!(text.starts_with("page 4 says this"), "{text}");
    let (width, height, pixels) = ask.render_preview(&id, 2, 64).await.unwrap();
    assert_eq!((width, height, pixels.len()), (4, 1, 4));
    assert_eq!(ask.count_embedding_tokens("one two three").await.unwrap(), 3);
    assert_eq!(ask.embed_texts(vec!["what is it".into()]).await.unwrap().len(), 1);

    let refused = |result: Result<String, weir_core::event::ErrorInfo>| result.unwrap_err().kind;
    assert_eq!(refused(ask.read_page_text_layer(&id, 11).await), "unavailable");
    assert_eq!(
        refused(
            ask.read_page_text_layer(&weir_core::DocumentId::from_content(b"other"), 1)
                .await
        ),
        "unavailable"
    );
    assert_eq!(refused(ask.generate_text("why?", 10).await), "unavailable");
    let nothing = Rect {
        width: 0.0,
        ..Rect::WHOLE_PAGE
    };
    assert_eq!(refused(ask.recognize_region(&id, 1, nothing).await), "invalid");
    assert_eq!(
        ask.render_preview(&id, 1, 4000).await.unwrap_err().kind,
        "invalid"
    );

    // A document that is done is closed and no longer visible.
    handle.await_outcome().await;
    assert_eq!(refused(ask.read_page_text_layer(&id, 3).await), "unavailable");
}
