use weir_sdk::routing::*;
use weir_sdk::*;
#[derive(Default)]
struct P;
impl Routing for P {
    fn page(&mut self, _d: DocumentId, f: PageFacts) -> PageRoute {
        PageRoute { reading: if f.text_chars > 0 { Reading::TextLayer } else { Reading::Ocr }, embed: true, store: true, labels: vec![] }
    }
}
weir_sdk::export!(P: Routing);
