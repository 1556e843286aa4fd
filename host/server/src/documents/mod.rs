//! Reads and deletes documents of a tenant: facts, pages, images, lines, Markdown and summaries.

mod document;
mod document_loader;
mod markdown;
mod page;
mod removal;
mod signed_page_files;
mod summary;
#[cfg(test)]
mod tests;

pub(crate) use document::{__path_get_document, __path_list_documents, get_document, list_documents};
pub(crate) use markdown::{__path_get_document_markdown, get_document_markdown};
pub(crate) use page::{
    __path_get_page, __path_get_page_image, __path_get_page_lines, get_page, get_page_image, get_page_lines,
};
pub(crate) use removal::{__path_delete_document, delete_document};
pub(crate) use signed_page_files::{
    __path_get_signed_image, __path_get_signed_lines, get_signed_image, get_signed_lines,
};
pub(crate) use summary::{__path_get_document_summaries, ByteRange, get_document_summaries};
