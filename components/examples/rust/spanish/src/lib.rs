//! Progress in Spanish, with the section being read.
//!
//! For a long report, "capítulo 7" tells the user more than "42 %". So the text of each finished page is searched for a numbered heading,
//! and the update names the latest one. There is an update at the start, at each new section, at each step in percent, at each failure and
//! at the end.

use std::collections::HashMap;

use weir_sdk::progress::{DocumentEnded, DocumentStarted, Event, PageDone, PageFailed, Progress, Update};
use weir_sdk::{DocumentId, Stage, rasterizer, settings};

struct Spanish {
    /// Increase in percent between two updates.
    step: f64,
    documents: HashMap<DocumentId, DocumentProgress>,
}

/// The progress of an active document.
struct DocumentProgress {
    started: u64,
    pages: u32,
    already_done: u32,
    done: u32,
    failed: u32,
    section: Option<String>,
    reported_percent: f64,
}

impl Default for Spanish {
    fn default() -> Self {
        Self {
            step: settings::within("step-percent", 5.0, 0.0..=100.0),
            documents: HashMap::new(),
        }
    }
}

impl Progress for Spanish {
    fn observe(&mut self, at_millis: u64, event: Event) -> Vec<Update> {
        match event {
            Event::DocumentStarted(started) => self.document_started(at_millis, started),
            Event::PageDone(page) => self.page_done(at_millis, page),
            Event::PageFailed(page) => self.page_failed(at_millis, page),
            Event::DocumentDone(ended) => self.document_ended(at_millis, ended, true),
            Event::DocumentFailed(ended) => self.document_ended(at_millis, ended, false),
            Event::BatchRasterized(_) => Vec::new(),
        }
    }
}

impl Spanish {
    fn document_started(&mut self, at_millis: u64, started: DocumentStarted) -> Vec<Update> {
        let mut document = DocumentProgress {
            started: at_millis,
            pages: started.pages,
            already_done: started.already_done,
            done: started.already_done,
            failed: 0,
            section: None,
            reported_percent: 0.0,
        };
        let message = match started.already_done {
            0 => format!("«{}»: {}", started.name, format_pages(started.pages)),
            done => format!(
                "«{}»: {}, {done} ya estaban hechas",
                started.name,
                format_pages(started.pages)
            ),
        };
        let update = document.update(at_millis, started.document.clone(), message);
        self.documents.insert(started.document, document);
        vec![update]
    }

    fn page_done(&mut self, at_millis: u64, page: PageDone) -> Vec<Update> {
        let Some(document) = self.documents.get_mut(&page.document) else {
            return Vec::new();
        };
        document.done += 1;
        let section = rasterizer::text(&page.document, page.page)
            .ok()
            .and_then(|text| find_heading(&text));
        let is_new = section.is_some() && section != document.section;
        document.section = section.or(document.section.take());
        if !is_new
            && document.done + document.failed < document.pages
            && document.percent() - document.reported_percent < self.step
        {
            return Vec::new();
        }
        let counted = format!("{} de {}", document.done, format_pages(document.pages));
        let message = match &document.section {
            Some(section) => format!("Leyendo «{section}»: {counted}"),
            None => counted,
        };
        vec![document.update(at_millis, page.document, message)]
    }

    fn page_failed(&mut self, at_millis: u64, page: PageFailed) -> Vec<Update> {
        let Some(document) = self.documents.get_mut(&page.document) else {
            return Vec::new();
        };
        document.failed += 1;
        let verb = match page.stage {
            Stage::Rasterize => "dibujar",
            Stage::Store => "guardar",
            Stage::Read => "leer",
            Stage::Embed | Stage::Upsert => "indexar",
        };
        let message = format!("La página {} no se pudo {verb}: {}", page.page, page.message);
        vec![document.update(at_millis, page.document, message)]
    }

    fn document_ended(&mut self, at_millis: u64, ended: DocumentEnded, well: bool) -> Vec<Update> {
        let Some(mut document) = self.documents.remove(&ended.document) else {
            return Vec::new();
        };
        let tenths = at_millis.saturating_sub(document.started) / 100;
        let mut message = if well {
            format!(
                "Listo: {} en {},{} s",
                format_pages(ended.done),
                tenths / 10,
                tenths % 10
            )
        } else {
            format!("Detenido: {} de {}", ended.done, format_pages(document.pages))
        };
        if ended.failed > 0 {
            message += &format!(", {} con errores", ended.failed);
        }
        let mut update = document.update(at_millis, ended.document, message);
        if well {
            update.percent = 100.0;
        }
        update.seconds_left = well.then_some(0);
        vec![update]
    }
}

impl DocumentProgress {
    fn percent(&self) -> f64 {
        (f64::from(self.done + self.failed) * 100.0 / f64::from(self.pages.max(1))).min(100.0)
    }

    fn update(&mut self, at_millis: u64, document: DocumentId, message: String) -> Update {
        self.reported_percent = self.percent();
        Update {
            document,
            percent: self.reported_percent as f32,
            message: message.chars().take(500).collect(),
            seconds_left: self.seconds_left(at_millis),
        }
    }

    /// Estimates the seconds for the pages left from the rate so far, rounded up. Returns `None` before the first page of this job.
    fn seconds_left(&self, at_millis: u64) -> Option<u32> {
        let new = u64::from((self.done + self.failed).saturating_sub(self.already_done)) * 1000;
        let left = u64::from(self.pages.saturating_sub(self.done + self.failed));
        let elapsed = at_millis.saturating_sub(self.started);
        (new > 0).then(|| u32::try_from((elapsed * left).div_ceil(new)).unwrap_or(u32::MAX))
    }
}

fn format_pages(count: u32) -> String {
    match count {
        1 => "1 página".into(),
        count => format!("{count} páginas"),
    }
}

/// Finds the first line of a page that is a numbered heading: `3 Las compuertas`, `2.1. Alcance`.
fn find_heading(text: &str) -> Option<String> {
    text.split('\n')
        .take(200)
        .map(str::trim)
        .find(|line| is_heading(line))
        .map(str::to_owned)
}

fn is_heading(line: &str) -> bool {
    let number = line
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, title) = line.split_at(number);
    number.starts_with(|c: char| c.is_ascii_digit())
        && title
            .strip_prefix(' ')
            .is_some_and(|title| title.starts_with(char::is_uppercase))
        && (5..=70).contains(&line.chars().count())
        && !line.ends_with('.')
}

weir_sdk::export!(Spanish: Progress);
