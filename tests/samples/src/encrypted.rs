//! An encrypted document with a 128-bit RC4 key, in revision 3 of the standard security handler (ISO 32000-1, 7.6.3). RC4 is
//! insecure, but most encrypted PDFs still use it.

use md5::{Digest, Md5};
use pdf_writer::{Finish, Name, Pdf, Rect, Ref};

use crate::fonts::Typeface;
use crate::pdf_document::{A4_POINTS, Page};

/// The padding of passwords, from the standard.
const PASSWORD_PADDING: [u8; 32] = [
    0x28, 0xbf, 0x4e, 0x5e, 0x4e, 0x75, 0x8a, 0x41, 0x64, 0x00, 0x4e, 0x56, 0xff, 0xfa, 0x01, 0x08, 0x2e,
    0x2e, 0x00, 0xb6, 0xd0, 0x68, 0x3e, 0x80, 0x2f, 0x0c, 0xa9, 0xfe, 0x64, 0x53, 0x69, 0x7a,
];
const FILE_ID: [u8; 16] = *b"weir sample 0001";
/// All permissions are granted.
const PERMISSIONS: i32 = -4;

/// Builds a document of two pages that opens only with `password`, as user and as owner.
pub fn encrypted_document(password: &str) -> Vec<u8> {
    let padded = pad_password(password.as_bytes());
    let owner = owner_entry(&padded);
    let key = file_key(&padded, &owner);

    let mut pdf = Pdf::new();
    let (tree, encrypt, font, catalog) = (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(8));
    pdf.set_file_id((FILE_ID.to_vec(), FILE_ID.to_vec()));
    pdf.type1_font(font).base_font(Typeface::Serif.base_font_name());
    for (i, text) in [
        "The combination of the safe is 4 - 18 - 31.",
        "It is changed on the first of each month.",
    ]
    .into_iter()
    .enumerate()
    {
        let mut page = Page::new(A4_POINTS);
        page.draw_text(Typeface::Serif, 16.0, 72.0, 700.0, text);
        let mut content = page.content.finish().into_vec();
        let (page, stream) = (Ref::new(4 + 2 * i as i32), Ref::new(5 + 2 * i as i32));
        apply_rc4(&object_key(&key, stream), &mut content);
        pdf.stream(stream, &content);
        let mut object = pdf.page(page);
        object
            .parent(tree)
            .contents(stream)
            .media_box(Rect::new(0.0, 0.0, A4_POINTS.0, A4_POINTS.1));
        object
            .resources()
            .fonts()
            .pair(Typeface::Serif.resource_name(), font);
    }
    pdf.pages(tree).kids([Ref::new(4), Ref::new(6)]).count(2);
    let mut dict = pdf.indirect(encrypt).dict();
    dict.pair(Name(b"Filter"), Name(b"Standard"));
    dict.pair(Name(b"V"), 2)
        .pair(Name(b"R"), 3)
        .pair(Name(b"Length"), 128)
        .pair(Name(b"P"), PERMISSIONS);
    dict.pair(Name(b"O"), pdf_writer::Str(&owner))
        .pair(Name(b"U"), pdf_writer::Str(&user_entry(&key)));
    dict.finish();
    pdf.catalog(catalog).pages(tree);
    with_trailer_entry(pdf.finish(), &format!("/Encrypt {} 0 R\n", encrypt.get()))
}

/// Adds an entry to the trailer, which is behind the cross-reference table, so that no offset changes.
fn with_trailer_entry(file: Vec<u8>, entry: &str) -> Vec<u8> {
    const TRAILER: &[u8] = b"trailer\n<<\n";
    let at = file
        .windows(TRAILER.len())
        .rposition(|w| w == TRAILER)
        .map_or(file.len(), |at| at + TRAILER.len());
    let (before, after) = file.split_at(at);
    [before, entry.as_bytes(), after].concat()
}

fn pad_password(password: &[u8]) -> [u8; 32] {
    let mut padded = [0; 32];
    for (to, from) in padded.iter_mut().zip(password.iter().chain(&PASSWORD_PADDING)) {
        *to = *from;
    }
    padded
}

/// Algorithm 3: encrypts the user password with the owner password, which is the same here.
fn owner_entry(password: &[u8; 32]) -> [u8; 32] {
    let key = repeat_md5(Md5::digest(password).into(), 50);
    let mut entry = *password;
    encrypt_twenty_rounds(&key, &mut entry);
    entry
}

/// Algorithm 2: computes the file's encryption key.
fn file_key(password: &[u8; 32], owner: &[u8; 32]) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(password);
    hash.update(owner);
    hash.update(PERMISSIONS.to_le_bytes());
    hash.update(FILE_ID);
    repeat_md5(hash.finalize().into(), 50)
}

/// Algorithm 5: computes the user password entry.
fn user_entry(key: &[u8; 16]) -> [u8; 32] {
    let mut hash = Md5::new();
    hash.update(PASSWORD_PADDING);
    hash.update(FILE_ID);
    let mut entry: [u8; 16] = hash.finalize().into();
    encrypt_twenty_rounds(key, &mut entry);
    let mut padded = [0; 32];
    padded.iter_mut().zip(entry).for_each(|(to, from)| *to = from);
    padded
}

/// Algorithm 1: computes the key of one object.
fn object_key(key: &[u8; 16], object: Ref) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(key);
    hash.update(object.get().to_le_bytes().get(..3).unwrap_or_default());
    hash.update([0, 0]);
    hash.finalize().into()
}

fn repeat_md5(mut hash: [u8; 16], times: u32) -> [u8; 16] {
    for _ in 0..times {
        hash = Md5::digest(hash).into();
    }
    hash
}

fn encrypt_twenty_rounds(key: &[u8; 16], data: &mut [u8]) {
    for i in 0..20 {
        apply_rc4(&key.map(|byte| byte ^ i), data);
    }
}

/// Encrypts or decrypts the data in place with RC4.
#[allow(
    clippy::indexing_slicing,
    reason = "a byte always indexes 256 entries; the key is never empty"
)]
fn apply_rc4(key: &[u8; 16], data: &mut [u8]) {
    let mut state: [u8; 256] = std::array::from_fn(|i| i as u8);
    let mut j = 0_u8;
    for i in 0..256 {
        j = j.wrapping_add(state[i]).wrapping_add(key[i % key.len()]);
        state.swap(i, usize::from(j));
    }
    let (mut i, mut j) = (0_u8, 0_u8);
    for byte in data {
        i = i.wrapping_add(1);
        j = j.wrapping_add(state[usize::from(i)]);
        state.swap(usize::from(i), usize::from(j));
        let at = state[usize::from(i)].wrapping_add(state[usize::from(j)]);
        *byte ^= state[usize::from(at)];
    }
}
